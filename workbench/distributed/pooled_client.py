"""Several engines that look like one: requests go to the one that a balancer chooses."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

from workbench.distributed.engine_totals import added_up
from workbench.engine import EngineStats, Generation, RequestInFlight, SamplingParams
from workbench.engine.client import EngineClient
from workbench.errors import ConfigError, EngineStoppedError, RequestError
from workbench.parallel import PoolStats, ReplicaGeneration, ReplicaPool
from workbench.telemetry import RequestLog

__all__ = ["PooledClient"]


class _Replica:
    """An engine's client as a pool wants it."""

    def __init__(self, client: EngineClient) -> None:
        self.client = client

    def submit(self, prompt: Any = None, *, messages: Any = None, **sampling: Any) -> Generation:
        return self.client.submit(prompt, sampling["params"])

    def resume(self, ended: Generation, prompt: Any = None, *, messages: Any = None, **sampling: Any) -> Generation:
        return self.client.resume(ended, prompt, sampling["params"])

    def stats(self) -> EngineStats:
        return self.client.stats()

    def unload(self) -> dict[str, int]:
        self.client.stop()
        return {}


class PooledClient:
    """See EngineClient. `make_client(replica_id)` starts an engine; it is called again to restart one.

    A replica that dies is left out and its requests move to another, where those that had begun go on behind what was
    sent. What cannot be resumed ends with EngineStoppedError.
    """

    def __init__(
        self, make_client: Callable[[int], EngineClient], replica_ids: Iterable[int], *, balancer: str
    ) -> None:
        self._replicas: dict[int | str, _Replica] = {}
        # Of all replicas, whose requests have ids of their own.
        self.requests = RequestLog()

        def make(replica_id: int | str) -> _Replica:
            replica = self._replicas[replica_id] = _Replica(make_client(int(replica_id)))
            replica.client.requests = self.requests
            return replica

        self._pool = ReplicaPool(make, replica_ids, balancer=balancer)
        # All are alike: what one of them says of a request holds for each.
        first = self._replicas[self._pool.replica_ids[0]].client
        self.max_context, self.vocab_size, self.structures = first.max_context, first.vocab_size, first.structures
        self.plugins = first.plugins
        self._check, self._check_plugins = first.check, first.check_plugins
        self._is_stopped = False

    @property
    def is_alive(self) -> bool:
        """Whether requests are served, by at least one replica."""
        return not self._is_stopped and bool(self.alive_ids)

    @property
    def death(self) -> EngineStoppedError | None:
        """What requests get since the last replica died; None while one lives, and after `stop()`."""
        if self._is_stopped or self.alive_ids:
            return None
        deaths = [replica.client.death for replica in self._replicas.values()]
        return self._pool.all_stopped(next(filter(None, deaths), None))

    @property
    def alive_ids(self) -> list[int]:
        """Replicas whose engines run."""
        return [int(i) for i in self._pool.alive_ids if self._replicas[i].client.is_alive]

    def submit(self, prompt_token_ids: Sequence[int], params: SamplingParams) -> ReplicaGeneration:
        """Start a request on the chosen replica; errors are those of EngineClient."""
        return self._pool.submit(prompt_token_ids, params=params)

    def go_on(self, prompt_token_ids: Sequence[int], sent_token_ids: Sequence[int], params: SamplingParams) -> NoReturn:
        """Raises RequestError: replicas go on with each other's answers by themselves."""
        raise RequestError("an answer cannot be handed to replicas: go on with it on a model without them")

    def check(self, prompt_token_ids: Sequence[int], params: SamplingParams) -> None:
        """Raise RequestError or PromptTooLongError for a request that could not be served."""
        self._check(prompt_token_ids, params)

    def check_plugins(self, params: SamplingParams) -> None:
        """Raise RequestError for plugins that a request names and that cannot do it."""
        self._check_plugins(params)

    def in_flight(self) -> list[RequestInFlight]:
        """The requests that wait or run on any replica, oldest first."""
        found = [request for replica in self._replicas.values() for request in replica.client.in_flight()]
        return sorted(found, key=lambda request: request.submitted_s)

    def abort(self, request_id: str) -> None:
        """Stop a request by its id in `in_flight`. Unknown and finished ids are ignored."""
        for replica in self._replicas.values():
            replica.client.abort(request_id)

    def start_profile(self, *, with_operations: bool = False) -> None:
        """Raises ConfigError: steps of several engines do not make one profile."""
        raise ConfigError("a profile is of one engine: load the model without replicas to record one")

    def stop_profile(self) -> NoReturn:
        """Raises RequestError: none is being recorded."""
        raise RequestError("no profile is being recorded: replicas record none")

    def embed(self, prompt_token_ids: Sequence[int]) -> tuple[float, ...]:
        """Raises RequestError: models that make embeddings run on one device."""
        raise RequestError("this model makes no embeddings")

    def check_embeddable(self, prompt_token_ids: Sequence[int]) -> None:
        """Raise what `embed` would."""
        self.embed(prompt_token_ids)

    def pool_stats(self) -> PoolStats:
        """Requests in flight, counts and speeds by replica."""
        return self._pool.stats()

    def stats(self) -> EngineStats:
        """All living engines' figures added up."""
        return added_up(list(self.stats_by_replica().values()))

    def stats_by_replica(self) -> dict[int, EngineStats]:
        """Each living engine's own figures; one that dies while asked is left out."""
        found = {}
        for replica_id in self.alive_ids:
            with contextlib.suppress(EngineStoppedError):
                found[replica_id] = self._replicas[replica_id].client.stats()
        return found

    def restart(self, replica_id: int) -> None:
        """End a replica, dead or alive, and start it anew; the others go on meanwhile."""
        self._pool.restart(replica_id)

    def stop(self) -> None:
        """End all engines. Requests in flight end with EngineStoppedError. Stopping twice is harmless."""
        self._is_stopped = True
        self._pool.unload()
