"""`ClusterConfig`: how many replicas, on which Ray cluster, and what each of them takes."""

from __future__ import annotations

from dataclasses import dataclass

from workbench.errors import ConfigError

__all__ = ["ClusterConfig"]


@dataclass(frozen=True)
class ClusterConfig:
    """Whole copies of a model as Ray Serve replicas, on one machine or many.

    Args:
        replicas: how many there are always.
        autoscale: (fewest, most) instead, by requests that run or wait.
        address: of a running Ray ("auto", "host:6379"); None starts a Ray on this machine, and ends it in the end.
        cpus_per_replica: processors that each takes; its engine uses as many threads.
        gpus_per_replica: GPUs that each takes; None is one where the cluster has GPUs.
        start_timeout_s: seconds within which the first replica must serve; a cluster may have to start machines first.

    Raises ConfigError that names the field.
    """

    replicas: int = 1
    autoscale: tuple[int, int] | None = None
    address: str | None = None
    cpus_per_replica: int = 1
    gpus_per_replica: int | None = None
    start_timeout_s: int = 600

    def __post_init__(self) -> None:
        for name, least in (("replicas", 1), ("cpus_per_replica", 1), ("gpus_per_replica", 0), ("start_timeout_s", 1)):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < least):
                raise ConfigError(f"{name}={value!r}: must be an integer of at least {least}")
        if self.gpus_per_replica is not None and self.gpus_per_replica > 1:
            raise ConfigError(f"gpus_per_replica={self.gpus_per_replica}: a replica's engine runs on one GPU")
        if self.autoscale is not None:
            self._check_autoscale(self.autoscale)

    def _check_autoscale(self, autoscale: tuple[int, int]) -> None:
        bounds = tuple(autoscale) if isinstance(autoscale, tuple | list) else ()
        if len(bounds) != 2 or any(type(bound) is not int for bound in bounds) or not 1 <= bounds[0] <= bounds[1]:
            raise ConfigError(f"autoscale={self.autoscale!r}: must be (fewest, most), at least one and in that order")
        if self.replicas != 1:
            raise ConfigError(f"replicas={self.replicas}: autoscale={self.autoscale} chooses; give one of the two")

    @property
    def fewest(self) -> int:
        """Replicas that there should be at least."""
        return self.replicas if self.autoscale is None else self.autoscale[0]

    @property
    def most(self) -> int:
        """Replicas that there can be at most."""
        return self.replicas if self.autoscale is None else self.autoscale[1]
