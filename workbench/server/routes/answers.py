"""How the generating routes begin and end: in the engine as long as the client is there, and with JSON."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import Request, Response
from pydantic import BaseModel

from workbench.server.caller import call_of
from workbench.server.client_watch import while_connected
from workbench.server.served_model import ServedModel
from workbench.server.services import services
from workbench.server.serving import Job, Serving

__all__ = ["STREAMABLE", "json_reply", "start"]

# For the API's description: with `stream` the answer is another one.
STREAMABLE: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {}}}}


async def start(
    request: Request, model_id: str | None, revision: str | None, job: Callable[[ServedModel], Job]
) -> Serving:
    """The request running in the engine. Raises ApiError for whatever is wrong with it."""
    parts = services(request)
    model = parts.host.served(model_id, revision)
    return await while_connected(request.receive, Serving.start(parts, call_of(request.scope), model, job(model)))


def json_reply(body: BaseModel) -> Response:
    """A wire model as it is, without checking it a second time."""
    return Response(body.model_dump_json(), media_type="application/json")
