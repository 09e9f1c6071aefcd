"""Routes that plugins bring, each below /plugins/<name>/ behind the same keys. One that fails answers 500, alone."""

from __future__ import annotations

from functools import partial

from fastapi import FastAPI, Request, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from workbench.plugins import Contribution, PluginManager
from workbench.server.error_answers import add_error_answers
from workbench.server.errors import ApiError
from workbench.server.reply import json_error

__all__ = ["mount_plugin_routes"]

_IS_COUNTED = "workbench.plugin_failure_is_counted"


def mount_plugin_routes(app: FastAPI, manager: PluginManager) -> None:
    """Add the routes of the plugins that are switched on. They have an address of their own, so none hides ours."""
    manager.load_enabled()
    for name, found in manager.at("routes").items():
        own = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
        add_error_answers(own)
        own.add_exception_handler(Exception, partial(_answer_failed, manager, found))
        try:
            own.include_router(found.value)
        except Exception as error:
            manager.report_failure(found.plugin, f"routes {name}", error)
            continue
        app.mount(f"/plugins/{name}", _Guarded(own, manager, found))


async def _answer_failed(manager: PluginManager, found: Contribution, request: Request, error: Exception) -> Response:
    # Counted before the answer goes out: what raises later, in the middle of one, is counted where it arrives.
    request.scope[_IS_COUNTED] = True
    manager.report_failure(found.plugin, f"routes {found.name}", error)
    return json_error(ApiError(500, "a plugin failed; the server's log has the cause", code="plugin_failed"))


class _Guarded:
    """Counts what the routes raise, and answers nothing once the plugin is out of service."""

    def __init__(self, app: ASGIApp, manager: PluginManager, found: Contribution) -> None:
        self._app = app
        self._manager = manager
        self._found = found

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not self._manager.is_active(self._found.plugin):
            answer = json_error(ApiError(404, "there is nothing at this path"))
            return await answer(scope, receive, send)
        try:
            await self._app(scope, receive, send)
        except Exception as error:  # what was answered is raised again
            if scope.get(_IS_COUNTED):
                return
            self._manager.report_failure(self._found.plugin, f"routes {self._found.name}", error)
