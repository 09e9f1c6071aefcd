"""GET /v1/models and /v1/models/{id}; POST /v1/models/load and /v1/models/unload."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from fastapi import APIRouter, Depends, Request, Response

from workbench.progress import Progress
from workbench.server.auth import require_admin
from workbench.server.caller import Call, call_of
from workbench.server.errors import ApiError
from workbench.server.event_stream import EventStream, event, until_done
from workbench.server.json_body import JsonRoute
from workbench.server.key_watch import CHECK_S, key_revoked, may_go_on
from workbench.server.protocol.models import (
    LoadedModel,
    LoadProgress,
    LoadRequest,
    ModelInfo,
    ModelList,
    UnloadedModel,
    UnloadRequest,
)
from workbench.server.routes.answers import STREAMABLE, json_reply
from workbench.server.served_model import ServedModel
from workbench.server.services import Services, services

__all__ = ["router"]

router = APIRouter(route_class=JsonRoute, tags=["models"])


@router.get("/v1/models", response_model=ModelList)
async def list_models(request: Request) -> ModelList:
    """The model that is loaded, if there is one."""
    host = services(request).host
    return ModelList(data=[_info(host.served())] if host.is_ready else [])


@router.post("/v1/models/load", response_model=LoadedModel, responses=STREAMABLE, dependencies=[Depends(require_admin)])
async def load_model(body: LoadRequest, request: Request) -> Response:
    """Load another model in place of the present one, at once or (`stream`) with its progress as events."""
    parts = services(request)
    source = parts.policy.source(body.name, body.revision)
    if body.stream:
        wire = parts.settings.wire
        events = _load_events(parts, call_of(request.scope), source, body.revision)
        return EventStream(until_done(events), wire, _nothing)
    return json_reply(await _load(parts, source, body.revision, lambda progress: None))


@router.post(
    "/v1/models/unload", response_model=UnloadedModel, responses=STREAMABLE, dependencies=[Depends(require_admin)]
)
async def unload_model(request: Request, body: UnloadRequest | None = None) -> Response:
    """Unload the present model, or 404 if another one is named. Running requests are given time to end."""
    parts = services(request)
    if body is not None and body.name is not None:
        parts.host.served(body.name)
    if body is not None and body.stream:
        return EventStream(until_done(_unload_events(parts)), parts.settings.wire, _nothing)
    return json_reply(await _unload(parts))


@router.get("/v1/models/{model:path}", response_model=ModelInfo)
async def read_model(model: str, request: Request) -> ModelInfo:
    """A loaded model by its id."""
    host = services(request).host
    if not host.is_ready:
        raise ApiError(404, "no model is loaded", param="model", code="model_not_found")
    return _info(host.served(model))


def _info(model: ServedModel) -> ModelInfo:
    return ModelInfo(id=model.model_id, created=model.created_s, max_model_len=model.llm.max_context)


async def _load(
    parts: Services, source: str, revision: str | None, on_progress: Callable[[Progress], None]
) -> LoadedModel:
    # A load that has begun goes on to its end, whether or not the client waits for it.
    model = await asyncio.shield(parts.host.load(source, lambda: parts.policy.check(source), on_progress))
    return LoadedModel(model=model.model_id, model_name=model.model_id, revision=revision)


async def _unload(parts: Services) -> UnloadedModel:
    # As a load.
    return UnloadedModel(freed_bytes=await asyncio.shield(parts.host.unload()))


async def _unload_events(parts: Services) -> AsyncIterator[bytes]:
    yield event(await _unload(parts))


async def _load_events(parts: Services, call: Call, source: str, revision: str | None) -> AsyncIterator[bytes]:
    """The load's progress, at most one event at a time waiting to be sent, and its end.

    Raises a 401 once the caller's key is revoked; the load goes on.
    """
    latest: asyncio.Queue[Progress] = asyncio.Queue(maxsize=1)

    def note(progress: Progress) -> None:
        if latest.full():
            latest.get_nowait()
        latest.put_nowait(progress)

    loading = asyncio.ensure_future(_load(parts, source, revision, note))
    # Looked at also when the client has left, so that asyncio does not report it as forgotten.
    loading.add_done_callback(lambda done: done.cancelled() or done.exception())
    while not loading.done():
        waiting = asyncio.ensure_future(latest.get())
        try:
            await asyncio.wait({loading, waiting}, timeout=CHECK_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if not may_go_on(parts, call):
            raise key_revoked()
        if waiting.done():
            yield event(_as_event(waiting.result()))
    yield event(loading.result())


def _as_event(progress: Progress) -> LoadProgress:
    return LoadProgress(stage=progress.stage, completed=progress.completed, total=progress.total, unit=progress.unit)


async def _nothing() -> None:
    """A load goes on when its client leaves."""
