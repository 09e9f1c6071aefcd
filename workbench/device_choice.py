"""Where a model will run and in which precision, from what the caller asked, with the reasons."""

from __future__ import annotations

from dataclasses import dataclass, replace

from workbench.backends import Backend, get_backend, select_backend
from workbench.distributed.cluster.config import ClusterConfig
from workbench.errors import BackendUnavailableError, ConfigError
from workbench.parallel import GPUConfig
from workbench.parallel.spread import Spread, choose_spread
from workbench.quantize.quant_type import QuantType

__all__ = ["DeviceChoice", "choose_device"]


@dataclass(frozen=True)
class DeviceChoice:
    """A backend, one of its devices (the first of `spread`), and the weights' precision."""

    backend: Backend
    reason: str
    device_index: int
    dtype: str
    dtype_reason: str
    spread: Spread | None = None


def choose_device(
    requested: QuantType | None,
    backend: str | Backend | None,
    *,
    prefer_gpu: bool,
    device_index: int,
    parallel: GPUConfig | None,
    degrade: bool,
    cluster: ClusterConfig | None,
    engine_name: str = "paged",
    memory_fraction: float = 0.9,
) -> DeviceChoice:
    """`memory_fraction` is the engine's, which counts where `parallel` leaves it open.

    Raises ConfigError for what does not go together, BackendUnavailableError for what is not there.
    """
    dtype = None if requested is None else requested.dtype
    if cluster is not None:
        if not isinstance(cluster, ClusterConfig):
            raise ConfigError(f"cluster={cluster!r}: must be a ClusterConfig, such as ClusterConfig(replicas=2)")
        if parallel is not None:
            return _over_cluster(parallel.with_fraction(memory_fraction), cluster, dtype, engine_name)
        reason = "replicas on the cluster choose theirs"
        return DeviceChoice(get_backend("cpu"), reason, device_index, dtype or "fp32", "the replicas choose")
    chosen, reason = _choose_backend(backend, prefer_gpu)
    spread = None if parallel is None else choose_spread(parallel, chosen, backend, prefer_gpu, degrade)
    if spread is not None:
        if spread.config is not None:
            spread = replace(spread, config=spread.config.with_fraction(memory_fraction))
        chosen, reason, device_index = spread.backend, spread.reason, spread.first_device_index(device_index)
    if requested is not None:
        requested.require_on(chosen.name)
    dtype, dtype_reason = _choose_dtype(chosen, device_index, dtype)
    return DeviceChoice(chosen, reason, device_index, dtype, dtype_reason, spread)


def _over_cluster(parallel: GPUConfig, cluster: ClusterConfig, dtype: str | None, engine_name: str) -> DeviceChoice:
    """One model over the cluster's machines, whose GPUs Ray chooses: the ids only say how many."""
    if engine_name != "vllm":
        raise ConfigError(
            "parallel is given beside cluster: a replica's engine runs on one device; leave one out, or have "
            "engine_name='vllm' spread one model over the machines"
        )
    if cluster.most > 1:
        raise ConfigError(f"replicas={cluster.most}: over a cluster's machines the vllm engine is one copy")
    backend, reason = get_backend("cpu"), "Ray chooses the cluster's GPUs"
    spread = Spread(backend, (), parallel, reason)
    return DeviceChoice(backend, reason, 0, dtype or "bf16", "what its GPUs compute in by default", spread)


def _choose_backend(backend: str | Backend | None, prefer_gpu: bool) -> tuple[Backend, str]:
    if backend is None:
        choice = select_backend(prefer_gpu)
        return choice.backend, choice.reason
    chosen = get_backend(backend) if isinstance(backend, str) else backend
    chosen.require_available()
    return chosen, "as asked"


def _choose_dtype(backend: Backend, index: int, requested: str | None) -> tuple[str, str]:
    if requested is None:
        choice = backend.default_dtype(index)
        return choice.dtype, choice.reason
    reason = backend.supports_dtype(requested, index)
    if reason is not None:
        raise BackendUnavailableError(f"quant_type={requested!r} is not available: {reason}")
    return requested, "as asked"
