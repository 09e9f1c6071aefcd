"""The description of the API that /docs shows: our own errors and keys in place of FastAPI's defaults."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from workbench.server.protocol.wire import ErrorBody

__all__ = ["describe"]

_ERRORS = {
    "400": "The request is wrong; `param` names the field.",
    "401": "The key is missing or wrong.",
    "403": "The key may not do this.",
    "404": "There is no such path or model.",
    "408": "The body did not come in time.",
    "409": "Something else is going on that excludes this.",
    "413": "The body is too large.",
    "415": "The body is not JSON.",
    "421": "The Host header names another server.",
    "429": "A limit is reached; Retry-After says when to come back.",
    "500": "The server failed.",
    "503": "The server is busy, stopping, or has no model loaded.",
}


def describe(app: FastAPI) -> None:
    """Make the app describe itself this way."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _described(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way


def _described(app: FastAPI) -> dict[str, Any]:
    schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    components = schema.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    error = ErrorBody.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas |= error.pop("$defs", {})
    schemas["ErrorBody"] = error
    components["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    schema["security"] = [{"bearer": []}, {"header": []}]
    public = app.state.services.settings.listen.public_paths
    for path, operations in schema["paths"].items():
        for operation in operations.values():
            operation["responses"].pop("422", None)
            operation["responses"] |= {status: _error(text) for status, text in _ERRORS.items()}
            if path in public:
                operation["security"] = []
    return schema


def _error(text: str) -> dict[str, Any]:
    return {
        "description": text,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorBody"}}},
    }
