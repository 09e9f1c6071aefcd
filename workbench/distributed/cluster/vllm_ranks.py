"""One vLLM whose ranks Ray puts on the machines of a cluster: for a model that outgrows a machine."""

from __future__ import annotations

from functools import partial
from typing import Any

from workbench.distributed.cluster.config import ClusterConfig
from workbench.distributed.cluster.ray_session import import_ray, join_ray, leave_ray
from workbench.engine.launch import EngineLaunch
from workbench.engine.vllm.start import StartedVLLM, VLLMShape, start_vllm
from workbench.plugins import PluginManager

__all__ = ["start_vllm_ranks"]


def start_vllm_ranks(
    launch: EngineLaunch, cluster: ClusterConfig, shape: VLLMShape, plugins: PluginManager, library: Any = None
) -> StartedVLLM:
    """Join the cluster and have vLLM load the model over it; a Ray started for this ends with the client.

    Every machine of the cluster needs vLLM and the model under the same name. `library` is the vllm package (None:
    imported). Raises BackendUnavailableError without Ray or vLLM, or where vLLM finds too few GPUs in the cluster.
    """
    ray = import_ray()
    join_ray(ray, cluster)
    leave = partial(leave_ray, ray)
    try:
        return start_vllm(launch, plugins, shape, library, after_stop=leave)
    except BaseException:
        leave()
        raise
