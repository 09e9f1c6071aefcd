"""Has an application answer with errors in the API's form, whatever raised them."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from workbench.errors import WorkbenchError
from workbench.server.errors import ApiError, api_error, validation_error
from workbench.server.reply import json_error, refuse

__all__ = ["add_error_answers"]

_WORDS = {404: "there is nothing at this path", 405: "this path does not take that method"}


def add_error_answers(app: FastAPI) -> None:
    """Translate what routes of `app` raise on purpose. What they raise otherwise is not theirs to answer."""
    # Each takes the error that it is for, which Starlette has no type for.
    answers: dict[type[Exception], Any] = {
        RequestValidationError: _answer_invalid,
        HTTPException: _answer_error,
        WorkbenchError: _answer_own_error,
        ClientDisconnect: _answer_nobody,
    }
    for kind, answer in answers.items():
        app.add_exception_handler(kind, answer)
    not_found = app.router.default

    async def answer_unknown_path(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await refuse(ApiError(404, _WORDS[404]), scope, receive, send)
        else:
            await not_found(scope, receive, send)

    app.router.default = answer_unknown_path


async def _answer_invalid(request: Request, error: RequestValidationError) -> Response:
    return json_error(validation_error(error.errors()))


async def _answer_error(request: Request, error: HTTPException) -> Response:
    if isinstance(error, ApiError):
        return json_error(error)
    said_nothing = error.detail == HTTPException(error.status_code).detail
    message = _WORDS.get(error.status_code, str(error.detail)) if said_nothing else str(error.detail)
    return json_error(ApiError(error.status_code, message, headers=error.headers))


async def _answer_own_error(request: Request, error: WorkbenchError) -> Response:
    return json_error(api_error(error))


async def _answer_nobody(request: Request, error: ClientDisconnect) -> Response:
    return Response(status_code=499)
