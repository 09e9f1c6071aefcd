"""`workbench app`: the web app on a model of its own, or on a running endpoint, until the process is told to end."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import webbrowser
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Annotated

import typer

from workbench.cli.given_options import refuse_given
from workbench.cli.model_settings import ModelSettings
from workbench.cli.serve import engine_factory
from workbench.cli.settings_options import takes_settings
from workbench.engine import EngineConfig
from workbench.errors import ConfigError
from workbench.server.settings import AppSettings, ListenSettings
from workbench.session import Session

if TYPE_CHECKING:
    from dashboards.launching import App

__all__ = ["command"]

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_OF_A_MODEL = tuple(field.name for kind in (ModelSettings, EngineConfig) for field in fields(kind))


@takes_settings({"port": 7860}, model=ModelSettings, engine=EngineConfig, listen=ListenSettings, settings=AppSettings)
def command(
    ctx: typer.Context,
    *,
    url: Annotated[
        str | None, typer.Option("--url", help="Chat with the model behind this OpenAI-compatible endpoint instead.")
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option("--api-key", envvar="WORKBENCH_API_KEY", help="The key that the endpoint of --url wants."),
    ] = None,
    app_key: Annotated[
        str | None,
        typer.Option("--app-key", envvar="WORKBENCH_APP_KEY", help="A key with which people may use the app."),
    ] = None,
    admin_key: Annotated[
        str | None,
        typer.Option("--admin-key", envvar="WORKBENCH_ADMIN_KEY", help="A key that may also load and unload models."),
    ] = None,
    open_browser: Annotated[bool, typer.Option("--open", help="Open it in this machine's browser.")] = False,
    model: ModelSettings,
    engine: EngineConfig,
    listen: ListenSettings,
    settings: AppSettings,
) -> None:
    if url is None:
        refuse_given(ctx, ("api_key",), "without --url")
    else:
        refuse_given(ctx, _OF_A_MODEL, "with --url: the model is the endpoint's")
        if not url.startswith(("http://", "https://")):
            raise ConfigError(f"url={url!r}: must begin with http:// or https://")
    # A door above this row; it brings Gradio, which takes seconds.
    from dashboards.launching import make_app

    # What the Models tab has a control for is as it says there, left empty or not.
    further = replace(engine, context_length=None, draft_model=None)
    session = None if url else Session(engine_factory(ctx.obj, model, further))
    # Takes the address before the model takes its time.
    app = make_app(
        session=session,
        url=url,
        api_key=api_key,
        listen=listen,
        settings=settings,
        app_key=app_key,
        admin_key=admin_key,
    )
    with contextlib.ExitStack() as stack:
        if session is not None:
            session.adopt(stack.enter_context(model.open(ctx.obj, engine)))
        stack.enter_context(app)
        print(f"the app is at {app.url}", file=sys.stderr, flush=True)
        if app.parts.ring is None and not listen.is_loopback:
            print("no key is needed: everybody who can reach this address has every right", file=sys.stderr, flush=True)
        if open_browser:
            webbrowser.open(app.url)
        _wait_for_signal(app)


def _wait_for_signal(app: App) -> None:
    asked = threading.Event()
    before = {number: signal.signal(number, lambda *_: asked.set()) for number in _SIGNALS}
    try:
        while app.is_running and not asked.wait(0.2):
            pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if not asked.is_set():
        raise ConfigError("the app has ended by itself; the log says why")
