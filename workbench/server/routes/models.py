"""GET /v1/models and /v1/models/{id}."""

from __future__ import annotations

from fastapi import APIRouter, Request

from workbench.server.errors import ApiError
from workbench.server.json_body import JsonRoute
from workbench.server.model_host import ServedModel
from workbench.server.protocol.models import ModelInfo, ModelList
from workbench.server.services import services

__all__ = ["router"]

router = APIRouter(route_class=JsonRoute, tags=["models"])


@router.get("/v1/models", response_model=ModelList)
async def list_models(request: Request) -> ModelList:
    """The model that is loaded, if there is one."""
    host = services(request).host
    return ModelList(data=[_info(host.served())] if host.is_ready else [])


@router.get("/v1/models/{model:path}", response_model=ModelInfo)
async def read_model(model: str, request: Request) -> ModelInfo:
    """A loaded model by its id."""
    host = services(request).host
    if not host.is_ready:
        raise ApiError(404, "no model is loaded", param="model", code="model_not_found")
    return _info(host.served(model))


def _info(model: ServedModel) -> ModelInfo:
    return ModelInfo(id=model.model_id, created=model.created_s, max_model_len=model.llm.max_context)
