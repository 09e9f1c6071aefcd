"""`MultiGPUManager`: the named GPUs as they are now, and which of them takes the next request. Runs no model."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from workbench.backends import Backend
from workbench.errors import ConfigError, GPUUnavailableError
from workbench.parallel.balancers import Balancer, make_balancer, parse_balancer
from workbench.parallel.config import GPUConfig
from workbench.parallel.device_choice import DeviceChoice, choose_devices
from workbench.parallel.gpu_use import GPUUse
from workbench.parallel.in_flight import InFlight
from workbench.parallel.load_book import LoadBook
from workbench.twin import HasTwin, Twin

__all__ = ["MultiGPUManager"]

_log = logging.getLogger(__name__)


class MultiGPUManager(HasTwin):
    """Device facts and request counts of the GPUs in a config.

    Making one looks at nothing, so it works on any machine. What needs the devices looks when it is called and raises
    GPUUnavailableError, which lists what is there, if a named GPU is not; with `degrade` it goes on with those that
    are, logs it, and keeps the words in `degraded_reason`.

    `max_in_flight` requests that are begun here count as a load of 1.0 on a GPU. `running` tells what a model that runs
    on these GPUs does, which is added to every count. `backends` are asked for devices, by default all. `stand_in` is a
    CPU whose processes stand for the GPUs: then all are there, and their memory is the host's. Every method may be
    called from any thread.
    """

    def __init__(
        self,
        gpu_config: GPUConfig,
        *,
        degrade: bool = False,
        max_in_flight: int = 64,
        running: Callable[[], Mapping[int | str, GPUUse]] = dict,
        backends: Sequence[Backend] | None = None,
        stand_in: Backend | None = None,
    ) -> None:
        if not isinstance(gpu_config, GPUConfig):
            raise ConfigError(f"gpu_config={gpu_config!r}: must be a GPUConfig")
        if type(max_in_flight) is not int or max_in_flight < 1:
            raise ConfigError(f"max_in_flight={max_in_flight!r}: must be an integer of at least 1")
        self.config = gpu_config
        self.gpu_ids = list(gpu_config.gpu_ids)
        self.num_gpus = len(self.gpu_ids)
        self.degrade = degrade
        self.max_in_flight = max_in_flight
        self.degraded_reason: str | None = None
        self.gpu_memory: dict[int | str, float] = dict.fromkeys(self.gpu_ids, 0.0)
        self.current_gpu_index = 0
        self.load_balancing_lock = threading.RLock()
        self._running = running
        self._backends = backends
        self._stand_in = stand_in
        self._book = LoadBook(self.gpu_ids)
        self._balancers: dict[str, Balancer] = {}
        self.request_queues = {gpu_id: InFlight(partial(self.num_in_flight, gpu_id)) for gpu_id in self.gpu_ids}

    def twin(self) -> Twin:
        """The config in words; looks at no device."""
        shape = self.config.shape
        rows = (
            ("GPUs", ", ".join(map(str, self.gpu_ids))),
            ("strategy", self.config.strategy.value),
            ("shape", f"{shape.data} replicas of {shape.pipeline} stages of {shape.tensor} ranks"),
            ("balancing", self.config.load_balancing),
        )
        return Twin("MultiGPUManager", rows)

    @property
    def devices(self) -> list[str]:
        """Names for torch ("cuda:0") of the GPUs that are there now."""
        choice = self.choose_devices()
        return [choice.backend.torch_device(device.index) for device in choice.devices.values()]

    @property
    def gpu_loads(self) -> dict[int | str, float]:
        """`get_gpu_load` of every named GPU."""
        return {gpu_id: self.get_gpu_load(gpu_id) for gpu_id in self.gpu_ids}

    def choose_devices(self) -> DeviceChoice:
        """What an engine for this config would be built on, looked up now."""
        if self._stand_in is not None:
            return DeviceChoice(self._stand_in, dict.fromkeys(self.gpu_ids, self._stand_in.device(0)), self.config)
        choice = choose_devices(self.config, degrade=self.degrade, backends=self._backends)
        if choice.degraded_reason is not None and choice.degraded_reason != self.degraded_reason:
            _log.warning(choice.degraded_reason)
        self.degraded_reason = choice.degraded_reason
        return choice

    def get_available_gpus(self) -> list[int | str]:
        """The named GPUs that are there; with `degrade` that can be fewer than named, down to none."""
        return self.choose_devices().gpu_ids

    def get_gpu_load(self, gpu_id: int | str) -> float:
        """Requests in flight as a share of what the GPU takes at once, 0 to 1; 0.0 for an id that is not named."""
        own = self._book.num_in_flight(gpu_id) / self.max_in_flight
        return min(1.0, own + self.running_on(gpu_id).load)

    def num_in_flight(self, gpu_id: int | str) -> int:
        """Requests that were started on a GPU and have not ended; 0 for an id that is not named."""
        return self._book.num_in_flight(gpu_id) + self.running_on(gpu_id).num_in_flight

    def running_on(self, gpu_id: int | str) -> GPUUse:
        """What the model that runs here does on a GPU; nothing where there is none."""
        return self._running().get(gpu_id, GPUUse())

    def get_gpu_memory_usage(self, gpu_id: int | str) -> float:
        """Share of a GPU's memory that is in use now, by whomever; 0.0 for an id that is not named.

        Raises GPUUnavailableError for one that is named and not there.
        """
        if gpu_id not in self.gpu_memory:
            return 0.0
        choice = self.choose_devices()
        self._read_memory(choice)
        if gpu_id not in choice.devices:
            raise GPUUnavailableError(f"GPU {gpu_id!r} has no memory to read: {choice.degraded_reason}")
        return self.gpu_memory[gpu_id]

    def update_gpu_metrics(self) -> None:
        """Read the GPUs' memory anew into `gpu_memory`. Loads need no reading: they are counts."""
        self._read_memory(self.choose_devices())

    def select_gpu(self, strategy: str | None = None, prompt: object = None) -> int | str:
        """The GPU for the next request by the named balancer, None for the config's. Counts nothing as started.

        Raises ConfigError listing the balancers, and GPUUnavailableError.
        """
        name = self.config.load_balancing if strategy is None else parse_balancer(strategy, "strategy")
        choice = self.choose_devices()
        if not choice.devices:
            raise GPUUnavailableError(f"no GPU to select: {choice.degraded_reason}")
        with self.load_balancing_lock:
            self._read_memory(choice)
            headroom = {gpu_id: 1.0 - self.gpu_memory[gpu_id] for gpu_id in choice.devices}
            balancer = self._balancers.setdefault(name, make_balancer(name))
            loads = self._book.loads(choice.devices, headroom)
            everything = [replace(load, num_in_flight=self.num_in_flight(load.worker_id)) for load in loads]
            gpu_id = balancer.choose(everything, prompt)
            self.current_gpu_index = (self.gpu_ids.index(gpu_id) + 1) % self.num_gpus
            return gpu_id

    def start_request(self, strategy: str | None = None, prompt: object = None) -> int | str:
        """Select a GPU and count a request as in flight there until `end_request`."""
        with self.load_balancing_lock:
            gpu_id = self.select_gpu(strategy, prompt)
            self._book.begin(gpu_id)
            return gpu_id

    def end_request(self, gpu_id: int | str, seconds_per_token: float | None = None) -> None:
        """A request on a GPU is over; its speed, where known, is what the adaptive balancer goes by.

        Raises ConfigError if none is in flight there.
        """
        with self.load_balancing_lock:
            self._book.end(gpu_id, seconds_per_token)

    def _read_memory(self, choice: DeviceChoice) -> None:
        for gpu_id, device in choice.devices.items():
            self.gpu_memory[gpu_id] = 1.0 - device.free_bytes / device.total_bytes
