"""Whether a command's model runs as replicas on a Ray cluster: the options, and the ClusterConfig that they mean."""

from __future__ import annotations

from dataclasses import dataclass, fields

from workbench.distributed.cluster.config import ClusterConfig
from workbench.errors import ConfigError

__all__ = ["ClusterSettings"]


@dataclass(frozen=True)
class ClusterSettings:
    """Options of a cluster.

    Attributes:
        cluster: run whole copies of the model on Ray, on one machine or many, instead of in this process.
        replicas: with --cluster, how many copies there are always.
        autoscale: with --cluster, fewest and most copies instead, as 1:4; their number follows the requests.
        cluster_address: of a running Ray (auto, or host:6379); without it one is started here, and ended in the end.
        cpus_per_replica: processors that each copy takes.
        gpus_per_replica: GPUs that each copy takes, 0 or 1; without it one where the cluster has GPUs.
    """

    cluster: bool = False
    replicas: int | None = None
    autoscale: str | None = None
    cluster_address: str | None = None
    cpus_per_replica: int | None = None
    gpus_per_replica: int | None = None

    def config(self) -> ClusterConfig | None:
        """What to give `LlamaGPU`; None without --cluster. Raises ConfigError for what does not go together."""
        given = {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if field.name != "cluster" and getattr(self, field.name) is not None
        }
        if not self.cluster:
            if given:
                name = next(iter(given)).replace("_", "-")
                raise ConfigError(f"--{name} is about replicas on a cluster: add --cluster")
            return None
        if "cluster_address" in given:
            given["address"] = given.pop("cluster_address")
        if self.autoscale is not None:
            given["autoscale"] = _bounds(self.autoscale)
        return ClusterConfig(**given)


def _bounds(text: str) -> tuple[int, int]:
    fewest, separator, most = text.partition(":")
    if not separator or not fewest.isdigit() or not most.isdigit():
        raise ConfigError(f"--autoscale {text!r}: write fewest:most, as in 1:4")
    return int(fewest), int(most)
