"""`workbench serve`: the OpenAI-compatible endpoint, until the process is told to end."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from workbench.cli.cluster_settings import ClusterSettings
from workbench.cli.model_settings import ModelSettings
from workbench.cli.settings_options import takes_settings
from workbench.engine import EngineConfig
from workbench.server.settings import (
    ListenSettings,
    LoadSettings,
    QueueSettings,
    RateLimits,
    ServerSettings,
    WireLimits,
)
from workbench.session import EngineFactory, Session, engine_of

if TYPE_CHECKING:
    from workbench.cli.services import Services
    from workbench.distributed.cluster.config import ClusterConfig
    from workbench.llm import LlamaGPU
    from workbench.progress import ProgressCallback
    from workbench.server.endpoint import Endpoint
    from workbench.session_status import LoadChoice

__all__ = ["command", "engine_factory"]


@takes_settings(
    model=ModelSettings,
    engine=EngineConfig,
    cluster=ClusterSettings,
    listen=ListenSettings,
    rates=RateLimits,
    queue=QueueSettings,
    wire=WireLimits,
    load=LoadSettings,
)
def command(
    ctx: typer.Context,
    *,
    served_name: Annotated[
        list[str], typer.Option("--served-name", help="A further name under which clients may ask for the model.")
    ] = [],  # noqa: B006 - typer wants a list, and nothing changes it
    api_key: Annotated[
        str | None,
        typer.Option(
            "--api-key",
            envvar=["WORKBENCH_API_KEY", "LLAMA_GPU_API_KEY"],
            help="A key that may use the model. Other users see command lines: better use the variable.",
        ),
    ] = None,
    admin_key: Annotated[
        str | None,
        typer.Option("--admin-key", envvar="WORKBENCH_ADMIN_KEY", help="A key that may also load and unload models."),
    ] = None,
    access_log: Annotated[
        bool, typer.Option("--access-log/--no-access-log", help="Write one JSON line per request to stderr.")
    ] = True,
    watches_spot: Annotated[
        bool,
        typer.Option("--watch-spot/--no-watch-spot", help="On an EC2 spot instance, drain at the two-minute notice."),
    ] = True,
    model: ModelSettings,
    engine: EngineConfig,
    cluster: ClusterSettings,
    listen: ListenSettings,
    rates: RateLimits,
    queue: QueueSettings,
    wire: WireLimits,
    load: LoadSettings,
) -> None:
    from workbench.server.access import Access
    from workbench.server.endpoint import Endpoint
    from workbench.server.foreground import serve_until_signal
    from workbench.server.json_log import json_log
    from workbench.server.keys import default_key_file
    from workbench.server.model_host import ModelHost
    from workbench.server.spot_drain import watch_spot

    settings = ServerSettings(listen, rates, queue, wire, load)
    access = Access.of(listen, default_key_file(), api_key=api_key, admin_key=admin_key)
    replicas = cluster.config()
    session = Session(engine_factory(ctx.obj, model, engine, replicas))
    session.announce(model.model)
    host = ModelHost.factory(session, aliases=tuple(served_name), drain_s=queue.drain_s, first_sources=(model.model,))
    endpoint = Endpoint(host, settings, access)
    # Answers before the model has taken its time: who watches it sees a server that is not ready, not one that hangs.
    with json_log(access=access_log), endpoint.start(), model.open(ctx.obj, engine, cluster=replicas) as llm:
        session.adopt(llm)
        _announce(endpoint, llm)
        watcher = watch_spot(endpoint) if watches_spot else None
        try:
            # After a spot notice the end is meant: a supervisor must not start it again on an instance that goes away.
            was_meant = serve_until_signal(endpoint) or (watcher is not None and watcher.notice is not None)
            if not was_meant:
                raise typer.Exit(1)
        finally:
            if watcher is not None:
                watcher.stop()


def engine_factory(
    services: Services, model: ModelSettings, engine: EngineConfig, cluster: ClusterConfig | None = None
) -> EngineFactory:
    """Loads further models with the same engine settings, but for what a choice says; they may never bring code or
    pickles along. A draft model goes with the model that it was named for."""

    def load(choice: LoadChoice, progress: ProgressCallback) -> LlamaGPU:
        settings = engine if choice.model == model.model else replace(engine, draft_model=None)
        return services.open_llm(
            model_path=choice.model,
            prefer_gpu=model.prefer_gpu,
            quant_type=choice.precision,
            backend=choice.backend,
            device_index=_device_index(choice, model),
            engine=engine_of(choice, settings),
            parallel=choice.parallel,
            cluster=cluster,
            progress=progress,
        )

    return load


def _device_index(choice: LoadChoice, model: ModelSettings) -> int:
    if choice.parallel is not None:
        # It says which devices.
        return 0
    return choice.gpus[0] if choice.gpus else model.device_index


def _announce(endpoint: Endpoint, llm: LlamaGPU) -> None:
    print(f"{llm.model_name} answers at {endpoint.url}", file=sys.stderr)
    if endpoint.access.is_generated:
        print(f"API key, shown this once: {endpoint.api_key}", file=sys.stderr)
    if endpoint.access.ring is None:
        print("no key is needed: everybody who can reach this address has every right", file=sys.stderr)
    sys.stderr.flush()
