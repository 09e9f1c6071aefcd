"""What a loaded model has of its device: here, in its engine's own process, and by owner."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from workbench.backends import Backend
from workbench.engine import EngineLimits
from workbench.telemetry import DeviceUsage, GPUUsage, HostUsage, MemoryOwners, ModelMemory, OwnedMemory
from workbench.telemetry.device_usage import UsageReader

if TYPE_CHECKING:
    from workbench.distributed.pooled_client import PooledClient
    from workbench.engine.client import EngineClient

__all__ = ["LoadedMemory"]


class LoadedMemory:
    """Of one running engine; what its process had when it was loaded is measured when this is made.

    `is_elsewhere`: the engine has a process of its own. `has_ranks`: it is spread over processes that give their memory
    back themselves.
    """

    def __init__(
        self,
        backend: Backend,
        device_index: int,
        client: EngineClient | PooledClient,
        *,
        is_elsewhere: bool,
        has_ranks: bool,
    ) -> None:
        self._backend = backend
        self._device_index = device_index
        self._device = backend.torch_device(device_index)
        self._client = client
        self._is_elsewhere = is_elsewhere
        # Ranks are not asked.
        self._own_engine = None if has_ranks else cast("EngineClient", client)
        self._loaded_bytes = self.here_bytes() + self.elsewhere_bytes()

    def here_bytes(self) -> int:
        """What this process has of the device. Not asked where another one runs there: asking would start it here."""
        if self._is_elsewhere and self._backend.device_type != "cpu":
            return 0
        return self._backend.memory(self._device_index).process_bytes

    def device_bytes_here(self) -> int:
        """The same with what the runtime itself takes of a GPU."""
        if self._backend.device_type == "cpu":
            return self.here_bytes()
        return GPUUsage(self._device_index, backend=self._backend.name).read_usage().process

    def elsewhere_bytes(self) -> int:
        """What the engine's own process has of the device; 0 for a thread."""
        return self.elsewhere_by_device().get(self._device, 0)

    def elsewhere_by_device(self) -> dict[str, int]:
        """By device, what the engine's own process has."""
        return {} if self._own_engine is None else self._own_engine.held_bytes(self._device)

    def owners(self, weight_bytes: int, limits: EngineLimits) -> MemoryOwners:
        """The device's memory by owner; the parts add up to what is in use there."""
        on_cpu = self._backend.device_type == "cpu"
        device: UsageReader = HostUsage() if on_cpu else GPUUsage(self._device_index, backend=self._backend.name)
        if self._own_engine is not None:
            device = _EngineUsage(device, self._own_engine)
        return OwnedMemory(device, lambda: self._model(weight_bytes, limits)).owners()

    def _model(self, weight_bytes: int, limits: EngineLimits) -> ModelMemory | None:
        if not self._client.is_alive:
            return None
        if self._backend.device_type != "cpu":
            return ModelMemory(weight_bytes, limits.kv_bytes)
        filled_bytes = self._client.stats().kv_blocks_peak * limits.kv_bytes // max(1, limits.num_blocks)
        grown_bytes = self.here_bytes() + self.elsewhere_bytes() - self._loaded_bytes
        return ModelMemory(weight_bytes, filled_bytes, max(0, grown_bytes - filled_bytes))


class _EngineUsage:
    """A device's memory, with what the engine's own process holds counted as this one's."""

    def __init__(self, reader: UsageReader, client: EngineClient) -> None:
        self.name = reader.name
        self._reader = reader
        self._client = client

    def read_usage(self) -> DeviceUsage:
        return self._client.read_usage(self._reader)
