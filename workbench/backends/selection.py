"""Which backend to use, and why. Preference: ROCm, then CUDA, then the CPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from workbench.backends.base import Backend
from workbench.backends.cpu import CPUBackend
from workbench.backends.cuda import CUDABackend
from workbench.backends.facts import DeviceInfo
from workbench.backends.rocm import ROCMBackend
from workbench.errors import BackendUnavailableError, ConfigError
from workbench.plugins import Contribution, default_plugins, hookimpl

__all__ = [
    "BACKEND_NAMES",
    "BackendChoice",
    "BackendStatus",
    "detect",
    "get_backend",
    "require_backend",
    "select_backend",
]

# In order of preference. The CPU is last and always available.
_BACKENDS: dict[str, type[Backend]] = {"rocm": ROCMBackend, "cuda": CUDABackend, "cpu": CPUBackend}
BACKEND_NAMES = tuple(_BACKENDS)


@dataclass(frozen=True)
class BackendStatus:
    """One backend on this machine: usable or not, why not (None when usable), and its devices."""

    backend: Backend
    available: bool
    reason: str | None
    devices: tuple[DeviceInfo, ...]

    @property
    def name(self) -> str:
        """ "rocm", "cuda" or "cpu"."""
        return self.backend.name


@dataclass(frozen=True)
class BackendChoice:
    """The backend that was taken, and why, in words."""

    backend: Backend
    reason: str


def detect(backends: Sequence[Backend] | None = None) -> list[BackendStatus]:
    """All backends in order of preference (rocm, cuda, cpu, then those of plugins, which are taken only when asked for
    by name), each available or with the reason why not."""
    if backends is None:
        backends = [*_all(None), *(found.value() for found in _registered().values() if not found.is_built_in)]
    return [_status(backend) for backend in backends]


def get_backend(name: str) -> Backend:
    """The backend of that name, available or not. Raises ConfigError that lists the names."""
    key = str(name).strip().lower()
    found = default_plugins().lookup("backends", key, _BUILT_IN)
    if found is None:
        raise ConfigError(f"backend {name!r} is not known; use one of: {', '.join(_registered())}")
    backend: Backend = found.value()
    return backend


def require_backend(name: str) -> Backend:
    """The backend of that name, usable here. Raises ConfigError or BackendUnavailableError with the reason."""
    backend = get_backend(name)
    backend.require_available()
    return backend


def select_backend(prefer_gpu: bool = True, backends: Sequence[Backend] | None = None) -> BackendChoice:
    """The first available backend in order of preference; with `prefer_gpu` off, the CPU whatever else is there."""
    refused: list[str] = []
    for backend in _all(backends):
        if backend.device_type != "cpu" and not prefer_gpu:
            continue
        reason = backend.unavailable_reason()
        if reason is None:
            return BackendChoice(backend, _why(backend, prefer_gpu, refused))
        refused.append(f"{backend.name}: {reason}")
    raise BackendUnavailableError(f"no backend can be used: {'; '.join(refused)}")


class _BuiltIn:
    @hookimpl
    def register_backends(self, register: Callable[..., None]) -> None:
        for name, kind in _BACKENDS.items():
            register(name, kind)


_BUILT_IN = _BuiltIn()


def _registered() -> Mapping[str, Contribution]:
    return default_plugins().at("backends", _BUILT_IN)


def _all(backends: Sequence[Backend] | None) -> Sequence[Backend]:
    return [make() for make in _BACKENDS.values()] if backends is None else backends


def _status(backend: Backend) -> BackendStatus:
    reason = backend.unavailable_reason()
    devices = () if reason is not None else tuple(backend.devices())
    return BackendStatus(backend, reason is None, reason, devices)


def _why(backend: Backend, prefer_gpu: bool, refused: list[str]) -> str:
    if backend.device_type != "cpu":
        return f"a GPU is preferred and {backend.name} is available"
    if not prefer_gpu:
        return "prefer_gpu is off"
    return f"no GPU can be used ({'; '.join(refused)})"
