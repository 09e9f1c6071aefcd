"""Ends what runs for a key that was revoked: streams, waiting requests and the answers of WebSockets alike."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from workbench.errors import ConfigError
from workbench.server.caller import Call
from workbench.server.errors import ApiError

if TYPE_CHECKING:
    from workbench.server.services import Services

__all__ = ["CHECK_S", "key_revoked", "may_go_on", "watch_keys"]

_log = logging.getLogger(__name__)

# How often whoever is served for long is asked whether their key still is one.
CHECK_S = 2.0


async def watch_keys(services: Services) -> None:
    """End running requests with an error once their key is gone, at the latest a heartbeat later. Never returns."""
    pause_s = min(CHECK_S, services.settings.wire.heartbeat_s)
    while True:
        await asyncio.sleep(pause_s)
        try:
            for serving in tuple(services.servings):
                if not may_go_on(services, serving.call):
                    serving.fail(key_revoked())
        except ConfigError as error:
            # Whoever mends the file must not have to start the server anew.
            _log.error("the keys cannot be read: %s", error)


def may_go_on(services: Services, call: Call) -> bool:
    """Whether the key that a call came with still is one."""
    return services.ring is None or (call.key is not None and services.ring.is_valid(call.key))


def key_revoked() -> ApiError:
    """What whoever used the key is told."""
    return ApiError(401, "the key has been revoked", code="invalid_api_key")
