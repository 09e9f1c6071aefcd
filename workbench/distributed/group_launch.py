"""A group of ranks as plain values, built into an engine by a process of its own; see EngineLaunch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.backends import get_backend
from workbench.engine.config import EngineConfig
from workbench.models import ModelFiles
from workbench.models.model_code import import_model_code
from workbench.plugins import default_plugins
from workbench.progress import ProgressCallback
from workbench.telemetry import HostUsage

if TYPE_CHECKING:
    from workbench.engine.build import BuiltEngine

__all__ = ["GroupLaunch"]


@dataclass(frozen=True)
class GroupLaunch:
    """A group of `num_stages` stages of `tensor_size` ranks, one of `num_groups` like it, of which errors call this one
    by `name`.

    `device_indexes` are one per rank; on the CPU they say nothing, and its cores and memory are shared out among the
    ranks of all groups. `spans` are the stages of a group like this one; without them the model's parts are timed.
    `uses_kernels`: compute with the GPU's own kernels, by default on a GPU; on a CPU it needs Triton's interpreter.
    """

    files: ModelFiles
    backend_name: str
    device_indexes: tuple[int, ...]
    tensor_size: int
    num_stages: int
    dtype: str
    config: EngineConfig
    num_groups: int = 1
    name: str = ""
    spans: tuple[range, ...] | None = None
    uses_kernels: bool | None = None

    def build(self, progress: ProgressCallback) -> BuiltEngine:
        """Start the ranks and put an engine in front of them, in a process that does nothing else."""
        backend = get_backend(self.backend_name)
        plugins = default_plugins()
        plugins.load_enabled()
        import_model_code(progress)
        from workbench.distributed.nursery import RankNursery
        from workbench.distributed.start import build_group
        from workbench.engine.build import BuiltEngine

        nursery = RankNursery() if backend.device_type == "cpu" else None
        built = build_group(self, backend, plugins=plugins, nursery=nursery, progress=progress)
        return BuiltEngine(
            engine=built.engine,
            facts=built.facts,
            runner_status=built.status,
            tokenizer=built.loaded.tokenizer,
            structures=built.structures,
            num_threads=1,
            # What the ranks have is counted by them.
            usage=HostUsage(),
            plugins=plugins,
            figures=built.report,
            on_start=built.watch,
            on_end=built.group.stop,
        )
