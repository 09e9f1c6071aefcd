"""POST /v1/embeddings."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from workbench.server.caller import call_of
from workbench.server.client_watch import while_connected
from workbench.server.json_body import JsonRoute
from workbench.server.protocol.embeddings import EmbeddingList, EmbeddingRequest
from workbench.server.replies.embeddings import embed_all
from workbench.server.routes.answers import json_reply
from workbench.server.services import services

__all__ = ["router"]

router = APIRouter(route_class=JsonRoute, tags=["generate"])


@router.post("/v1/embeddings", response_model=EmbeddingList)
async def create_embeddings(body: EmbeddingRequest, request: Request) -> Response:
    """Embeddings of texts, by a model that was trained to make them; a 400 for any other."""
    parts = services(request)
    model = parts.host.served(body.model_id, body.revision)
    return json_reply(await while_connected(request.receive, embed_all(parts, call_of(request.scope), model, body)))
