"""The documented names for a model over several GPUs: each of them loads the model so spread, and runs it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.backends import get_backend
from workbench.engine import Completion, SamplingParams
from workbench.errors import ConfigError
from workbench.llm import LlamaGPU
from workbench.parallel import GPUConfig, GPUUse, LoadBalancer, ParallelismStrategy
from workbench.parallel import MultiGPUManager as DeviceManager
from workbench.spread_stats import spread_stats, use_by_gpu

if TYPE_CHECKING:
    import torch
    from torch import nn

    from workbench.distributed.parallel_linear import ParallelLinear

__all__ = [
    "MultiGPUInference",
    "MultiGPUManager",
    "ParallelLinear",
    "PipelineParallelism",
    "TensorParallelism",
]


class MultiGPUInference:
    """A model over the GPUs of a config, whatever its strategy.

    Args:
        model: what `LlamaGPU` takes as `model_path`: "default", a folder, a hub id, "random:<preset>".
        gpu_config: which GPUs, and how.
        degrade: use what is there of the GPUs.
        options: further keywords of `LlamaGPU`, such as `quant_type` or `prefer_gpu=False`.

    `gpu_manager` and `load_balancer` show what it does: its requests in flight, loads and counts, to which requests of
    your own that you assign there are added. Use as a context manager, or `stop()` in the end. Raises what `LlamaGPU`
    raises.
    """

    def __init__(self, model: str | Path, gpu_config: GPUConfig, *, degrade: bool = False, **options: Any) -> None:
        if not isinstance(model, str | Path):
            raise ConfigError(
                f"model={type(model).__name__}: must be a name or a folder, since every process loads its own share; "
                "save a model in memory with save_pretrained first"
            )
        self.parallel_engine = LlamaGPU(model, parallel=gpu_config, degrade=degrade, **options)
        backend = self.parallel_engine.backend
        on_processes = backend.device_type == "cpu" and self.parallel_engine.parallel is not None
        stand_in = backend if on_processes else None
        self.gpu_manager = DeviceManager(gpu_config, degrade=degrade, running=self._use, stand_in=stand_in)
        self.load_balancer = LoadBalancer(self.gpu_manager)

    def generate(self, prompt: str | Sequence[int], max_tokens: int | None = 100, **sampling: Any) -> str:
        """The model's continuation of a prompt. Sampling keywords are the fields of `SamplingParams`."""
        return self.parallel_engine.infer(prompt, max_tokens=max_tokens, **sampling)

    def batch_generate(self, prompts: Sequence[str], max_tokens: int | None = 100, **sampling: Any) -> list[str]:
        """Continuations of several prompts at once, in their order."""
        return self.parallel_engine.batch_infer(prompts, max_tokens=max_tokens, **sampling)

    def stream(self, prompt: str, max_tokens: int | None = 100, **sampling: Any) -> Iterator[str]:
        """The continuation piece by piece; leaving the loop stops the model."""
        return self.parallel_engine.stream_infer(prompt, max_tokens, **sampling)

    def get_stats(self) -> dict[str, object]:
        """`gpu_config`, `load_balancing` and `gpu_metrics` as documented, also when it has died.

        `total_requests` and `gpu_assignments` count requests, for the first GPU of the replica that has them;
        `gpu_loads` are shares of the batch in use, by GPU. `gpu_metrics.memory` is None where there is no GPU to read.
        Beside these `state` ("running", "degraded", "dead" or "unloaded") with its `reason`, and `replicas`: each one's
        requests in flight, tokens per second of late, idle share, processes and bytes, and how it `ended`.
        """
        stats, memory = spread_stats(self.parallel_engine), self._memory()
        return {
            "state": stats.state,
            "reason": stats.reason,
            "gpu_config": stats.gpu_config,
            "load_balancing": {**stats.load_balancing, "gpu_memory": memory},
            "gpu_metrics": {"loads": stats.loads, "memory": memory},
            "replicas": stats.replicas,
        }

    def score(self, x: Sequence[Sequence[int]], batch_size: int | None = None) -> list[list[float]]:
        """Natural log-probabilities that the model gives the tokens of each row after those before them.

        `x` is token ids, a list of rows or a tensor [rows, tokens]; a row of n tokens has n - 1 values. At most
        `batch_size` rows are computed at a time (None: as many as the engine takes).
        """
        rows = [list(map(int, row)) for row in (x.tolist() if hasattr(x, "tolist") else x)]
        size = batch_size or max(1, len(rows))
        if type(size) is not int or size < 1:
            raise ConfigError(f"batch_size={batch_size!r}: must be an integer of at least 1")
        params = SamplingParams(max_tokens=0, prompt_logprobs=0)
        scores = []
        for start in range(0, len(rows), size):
            running = [self.parallel_engine.submit(row, params=params) for row in rows[start : start + size]]
            scores += [_logprobs_after_the_first(one.result()) for one in running]
        return scores

    def optimize(self) -> list[int]:
        """Start replicas anew that have stopped; their numbers. A model of one group is loaded anew as a whole."""
        return self.parallel_engine.restart_stopped()

    def stop(self) -> None:
        """Unload the model and end its processes. Stopping twice is harmless."""
        self.parallel_engine.unload()

    def __enter__(self) -> MultiGPUInference:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _use(self) -> dict[int | str, GPUUse]:
        return use_by_gpu(self.parallel_engine)

    def _memory(self) -> dict[int | str, float] | None:
        """Share of each GPU's memory in use; None on the CPU."""
        if self.parallel_engine.backend.device_type == "cpu":
            return None
        self.gpu_manager.update_gpu_metrics()
        return dict(self.gpu_manager.gpu_memory)


