"""POST /v1/embeddings."""

from __future__ import annotations

from fastapi import APIRouter, Request

from workbench.server.errors import invalid
from workbench.server.json_body import JsonRoute
from workbench.server.protocol.embeddings import EmbeddingList, EmbeddingRequest
from workbench.server.services import services

__all__ = ["router"]

router = APIRouter(route_class=JsonRoute, tags=["generate"])


@router.post("/v1/embeddings", response_model=EmbeddingList)
async def create_embeddings(body: EmbeddingRequest, request: Request) -> EmbeddingList:
    """Refused: the engine runs models that generate text, and their inner states are no embeddings of a text."""
    model = services(request).host.served(body.model)
    raise invalid(
        f"{model.model_id} generates text and was not trained to make embeddings",
        param="model",
        code="model_does_not_support_embeddings",
    )
