"""What every backend answers: can it be used, which devices, which precision, how much memory."""

from __future__ import annotations

from abc import ABC, abstractmethod

from workbench.backends.dtypes import DTYPE_NAMES, parse_dtype
from workbench.backends.facts import DeviceInfo, DtypeChoice, MemoryInfo
from workbench.backends.model_holder import ModelHolder
from workbench.errors import BackendUnavailableError, ConfigError

__all__ = ["Backend"]


class Backend(ModelHolder, ABC):
    """A kind of device. Making one probes nothing; each method looks anew.

    It can hold a model of its own (`load_model`, `infer`, ...); one loaded through `LlamaGPU` is used through that.
    """

    name: str
    # What torch calls the device; ROCm builds say "cuda" too.
    device_type: str

    @abstractmethod
    def unavailable_reason(self) -> str | None:
        """Why this backend cannot be used here, in words; None when it can."""

    @abstractmethod
    def devices(self) -> list[DeviceInfo]:
        """Every device that this process may use; empty when the backend is not available."""

    @abstractmethod
    def default_dtype(self, index: int = 0) -> DtypeChoice:
        """The precision to use on a device when the user names none, with the reason."""

    @abstractmethod
    def memory(self, index: int = 0) -> MemoryInfo:
        """Memory of one device, read now. Raises ConfigError for an index that does not exist."""

    @abstractmethod
    def get_memory_usage(self) -> dict[str, object]:
        """Memory in MiB in the documented shape (see each backend)."""

    @abstractmethod
    def empty_cache(self) -> None:
        """Give memory that nothing uses any more back to the system."""

    @abstractmethod
    def torch_device(self, index: int = 0) -> str:
        """The torch device string of one device: "cpu", "cuda:0"."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def is_available(self) -> bool:
        """Whether the backend can be used here; `unavailable_reason` says why not."""
        return self.unavailable_reason() is None

    def require_available(self) -> None:
        """Raise BackendUnavailableError, with the reason, unless the backend can be used."""
        reason = self.unavailable_reason()
        if reason is not None:
            raise BackendUnavailableError(f"backend {self.name!r} is not available: {reason}")

    def device(self, index: int = 0) -> DeviceInfo:
        """One device. Raises BackendUnavailableError, or ConfigError with the valid range."""
        self.require_available()
        devices = self.devices()
        if not 0 <= index < len(devices):
            raise ConfigError(f"device_index {index} does not exist: {self.name} has devices 0 to {len(devices) - 1}")
        return devices[index]

    def supports_dtype(self, dtype: str, index: int = 0) -> str | None:
        """None when the device computes in `dtype`, else the reason in words. Raises ConfigError for unknown names."""
        wanted = parse_dtype(dtype)
        device = self.device(index)
        if wanted in device.dtypes:
            return None
        present = ", ".join(name for name in DTYPE_NAMES if name in device.dtypes)
        return f"{device.name} ({device.architecture}) does not compute in {wanted}; it does in {present}"