class MultiGPUManager(DeviceManager):
    """The manager of `workbench.parallel`, which also answers prompts: `model` is loaded over its GPUs at the first,
    and what it does counts from then on.

    `options` are further keywords of `LlamaGPU`; with `prefer_gpu=False` or `backend="cpu"` among them processes on the
    CPU stand for the GPUs. `stop()` in the end.
    """

    def __init__(
        self,
        gpu_config: GPUConfig,
        *,
        model: str | Path = "default",
        options: Mapping[str, object] | None = None,
        **settings: Any,
    ) -> None:
        self._options = dict(options or {})
        on_processes = self._options.get("backend") == "cpu" or not self._options.get("prefer_gpu", True)
        stand_in = get_backend("cpu") if on_processes else None
        super().__init__(gpu_config, running=self._use, stand_in=stand_in, **settings)
        self._model = model
        self._inference: MultiGPUInference | None = None
        self._loading = threading.Lock()

    def generate(self, prompt: str, max_tokens: int | None = 100, temperature: float = 0.0, **sampling: object) -> str:
        """The model's continuation of a prompt. Raises what loading raises, GPUUnavailableError above all."""
        with self._loading:
            if self._inference is None:
                self._inference = MultiGPUInference(self._model, self.config, degrade=self.degrade, **self._options)
        return self._inference.generate(prompt, max_tokens, temperature=temperature, **sampling)

    def stop(self) -> None:
        """Unload the model, if it was loaded. Stopping twice is harmless; the next prompt loads it again."""
        with self._loading:
            inference, self._inference = self._inference, None
        if inference is not None:
            inference.stop()

    def _use(self) -> dict[int | str, GPUUse]:
        inference = self._inference
        return {} if inference is None else use_by_gpu(inference.parallel_engine)


def _logprobs_after_the_first(completion: Completion) -> list[float]:
    # Scores were asked for, and only the first token has none.
    return [entry.logprob for entry in completion.prompt_logprobs or () if entry is not None]


class TensorParallelism(MultiGPUInference):
    """`MultiGPUInference` for the strategy "tensor": every layer's heads, MLP and vocabulary lie on all GPUs."""

    def __init__(self, model: str | Path, gpu_config: GPUConfig, **options: Any) -> None:
        _require(gpu_config, ParallelismStrategy.TENSOR)
        super().__init__(model, gpu_config, **options)

    def split_linear_layers(self, module: nn.Module) -> nn.Module:
        """Replace a module's linear layers, in place, by `ParallelLinear`s over the devices of this config.

        For modules of your own: the model that was loaded is split already, by heads, MLP and vocabulary.
        """
        from workbench.distributed.parallel_linear import split_linear_layers

        return split_linear_layers(module, self._module_devices())

    def forward_parallel(self, x: Sequence[Sequence[int]]) -> list[list[float]]:
        """`score` of all rows at once, computed by all ranks together."""
        return self.score(x)

    def _split_tensor(self, tensor: torch.Tensor, n: int) -> list[torch.Tensor]:
        from workbench.distributed.parallel_linear import split_tensor

        return split_tensor(tensor, n)

    def _module_devices(self) -> list[str]:
        size = self.parallel_engine.parallel.num_gpus if self.parallel_engine.parallel else 1
        if self.parallel_engine.backend.device_type == "cpu":
            return ["cpu"] * size
        return self.gpu_manager.devices


class PipelineParallelism(MultiGPUInference):
    """`MultiGPUInference` for the strategy "pipeline": each GPU has some of the layers."""

    def __init__(self, model: str | Path, gpu_config: GPUConfig, **options: Any) -> None:
        _require(gpu_config, ParallelismStrategy.PIPELINE)
        super().__init__(model, gpu_config, **options)

    @property
    def pipeline_stages(self) -> list[range]:
        """Which decoder layers each stage has."""
        (replica,) = self.parallel_engine.replicas()
        return [rank.layers for rank in replica.ranks]

    def forward_pipeline(self, x: Sequence[Sequence[int]], batch_size: int = 1) -> list[list[float]]:
        """`score` with micro-batches of `batch_size` rows, as many in flight as the pipeline has lanes."""
        lanes = 2 * len(self.pipeline_stages)
        return self.score(x, batch_size * lanes)

    @property
    def bubble_share(self) -> float:
        """Share of the stages' time, 0 to 1, in which they had nothing to do while requests ran."""
        (replica,) = self.parallel_engine.replicas()
        return replica.pipeline.bubble_share


def _require(config: GPUConfig, strategy: ParallelismStrategy) -> None:
    if config.strategy is not strategy:
        raise ConfigError(f"strategy={config.strategy.value!r}: must be {strategy.value!r} here; see MultiGPUInference")


def __getattr__(name: str) -> type:
    # A module of torch's, which is not loaded before it is asked for.
    if name == "ParallelLinear":
        from workbench.distributed.parallel_linear import ParallelLinear

        return ParallelLinear
    raise AttributeError(name)
