"""Everything the routes work with, put together once and handed to the app."""

from __future__ import annotations

from dataclasses import dataclass, field

from fastapi import Request
from starlette.requests import HTTPConnection

from workbench.server.caller import Call, call_of
from workbench.server.fair_queue import FairQueue
from workbench.server.keys import KeyRing
from workbench.server.metrics import Metrics
from workbench.server.model_host import ModelHost
from workbench.server.model_policy import ModelPolicy
from workbench.server.rate_limits import RateLimiter
from workbench.server.serving import Serving
from workbench.server.settings import ServerSettings
from workbench.server.text_pool import TextPool

__all__ = ["Services", "call", "services"]


@dataclass
class Services:
    """The parts of a running endpoint. `ring` None serves everybody; `is_draining` refuses new work."""

    settings: ServerSettings
    host: ModelHost
    ring: KeyRing | None
    metrics: Metrics
    rates: RateLimiter
    queue: FairQueue
    policy: ModelPolicy
    text_pool: TextPool = field(default_factory=TextPool)
    servings: set[Serving] = field(default_factory=set)
    is_draining: bool = False

    @classmethod
    def build(cls, settings: ServerSettings, host: ModelHost, ring: KeyRing | None) -> Services:
        """The parts that follow from the settings."""
        queue = FairQueue(
            host.capacity,
            max_waiting=settings.queue.max_queued,
            timeout_s=settings.queue.queue_timeout_s,
            refused=lambda reason: metrics.refused(reason),
        )
        metrics = Metrics(host, lambda: queue.num_waiting)
        policy = ModelPolicy(settings.load, host.first_sources)
        return cls(settings, host, ring, metrics, RateLimiter(settings.rates), queue, policy)

    def stop(self) -> None:
        """End the threads and let go of the model."""
        self.text_pool.stop()
        self.host.close()


def services(connection: HTTPConnection) -> Services:
    """Route dependency: the parts."""
    parts: Services = connection.app.state.services
    return parts


def call(request: Request) -> Call:
    """Route dependency: the call that is being served."""
    return call_of(request.scope)
