"""POST /v1/responses."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from workbench.server.client_watch import while_connected
from workbench.server.event_stream import EventStream
from workbench.server.json_body import JsonRoute
from workbench.server.protocol.response_object import ResponseObject
from workbench.server.protocol.responses import ResponseRequest
from workbench.server.replies.responses import ResponseReply, response_job
from workbench.server.routes.answers import STREAMABLE, json_reply, start
from workbench.server.services import services

__all__ = ["router"]

router = APIRouter(route_class=JsonRoute, tags=["generate"])


@router.post("/v1/responses", response_model=ResponseObject, responses=STREAMABLE)
async def create_response(body: ResponseRequest, request: Request) -> Response:
    """Answer an input, at once or (`stream`) as events. Nothing is stored."""
    serving = await start(request, body.model_id, body.revision, lambda model: response_job(body, model))
    reply = ResponseReply(body, serving)
    if body.stream:
        return EventStream(reply.events(), services(request).settings.wire, serving.close)
    try:
        return json_reply(await while_connected(request.receive, reply.whole()))
    finally:
        await serving.close()
