"""WebSocket /v1/stream."""

from __future__ import annotations

from fastapi import APIRouter, WebSocket

from workbench.server.services import services
from workbench.server.socket_session import SocketSession

__all__ = ["router"]

router = APIRouter()


@router.websocket("/v1/stream")
async def stream(websocket: WebSocket) -> None:
    """Prompts in, pieces of their continuations out; the protocol is described in docs/server.md."""
    await SocketSession(websocket, services(websocket)).run()
