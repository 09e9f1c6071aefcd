"""`launch`: the app from a notebook or a program, on a loaded model, a session, or somebody's endpoint."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Literal

from dashboards.app import App
from dashboards.parts import AppParts
from dashboards.sources import EndpointCluster, EndpointSource, SessionCluster, SessionSource
from dashboards.toolbox import BUILT_IN_TOOLS, Toolbox
from workbench.conversation import default_preset_shelf
from workbench.errors import ConfigError, EngineStoppedError
from workbench.plugins import default_plugins
from workbench.server.access import Access
from workbench.server.keys import default_key_file
from workbench.server.settings import AppSettings, ListenSettings
from workbench.session import Session
from workbench.telemetry import EngineRates, ProcessMemory, ProcessorUse, Sampler

if TYPE_CHECKING:
    from workbench.llm import LlamaGPU

__all__ = ["App", "launch", "make_app"]


def make_app(
    *,
    session: Session | None = None,
    url: str | None = None,
    api_key: str | None = None,
    listen: ListenSettings,
    settings: AppSettings,
    app_key: str | None = None,
    admin_key: str | None = None,
) -> App:
    """An app that is not started yet: over a session, or over the endpoint at `url` (to which `api_key` belongs).

    Away from loopback a key is asked for: a stored one (`workbench keys`), `app_key` or `admin_key`. Raises
    ConfigError where there is none, and for wrong settings.
    """
    if (session is None) == (url is None):
        raise ConfigError("the app needs either a model of its own or the url of an endpoint")
    ring = _ring(listen, settings, app_key, admin_key)
    shelf, toolbox = default_preset_shelf(), Toolbox(BUILT_IN_TOOLS)
    if url is not None:
        source = EndpointSource(url, api_key)
        parts = AppParts(source, shelf, toolbox, EndpointCluster(source), ring=ring)
    else:
        from dashboards.bench import Bench
        from widgets.model_probe import ModelProbe, engine_of

        probes = [*_machine_probes(), EngineRates(session.stats), ModelProbe(engine_of(session))]
        sampler = Sampler(probes, name="workbench-app-sampler")
        cluster = SessionCluster(session, lambda: {name: one.last for name, one in sampler.series.items()})
        parts = AppParts(
            SessionSource(session), shelf, toolbox, cluster, session, sampler, Bench(), default_plugins(), ring
        )
    return App(parts, listen, root_path=settings.root_path)


def launch(
    llm: LlamaGPU | Session | None = None,
    *,
    url: str | None = None,
    api_key: str | None = None,
    name: str = "default",
    host: str = "127.0.0.1",
    port: int = 0,
    app_key: str | None = None,
    admin_key: str | None = None,
    root_path: str = "",
    require_key: bool = False,
    share: Literal[False] = False,
) -> App:
    """Open the app on a loaded model, on a session (such as `panel.session`), or on the endpoint at `url`.

    Requests of the app, the notebook and its panel share one batch. Launching the same again under the same `name`
    gives the app that runs; anything else takes its place, on its port. `app.url` says where it is, and `app.stop()`
    ends it; the model stays. `share` is there to be refused: the app never makes a public tunnel.

    Raises ConfigError for wrong settings, EngineStoppedError for a model that is unloaded.
    """
    if share:
        raise ConfigError(
            "share=True: the app makes no public tunnel; to let others in, give host='0.0.0.0' and a key, or put it "
            "behind a proxy of yours"
        )
    if (llm is None) == (url is None):
        raise ConfigError("give either a loaded model (or a session), or the url of an endpoint")
    if not isinstance(llm, Session) and llm is not None and not llm.is_loaded:
        raise EngineStoppedError("llm is unloaded: load it again before the app is launched")
    made_from = (llm, url, api_key, host, port, app_key, admin_key, root_path, require_key)

    def make(port: int) -> App:
        return make_app(
            session=None if llm is None else _session_of(llm),
            url=url,
            api_key=api_key,
            listen=ListenSettings(host=host, port=port),
            settings=AppSettings(root_path, require_key),
            app_key=app_key,
            admin_key=admin_key,
        )

    return _APPS.launch(name, made_from, port, make)


class _Apps:
    """At most one running app per name, so that running a cell again leaves no second one behind."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._apps: dict[str, tuple[App, tuple[Any, ...]]] = {}

    def launch(self, name: str, made_from: tuple[Any, ...], port: int, make: Any) -> App:
        with self._lock:
            before, made = self._apps.get(name, (None, ()))
            if before is not None and before.is_running:
                if len(made) == len(made_from) and all(a is b or a == b for a, b in zip(made, made_from, strict=True)):
                    return before
                before.stop()
                port = port or before.port
            app = make(port).start()
            self._apps[name] = (app, made_from)
            return app


# A notebook's cells share nothing but the process, so this is the one place that remembers for all of it.
_APPS = _Apps()


def _session_of(llm: LlamaGPU | Session) -> Session:
    if isinstance(llm, Session):
        return llm
    session = Session()
    session.adopt(llm)
    return session


def _machine_probes() -> list[Any]:
    from widgets.live_plot import gpu_probes
    from workbench.backends import detect

    statuses = detect()
    return [ProcessMemory(), *gpu_probes(statuses), ProcessorUse(statuses)]


def _ring(listen: ListenSettings, settings: AppSettings, app_key: str | None, admin_key: str | None) -> Any:
    """The keys that the app accepts; None where it asks for none."""
    if listen.no_auth:
        return None
    if listen.is_loopback and not settings.require_key and not (app_key or admin_key):
        return None
    access = Access.of(listen, default_key_file(), api_key=app_key, admin_key=admin_key)
    if not access.has_own_keys:
        raise ConfigError(
            f"host={listen.host!r}: the app asks for a key there, and there is none: give one, make one with "
            "`workbench keys create`, or set no_auth to serve everybody"
        )
    return access.ring
