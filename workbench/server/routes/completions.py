"""POST /v1/completions."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from workbench.server.client_watch import while_connected
from workbench.server.event_stream import EventStream, until_done
from workbench.server.json_body import JsonRoute
from workbench.server.protocol.completions import Completion, CompletionRequest
from workbench.server.replies.completions import CompletionReply, completion_job
from workbench.server.routes.answers import STREAMABLE, json_reply, start
from workbench.server.services import services

__all__ = ["router"]

router = APIRouter(route_class=JsonRoute, tags=["generate"])


@router.post("/v1/completions", response_model=Completion, responses=STREAMABLE)
async def create_completion(body: CompletionRequest, request: Request) -> Response:
    """Go on from one or several prompts, at once or (`stream`) piece by piece."""
    serving = await start(request, body.model_id, body.revision, lambda model: completion_job(body, model))
    reply = CompletionReply(body, serving)
    if body.stream:
        return EventStream(until_done(reply.events()), services(request).settings.wire, serving.close)
    try:
        return json_reply(await while_connected(request.receive, reply.whole()))
    finally:
        await serving.close()
