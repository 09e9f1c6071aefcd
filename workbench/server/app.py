"""Puts the routes and the layers around them together. Everything they work with is passed in."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from workbench import __version__
from workbench.plugins import default_plugins
from workbench.server.access_log import AccessLog
from workbench.server.auth import Authentication, FailureLimit
from workbench.server.body_guard import BodyGuard
from workbench.server.docs_page import ASSET_PATHS, DOCS_PATH, add_docs_page
from workbench.server.error_answers import add_error_answers
from workbench.server.head_requests import HeadRequests
from workbench.server.host_check import HostCheck
from workbench.server.openapi import describe
from workbench.server.plugin_routes import mount_plugin_routes
from workbench.server.request_gate import RequestGate
from workbench.server.routes import ROUTERS
from workbench.server.services import Services

__all__ = ["create_app"]


def create_app(services: Services) -> FastAPI:
    """The application. It neither starts nor stops what is in `services`."""
    app = FastAPI(
        title="Workbench",
        version=__version__,
        description="An OpenAI-compatible endpoint over one batched inference engine.",
        middleware=_layers(services),
        docs_url=None,
        redoc_url=None,
        # A path with a slash more is another path, for which nobody has decided who may come in.
        redirect_slashes=False,
    )
    app.state.services = services
    add_error_answers(app)
    for router in ROUTERS:
        app.include_router(router)
    add_docs_page(app)
    mount_plugin_routes(app, default_plugins())
    describe(app)
    return app


def _layers(services: Services) -> list[Middleware]:
    """From the outside in: log, host, browser, key, limits, body, HEAD."""
    listen = services.settings.listen
    public_paths = {*listen.public_paths, *(ASSET_PATHS if DOCS_PATH in listen.public_paths else ())}
    layers = [
        Middleware(AccessLog, answered=services.metrics.http_answered),
        Middleware(HostCheck, listen=listen),
    ]
    if listen.cors_origins:
        layers.append(
            Middleware(
                CORSMiddleware,
                allow_origins=list(listen.cors_origins),
                allow_methods=["GET", "POST"],
                allow_headers=["authorization", "content-type", "x-api-key", "x-request-id"],
                expose_headers=["x-request-id", "retry-after"],
            )
        )
    return [
        *layers,
        Middleware(Authentication, ring=services.ring, public_paths=public_paths, failures=FailureLimit()),
        Middleware(RequestGate, services=services),
        Middleware(BodyGuard, wire=services.settings.wire),
        Middleware(HeadRequests),
    ]
