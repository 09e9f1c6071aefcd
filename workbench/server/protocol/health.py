"""What the probes say."""

from __future__ import annotations

from workbench.server.protocol.wire import WireReply

__all__ = ["Health"]


class Health(WireReply):
    """One word."""

    status: str
