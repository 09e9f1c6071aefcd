"""Whether a model on the CPU gets the native decoder here, at once or after it has been compiled, and why not."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from workbench.backends.processor import Processor
from workbench.engine.config import EngineLimits
from workbench.engine.model_runner import ModelRunner
from workbench.engine.native.decoder import NativeDecoder, config_obstacle, model_obstacle
from workbench.engine.native.library import NativeLibrary, build_library, cached_library, load_library, native_obstacle
from workbench.engine.native.preparing_runner import PreparingRunner
from workbench.engine.native.runner import NativeRunner
from workbench.engine.paged_step import KVPool
from workbench.engine.runner import Runner
from workbench.engine.runner_status import MEANWHILE, RunnerStatus
from workbench.errors import BackendUnavailableError
from workbench.models.bare_config import BareConfig
from workbench.quantize.grouped_weight import GroupedLinear

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["choose_cpu_runner", "decoder_is_ready"]


def decoder_is_ready(config: BareConfig, processor: Processor) -> bool:
    """Whether the native decoder has been built and can run a model of this config."""
    path = None if native_obstacle(processor) or config_obstacle(config) else cached_library(processor)
    try:
        return path is not None and bool(load_library(path))
    except BackendUnavailableError:  # the ordinary load says why
        return False


def choose_cpu_runner(
    module: PreTrainedModel,
    pool: KVPool,
    limits: EngineLimits,
    *,
    num_threads: int,
    wants_native: bool,
    keep_module: bool,
    serve_at_once: bool = True,
    processor: Processor,
) -> tuple[Runner, RunnerStatus]:
    """The runner, and in words what it is and what kept a faster one away.

    Takes the module's weights over if it can, and frees them there unless `keep_module`.
    """
    plain = ModelRunner(module, pool, "cpu")
    obstacle = "native_kernels=False" if not wants_native else native_obstacle(processor) or model_obstacle(module)
    if obstacle is not None:
        return plain, RunnerStatus(f"torch's operators: {obstacle}")
    make = partial(_make_runner, module, pool, limits, num_threads)
    path = cached_library(processor)
    if path is not None or not serve_at_once:
        try:
            library = _build(processor) if path is None else load_library(path)
            return make(library, on_packed=_keep if keep_module else _free), RunnerStatus("native decoder")
        except BackendUnavailableError as error:
            return plain, RunnerStatus(f"torch's operators: {error}")
    status = RunnerStatus(f"{MEANWHILE}the native decoder is being compiled")
    # Until it takes over, torch's operators need the weights as they are.
    runner = PreparingRunner(
        plain,
        status,
        compile=partial(_build, processor),
        pack=partial(make, on_packed=_keep),
        on_switch=partial(_keep if keep_module else _free_all, module),
    )
    return runner, status


def _build(processor: Processor) -> NativeLibrary:
    path: Path = build_library(processor)
    return load_library(path)


def _make_runner(
    module: PreTrainedModel,
    pool: KVPool,
    limits: EngineLimits,
    num_threads: int,
    library: NativeLibrary,
    *,
    on_packed: Callable[[torch.nn.Module], None],
) -> Runner:
    max_rows = max(limits.max_num_batched_tokens, limits.max_num_seqs)
    decoder = NativeDecoder(
        library,
        module,
        pool,
        max_rows=max_rows,
        max_context=limits.max_context,
        num_threads=num_threads,
        on_packed=on_packed,
    )
    return NativeRunner(decoder, limits.max_num_seqs)


def _keep(holder: torch.nn.Module) -> None:
    """Weights stay in the module as well."""


def _free_all(module: torch.nn.Module) -> None:
    for holder in module.modules():
        if not list(holder.children()):
            _free(holder)


def _free(holder: torch.nn.Module) -> None:
    """Let the memory of weights go that have been packed; the module keeps its shape and can compute no more."""
    if isinstance(holder, GroupedLinear):
        holder.forget()
    for name, tensor in [*holder.named_parameters(recurse=False), *holder.named_buffers(recurse=False)]:
        if name in _WEIGHTS:
            tensor.data = tensor.data.new_empty(0)


# What holds the weights in a linear layer or an embedding of any kind.
_WEIGHTS = frozenset({"weight", "bias", "levels", "scales", "minima", "values", "packed", "scales_and_zeros"})
