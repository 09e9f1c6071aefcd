"""Where replies and figures come from: the engine of this process, or an endpoint."""

from __future__ import annotations

from dashboards.sources.base import ChatAsk, ChatSource, ReplyPiece, SourceState
from dashboards.sources.endpoint_cluster import EndpointCluster
from dashboards.sources.endpoint_source import EndpointSource
from dashboards.sources.session_cluster import SessionCluster
from dashboards.sources.session_source import SessionSource

__all__ = [
    "ChatAsk",
    "ChatSource",
    "EndpointCluster",
    "EndpointSource",
    "ReplyPiece",
    "SessionCluster",
    "SessionSource",
    "SourceState",
]
