"""`LoadBalancer`: hands requests to a manager's GPUs and takes them back when they end. Keeps counts, not requests."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from workbench.errors import ConfigError
from workbench.parallel.manager import MultiGPUManager

__all__ = ["Assignment", "LoadBalancer"]

_HISTORY_LENGTH = 1000


@dataclass(frozen=True)
class Assignment:
    """One request that was handed out; `assigned_s` is on the clock given to the balancer."""

    gpu_id: int | str
    assigned_s: float


class LoadBalancer:
    """Assigns requests by the manager's config. `request_history` holds the newest thousand assignments.

    Where a model runs on the manager's GPUs its requests are in the figures too; its own balancer assigns them, and the
    newest are the rows of `LlamaGPU.answers`.
    """

    def __init__(self, gpu_manager: MultiGPUManager, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.gpu_manager = gpu_manager
        self.request_history: deque[Assignment] = deque(maxlen=_HISTORY_LENGTH)
        self._clock = clock
        self._num_assigned = dict.fromkeys(gpu_manager.gpu_ids, 0)

    @property
    def balancing_stats(self) -> dict[str, object]:
        """The same as `get_balancing_stats()`."""
        return self.get_balancing_stats()

    def assign_request(self, request_data: Mapping[str, object]) -> int | str:
        """The GPU for a request, which is in flight there until `release`.

        "prompt" or "messages" in `request_data` lets the prefix_affinity balancer find its beginning; nothing of it is
        kept. Raises GPUUnavailableError.
        """
        if not isinstance(request_data, Mapping):
            raise ConfigError(f"request_data={request_data!r}: must be a dict, with the prompt under 'prompt'")
        prompt = request_data.get("prompt", request_data.get("messages"))
        manager = self.gpu_manager
        with manager.load_balancing_lock:
            gpu_id = manager.start_request(prompt=prompt)
            self._num_assigned[gpu_id] += 1
            self.request_history.append(Assignment(gpu_id, self._clock()))
            return gpu_id

    def release(self, gpu_id: int | str, *, seconds_per_token: float | None = None) -> None:
        """A request that was assigned to this GPU has ended, well or not. Raises ConfigError if none is in flight."""
        self.gpu_manager.end_request(gpu_id, seconds_per_token)

    def optimize_balancing(self) -> dict[int | str, float]:
        """Read the GPUs' memory anew, which the adaptive balancer goes by; loads are always true. The loads."""
        self.gpu_manager.update_gpu_metrics()
        return self.gpu_manager.gpu_loads

    def get_balancing_stats(self) -> dict[str, object]:
        """`{total_requests, gpu_assignments {id: count}, gpu_loads {id: 0..1}, gpu_memory {id: 0..1}}`.

        Memory is as last read: when a request was assigned, or by the manager's `update_gpu_metrics`.
        """
        manager = self.gpu_manager
        with manager.load_balancing_lock:
            assigned = {i: count + manager.running_on(i).requests_total for i, count in self._num_assigned.items()}
            return {
                "total_requests": sum(assigned.values()),
                "gpu_assignments": assigned,
                "gpu_loads": manager.gpu_loads,
                "gpu_memory": dict(manager.gpu_memory),
            }
