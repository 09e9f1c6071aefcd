"""Puts a loaded model, a KV pool and a runner together into an engine that is ready to run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from workbench.backends import Backend, torch_dtype
from workbench.engine.attention import LayerShape
from workbench.engine.client import EngineClient
from workbench.engine.config import EngineConfig, EngineLimits, resolve_limits
from workbench.engine.core import EngineCore
from workbench.engine.draft_model import DraftModel
from workbench.engine.drafter import Drafter
from workbench.engine.embedding import Embedder
from workbench.engine.engine import Engine
from workbench.engine.grammar import StructureCompiler, token_vocabulary
from workbench.engine.launch import DraftFacts, EngineFacts
from workbench.engine.layer_probe import probe_layers
from workbench.engine.measured_lookup import MeasuredLookup
from workbench.engine.messages import Reply
from workbench.engine.native.decoder import native_layers
from workbench.engine.paged_step import KVPool
from workbench.engine.request_plugins import RequestPlugins
from workbench.engine.runner_choice import RunnerPlan, plan_runner
from workbench.engine.runner_status import RunnerStatus
from workbench.errors import ConfigError
from workbench.models import LoadedModel, Tokenizer
from workbench.plugins import PluginManager
from workbench.telemetry import GPUUsage, HostUsage
from workbench.telemetry.device_usage import UsageReader

__all__ = ["BuiltEngine", "StartedEngine", "build_engine", "start_engine", "structure_compiler"]

# Rows of logits and the sampler's copies of them, as float32, at the largest batch.
_SAMPLER_COPIES = 3


@dataclass(frozen=True)
class BuiltEngine:
    """An engine, what is known of it, and how it computes at the moment. `num_threads` are for the thread it runs in.

    `usage` reads the memory of its device, as seen from this process; `figures` is what else there is to tell of it
    while it runs. `on_start` and `on_end` are called around its loop.
    """

    engine: Engine
    facts: EngineFacts
    runner_status: RunnerStatus
    tokenizer: Tokenizer
    structures: StructureCompiler
    num_threads: int | None
    usage: UsageReader
    plugins: PluginManager | None = None
    figures: Callable[[], Any] = lambda: None
    on_start: Callable[[EngineCore], None] | None = None
    on_end: Callable[[], None] | None = None


def build_engine(
    loaded: LoadedModel,
    backend: Backend,
    device_index: int,
    config: EngineConfig,
    low_bit: str | None = None,
    plugins: PluginManager | None = None,
    draft: LoadedModel | None = None,
) -> BuiltEngine:
    """Size the KV pool by what is free after a warm-up run, and choose a runner.

    `low_bit` ("int8", "int4", "fp8") packs the weights for a GPU's kernels; BackendUnavailableError says why it
    cannot. `plugins` has what requests may name; `draft` is the config's draft model, loaded. Raises OutOfMemoryError
    when the pool does not fit, ModelFormatError for an architecture that the cache cannot hold.
    """
    assert (draft is None) == (config.draft_model is None)
    on_gpu = backend.device_type != "cpu"
    num_threads = None if on_gpu else config.num_threads or backend.device(device_index).num_cores
    if num_threads:
        torch.set_num_threads(num_threads)
    layers = _layers(loaded, _warm_up_tokens(config, loaded.spec.max_context, on_gpu=on_gpu))
    embedder = Embedder(loaded.module, loaded.embedding, loaded.device) if loaded.embedding else None
    plan = plan_runner(
        loaded.module,
        layers,
        loaded.device,
        low_bit,
        keep_module=embedder is not None,
        num_host_layers=loaded.num_host_layers,
    )
    loaded.weight_bytes = plan.weight_bytes or loaded.weight_bytes
    kv_dtype = _kv_dtype(config, plan, loaded.dtype)
    drafting = None if draft is None else _Drafting.of(draft)
    limits = resolve_limits(
        config,
        on_gpu=on_gpu,
        model_max_context=loaded.spec.max_context,
        # One block in each pool for the same tokens.
        kv_bytes_per_token=_kv_bytes_per_token(layers, kv_dtype) + (drafting.kv_bytes_per_token if drafting else 0),
        free_bytes=_bytes_for_kv(loaded, backend, device_index, config),
    )
    # One block more than is handed out: rows that only fill up a captured batch write there.
    pool = KVPool(layers, limits.num_blocks + 1, limits.block_size, kv_dtype, loaded.device)
    choice = plan.build(
        pool,
        limits,
        num_threads=num_threads,
        native_kernels=config.native_kernels,
        serve_at_once=config.serve_at_once,
    )
    drafter: Drafter | None = drafting.build(limits, config, num_threads) if drafting else None
    if drafter is None and on_gpu:
        drafter = MeasuredLookup(limits.draft_tokens)
    facts = EngineFacts.of(loaded, limits, drafting.facts(limits) if drafting else None)
    structures = structure_compiler(loaded.tokenizer, loaded.spec.vocab_size, loaded.eos_token_ids)
    engine = Engine(
        choice.runner,
        limits,
        decode=loaded.tokenizer.decode,
        vocab_size=loaded.spec.vocab_size,
        eos_token_ids=loaded.eos_token_ids,
        weight_bytes=facts.weight_bytes,
        structures=structures,
        embedder=embedder,
        plugins=plugins,
        drafter=drafter,
    )
    return BuiltEngine(
        engine=engine,
        facts=facts,
        runner_status=choice.status,
        tokenizer=loaded.tokenizer,
        structures=structures,
        num_threads=num_threads,
        usage=GPUUsage(device_index, backend=backend.name) if on_gpu else HostUsage(),
        plugins=plugins,
    )


class StartedEngine:
    """A client to a running engine, the limits it runs under, how it computes at the moment, and its draft model."""

    def __init__(
        self, client: EngineClient, limits: EngineLimits, runner_status: RunnerStatus, draft: DraftFacts | None = None
    ) -> None:
        self.client = client
        self.limits = limits
        self.runner_status = runner_status
        self.draft = draft


def start_engine(*parts: Any, **options: Any) -> StartedEngine:
    """An engine built as `build_engine` does, running in a thread of this process."""
    built = build_engine(*parts, **options)

    def connect(emit: Callable[[Reply], None]) -> EngineCore:
        # Whatever the engine prepares ends with it.
        core = EngineCore(built.engine, emit, num_threads=built.num_threads, on_end=built.runner_status.end)
        core.start()
        return core

    client = EngineClient(
        connect,
        max_context=built.facts.limits.max_context,
        vocab_size=built.facts.spec.vocab_size,
        structures=built.structures,
        plugins=RequestPlugins(built.plugins) if built.plugins is not None else None,
    )
    return StartedEngine(client, built.facts.limits, built.runner_status, built.facts.draft)


def structure_compiler(tokenizer: Tokenizer, vocab_size: int, eos_token_ids: frozenset[int]) -> StructureCompiler:
    """Compiles what answers must look like.

    Takes what it needs and not the loaded model: it lives as long as the client, which outlives the weights.
    """
    return StructureCompiler(lambda: token_vocabulary(tokenizer, vocab_size, eos_token_ids))


@dataclass(frozen=True)
class _Drafting:
    """A draft model, and how it will run."""

    loaded: LoadedModel
    layers: dict[int, LayerShape]
    plan: RunnerPlan

    @classmethod
    def of(cls, loaded: LoadedModel) -> _Drafting:
        layers = _layers(loaded, num_tokens=1)
        return cls(loaded, layers, plan_runner(loaded.module, layers, loaded.device))

    @property
    def kv_bytes_per_token(self) -> int:
        return _kv_bytes_per_token(self.layers, torch_dtype(self.loaded.dtype))

    def build(self, limits: EngineLimits, config: EngineConfig, num_threads: int | None) -> DraftModel:
        """The drafter, with a pool of as many blocks as the engine's."""
        loaded, max_context = self.loaded, min(limits.max_context, self.loaded.spec.max_context)
        dtype = torch_dtype(loaded.dtype)
        pool = KVPool(self.layers, limits.num_blocks + 1, limits.block_size, dtype, loaded.device)
        # No larger batches are guessed, and nobody guesses for the draft.
        most_seqs = min(limits.max_num_seqs, limits.draft_rows // 2)
        its_limits = replace(limits, max_context=max_context, max_num_seqs=most_seqs, draft_tokens=0)
        choice = self.plan.build(
            pool,
            its_limits,
            num_threads=num_threads,
            native_kernels=config.native_kernels,
            # On a GPU it is the engine's own runner that prepares itself between steps.
            serve_at_once=config.serve_at_once and loaded.device == "cpu",
        )
        return DraftModel(choice.runner, limits, max_context)

    def facts(self, limits: EngineLimits) -> DraftFacts:
        """What is known of it."""
        loaded, num_tokens = self.loaded, limits.num_blocks * limits.block_size
        kv_bytes = num_tokens * self.kv_bytes_per_token
        return DraftFacts(loaded.files.name, loaded.spec, loaded.dtype, loaded.weight_bytes, kv_bytes)


def _warm_up_tokens(config: EngineConfig, max_context: int, *, on_gpu: bool) -> int:
    """As many as one step can have: no more than the cache holds."""
    most = config.max_num_batched_tokens or (8192 if on_gpu else 1)
    return min(most, max_context, config.kv_cache_tokens or most)


def _layers(loaded: LoadedModel, num_tokens: int) -> dict[int, LayerShape]:
    """What each layer keeps of a token, learnt by running the model on so many."""
    # What is bare cannot be run; it was made for the native decoder, whose families are known.
    if loaded.is_bare:
        return native_layers(loaded.module.config)
    return probe_layers(loaded.module, loaded.device, num_tokens)


def _kv_bytes_per_token(layers: dict[int, LayerShape], dtype: torch.dtype) -> int:
    return sum(shape.elements_per_token for shape in layers.values()) * dtype.itemsize


def _kv_dtype(config: EngineConfig, plan: RunnerPlan, model_dtype: str) -> torch.dtype:
    """Raises ConfigError with the reason if the cache cannot be kept in what was asked for."""
    if config.kv_dtype is None:
        return torch_dtype(model_dtype)
    if plan.obstacle is not None:
        raise ConfigError(f"kv_dtype={config.kv_dtype!r} needs the GPU's own kernels: {plan.obstacle}")
    return torch.float8_e4m3fn


def _bytes_for_kv(loaded: LoadedModel, backend: Backend, device_index: int, config: EngineConfig) -> int:
    memory = backend.memory(device_index)
    if backend.device_type == "cpu":
        return memory.free_bytes
    # The warm-up run left its workspace in torch's cache, so what is used now is the peak of a full step.
    used = memory.total_bytes - memory.free_bytes
    sampler = (config.max_num_seqs or 256) * loaded.spec.vocab_size * 4 * _SAMPLER_COPIES
    return max(0, int(memory.total_bytes * config.memory_fraction) - used - sampler)
