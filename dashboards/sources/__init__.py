"""Where replies come from: one protocol, and the two that keep it."""

from __future__ import annotations

from dashboards.sources.base import ChatAsk, ChatSource, ReplyPiece, SourceState
from dashboards.sources.endpoint_source import EndpointSource
from dashboards.sources.session_source import SessionSource

__all__ = ["ChatAsk", "ChatSource", "EndpointSource", "ReplyPiece", "SessionSource", "SourceState"]
