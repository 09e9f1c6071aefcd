"""Replicas of a model on a Ray cluster, behind the same client as an engine of this process. Loads no Ray by itself."""

from workbench.distributed.cluster.config import ClusterConfig

__all__ = ["ClusterConfig"]
