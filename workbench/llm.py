"""`LlamaGPU`: one loaded model behind one running engine: how it is loaded, watched, served and let go."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.asking import Asking
from workbench.backends import Backend, select_backend
from workbench.device_choice import choose_device
from workbench.distributed.cluster.config import ClusterConfig
from workbench.engine import EngineConfig, EngineLimits, EngineStats, RequestInFlight
from workbench.engine.config import OVER_SEVERAL_DEVICES, refuse_drafts
from workbench.engine.engines import engine_obstacle, find_engine
from workbench.engine.launch import DraftFacts, EngineLaunch, check_drafts, release
from workbench.errors import BackendUnavailableError, ConfigError, EngineStoppedError
from workbench.loaded_memory import LoadedMemory
from workbench.models import Catalogue, EmbeddingRecipe, ModelSpec, Tokenizer
from workbench.models.doors_tokenizer import load_doors_tokenizer
from workbench.parallel import GPUConfig
from workbench.planner import Comparison, LoadGuard, LoadRecord, Plan
from workbench.plugins import PluginManager, default_plugins
from workbench.profile_run import profiled_prompt, record_profile
from workbench.progress import ProgressCallback
from workbench.progress_display import ProgressDisplay
from workbench.prompt import Messages, Prompt
from workbench.quantize import QuantizationCache, QuantizationConfig, parse_quant_type
from workbench.running_model import ModelStart, RunningModel
from workbench.stand_in import find_stand_in
from workbench.telemetry import MemoryOwners, RequestLog, RequestRow, StepProfile
from workbench.twin import HasTwin, Twin

if TYPE_CHECKING:
    from workbench.distributed.parallel_engine import ReplicaFigures
    from workbench.distributed.pooled_client import PooledClient
    from workbench.engine.client import EngineClient
    from workbench.engine.runner_status import RunnerStatus
    from workbench.server import Endpoint

__all__ = ["LlamaGPU", "Messages", "Prompt"]

# Nobody wants a line in a log or a notebook for each load; a first download takes longer.
_LINES_AFTER_S = 15.0


class LlamaGPU(Asking, HasTwin):
    """Load a model and run it.

    Args:
        model_path: "default" or None (the embedded model), a folder, a .gguf file, a hub id "org/name[@revision]" or
            `random:<preset>`.
        prefer_gpu: use ROCm or CUDA where available; False stays on the CPU.
        auto_detect_aws: look once whether this is an EC2 instance, and report it in `get_backend_info()`.
        quant_type: precision of the weights: "fp32", "bf16" or "fp16" (and their long names). None chooses for the
            device; `dtype_reason` says why. Also a quantisation: "int8", "int4", "nf4" (weights only, computed in the
            device's own precision), "dynamic" and "static" (activations in 8 bits too), "fp8" (e4m3; activations too in
            large batches), and on the CPU "gguf": the packed weights of a .gguf file (the embedded model has one) used
            as they are. Or a QuantizationConfig.
        backend: "cpu", "cuda", "rocm" or a Backend; overrides `prefer_gpu`.
        device_index: which of the backend's devices.
        context_length: most tokens of one request; None takes the model's own, or what the KV pool holds.
        engine: all of the engine's knobs; `context_length` then goes into it.
        draft_model: a smaller model with the same vocabulary, named like `model_path`, that guesses tokens ahead: the
            same text in fewer passes over the weights (`EngineConfig.draft_model`).
        quantization_cache: where quantised weights are kept for the next load: the workbench's own cache when None;
            False keeps none.
        parallel: which GPUs to spread the model over, and how. With `prefer_gpu=False` or `backend="cpu"` the ids only
            count processes, which share the CPU.
        degrade: with `parallel`, use what is there of the GPUs, down to the CPU alone; `degraded_reason` says so.
        cluster: run whole copies of the model on a Ray cluster, on one machine or many, instead of here; each replica
            opens it with the other settings. `backend` and `prefer_gpu` are then about the replicas' machines. With
            `parallel` and the vllm engine: one model over the machines' GPUs, as many as `parallel` has.
        progress: called with `Progress` values while loading; raising LoadCancelled in it cancels. Without it a bar is
            shown on a terminal, and elsewhere lines on stderr where it takes long, as the first download does.
        trust_remote_code, allow_pickle: allow files that run code when loaded.
        check_plan: plan the load first and issue PlanWarning where it will not fit; loading goes on all the same.
            `plan` and `comparison()` then hold predicted and measured figures. With `parallel` nothing is compared;
            `workbench.planner.plan(parallel=...)` gives the plan.

    Where the environment variable WORKBENCH_MODEL names a model, that one stands in for every other (see
    docs/notebooks.md).

    Raises:
        ConfigError, BackendUnavailableError, ModelLoadError and OutOfMemoryError; then nothing stays allocated.

    Sampling keywords of all methods are the fields of `SamplingParams`; the defaults are greedy with at most 256
    tokens, and `max_tokens=None` goes on until the model stops or the context is full. Answers never repeat the prompt.
    """

    def __init__(
        self,
        model_path: str | Path | None = "default",
        prefer_gpu: bool = True,
        auto_detect_aws: bool = True,
        quant_type: str | QuantizationConfig | None = None,
        *,
        backend: str | Backend | None = None,
        device_index: int = 0,
        context_length: int | None = None,
        engine: EngineConfig | None = None,
        draft_model: str | Path | None = None,
        quantization_cache: QuantizationCache | bool | None = None,
        parallel: GPUConfig | None = None,
        degrade: bool = False,
        cluster: ClusterConfig | None = None,
        progress: ProgressCallback | None = None,
        trust_remote_code: bool = False,
        allow_pickle: bool = False,
        check_plan: bool = True,
    ) -> None:
        self.model_path = "default" if model_path is None else str(model_path)
        stand_in = find_stand_in(self.model_path, backend=backend, quant_type=quant_type, context_length=context_length)
        # The name that a caller knows the model by, where WORKBENCH_MODEL has another in its place.
        self.stands_in_for = None if stand_in is None else self.model_path
        if stand_in is not None:
            self.model_path, backend, quant_type = stand_in.model, stand_in.backend, stand_in.quant_type
            engine = _stand_in_engine(engine or EngineConfig(), stand_in.context_length)
            context_length, device_index, parallel, draft_model = None, 0, None, None
        self.prefer_gpu = prefer_gpu
        self.auto_detect_aws = auto_detect_aws
        self.quant_type = quant_type
        config = _engine_config(engine, context_length, draft_model)
        self.plugins: PluginManager = default_plugins()
        self.plugins.load_enabled()
        find_engine(self.plugins, config.engine_name)
        obstacle = engine_obstacle(config.engine_name)
        if obstacle is not None:
            raise BackendUnavailableError(f"engine_name={config.engine_name!r}: {obstacle}")
        requested = None if quant_type is None else parse_quant_type(quant_type)
        choice = choose_device(
            requested,
            backend,
            prefer_gpu=prefer_gpu,
            device_index=device_index,
            parallel=parallel,
            degrade=degrade,
            cluster=cluster,
            engine_name=config.engine_name,
            memory_fraction=config.memory_fraction,
        )
        spread = choice.spread
        self.cluster = cluster
        self.parallel: GPUConfig | None = None if spread is None else spread.config
        self.backend, self.backend_reason = choice.backend, choice.reason
        self.device_index = choice.device_index
        self.dtype, self.dtype_reason = choice.dtype, choice.dtype_reason
        self.quantization: QuantizationConfig | None = None if requested is None else requested.config
        with _shown(progress) as report:
            files = Catalogue().resolve(
                self.model_path, progress=report, allow_pickle=allow_pickle, trust_remote_code=trust_remote_code
            )
            draft_files = None
            if config.draft_model is not None and cluster is None:
                self._check_drafts(config)
                draft_files = Catalogue().resolve(
                    config.draft_model, progress=report, allow_pickle=allow_pickle, trust_remote_code=trust_remote_code
                )
        self.model_name = files.name
        weights = self.dtype if requested is None else requested.name
        # On a GPU the engine packs these for its own kernels; a config with flags of its own is done as it says.
        low_bit = None if requested is None else requested.engine_packed_name(self.backend.device_type)
        launch = EngineLaunch(
            files=files,
            backend_name=self.backend.name,
            device_index=self.device_index,
            dtype=self.dtype,
            quantization=self.quantization,
            low_bit=low_bit,
            cache=_choose_cache(quantization_cache),
            config=config,
            draft_files=draft_files,
        )
        replica_options = {
            "model_path": self.model_path,
            "prefer_gpu": prefer_gpu,
            "auto_detect_aws": False,
            "quant_type": quant_type,
            "backend": backend,
            "trust_remote_code": trust_remote_code,
            "allow_pickle": allow_pickle,
            "check_plan": False,
        }
        self._start = ModelStart(launch, choice, cluster, replica_options)
        self._new_guard = partial(LoadGuard, files, self.backend, self.device_index, weights, config, draft_files)
        self._checks_plan = check_plan and self._start.is_planned
        guard = None
        if self._checks_plan:
            guard = self._new_guard()
            guard.warn(stacklevel=2)
        with _shown(progress) as report:
            running = self._start.run(self.plugins, report)
        self._take(running, guard)

    def _check_drafts(self, config: EngineConfig) -> None:
        """Raises ConfigError where a draft model cannot be used, before one is downloaded."""
        if self.parallel is not None:
            refuse_drafts(config, OVER_SEVERAL_DEVICES)
        check_drafts(config)

    def _take(self, running: RunningModel, guard: LoadGuard | None) -> None:
        """Have what runs now as this object's model."""
        facts = running.facts
        self._runner_status = running.runner_status
        self._ranks, self._application = running.ranks, running.application
        self._tokenizer: Tokenizer | None = running.tokenizer
        self._client = running.client
        self.isolation, self.isolation_reason = running.isolation.mode, running.isolation.reason
        self.spec: ModelSpec = facts.spec
        self.limits: EngineLimits = facts.limits
        self.weight_bytes = facts.weight_bytes
        self.draft: DraftFacts | None = facts.draft
        self.embedding_recipe: EmbeddingRecipe | None = facts.embedding
        self.dtype, self.quantized = facts.dtype, facts.quantized
        if facts.quantized is not None:
            self.quantization = facts.quantized.config
        self._memory = LoadedMemory(
            self.backend,
            self.device_index,
            running.client,
            is_elsewhere=self.isolation == "process",
            has_ranks=running.ranks is not None,
        )
        self._record: LoadRecord | None = None
        if guard is not None:
            # On a CPU the cache takes memory as it fills, so nothing of it was there when the load was measured.
            kv_bytes = 0 if self.backend.device_type == "cpu" else self.limits.kv_bytes
            self._record = guard.loaded(
                weight_bytes=self.weight_bytes,
                kv_bytes=kv_bytes,
                here_bytes=self._memory.device_bytes_here(),
                elsewhere_bytes=self._memory.elsewhere_bytes(),
            )
        if self._record is not None:
            running.client.requests.observe(partial(_note_run, self._record, running.runner_status))
        device = self.backend.torch_device(self.device_index)
        # Dropping the last reference stops the engine, whose thread or process holds the weights.
        self._finalizer = weakref.finalize(
            self, _stop, running.client, self._record, self.plugins, self.model_name, device
        )
        self.plugins.events.dispatch("engine_start", name=self.model_name, device=device)

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer. `unload()` lets it go too; asked for later, it is read from the files again."""
        if self._tokenizer is None:
            self._tokenizer = load_doors_tokenizer(self._start.launch.files)
        return self._tokenizer

    @property
    def max_context(self) -> int:
        """Most tokens, prompt and answer together, of one request."""
        return self.limits.max_context

    @property
    def runner_reason(self) -> str:
        """How the model is computed at the moment, and what keeps a faster way off."""
        return str(self._runner_status)

    @property
    def meanwhile(self) -> str:
        """How the model is computed until a faster way is ready, and how far that is; empty where the way stays."""
        return str(self._runner_status) if self._runner_status.is_provisional else ""

    def wait_until_compiled(self, timeout_s: float | None = None) -> bool:
        """Wait for the way to compute that stays, since the first answers may come from a slower one; whether it is
        there after `timeout_s` seconds (None: however long it takes). False too where the engine ended before."""
        return self._runner_status.wait_until_final(timeout_s)

    @property
    def precision(self) -> str:
        """What the weights are kept in: the quantisation's name where there is one, since `dtype` is then only what is
        computed in."""
        return self.quantization.quantization_type.value if self.quantization else self.dtype

    @property
    def engine_config(self) -> EngineConfig:
        """The engine's knobs as they were asked; `limits` says what became of them."""
        return self._start.launch.config

    @property
    def keeps_packed(self) -> bool:
        """Whether the weights are those of the .gguf file, packed as they are there."""
        return self._start.launch.keeps_packed

    @property
    def death(self) -> EngineStoppedError | None:
        """What requests get since the engine died (the last replica, of several); None while it runs, and after
        `unload()`."""
        return self._client.death

    @property
    def degraded_reason(self) -> str | None:
        """What is less than asked: GPUs that are not there, replicas that have stopped. None while all is well."""
        spread = self._start.choice.spread
        missing = None if spread is None else spread.degraded_reason
        watched = self._ranks or self._application
        stopped = None if watched is None else watched.degraded_reason
        return "; ".join(filter(None, (missing, stopped))) or None

    def replicas(self) -> list[ReplicaFigures]:
        """With `parallel`: each group of ranks as it is now, with its processes and bytes. Else empty."""
        return [] if self._ranks is None else self._ranks.replicas()

    def replica_stats(self) -> dict[int, EngineStats]:
        """With `parallel`: each living replica's own counters, by its number. Else empty."""
        return {} if self._ranks is None else self._ranks.stats()

    def restart_replica(self, replica_id: int) -> None:
        """Start one of several replicas anew, dead or alive; the others go on meanwhile.

        Raises ConfigError where there are no replicas, and whatever starting raises.
        """
        restart = getattr(self._client, "restart", None)
        if restart is None:
            raise ConfigError("this model has no replicas to restart: load it again")
        restart(replica_id)

    def restart_stopped(self) -> list[int]:
        """Start anew what has died: of several replicas those, beside the others, else the whole. Their numbers.

        Raises whatever starting raises.
        """
        if not self._finalizer.alive:
            # Unloaded, not dead.
            return []
        if self.parallel is not None and self.parallel.shape.data > 1:
            stopped = [replica.replica_id for replica in self.replicas() if not replica.is_alive]
            for replica_id in stopped:
                self.restart_replica(replica_id)
            return stopped
        if self.is_loaded:
            return []
        self.restart()
        return [0]

    def replica_counts(self) -> dict[str, int]:
        """With `cluster`: replicas by their state, such as RUNNING or STARTING. Else empty."""
        return {} if self._application is None else self._application.replica_counts()

    def make_room(self) -> bool:
        """With `cluster`: see that another model's replica finds room beside this one's, by ending one of several where
        the cluster is full. False where only `unload()` makes room, as on one machine.
        """
        return self._application is not None and self.is_loaded and self._application.make_room()

    def reclaim_room(self) -> None:
        """Undo `make_room()`."""
        if self._application is not None and self.is_loaded:
            self._application.reclaim_room()

    def select_backend(self, prefer_gpu: bool) -> Backend:
        """The backend that would be used here; the loaded model stays where it is."""
        return select_backend(prefer_gpu).backend

    def serve(self, **options: Any) -> Endpoint:
        """Serve this model to OpenAI clients from this process; returns once requests are answered.

        `options` are those of `workbench.server.serve`, such as `port=0` or `requests_per_minute=60`. Serving again
        gives the running endpoint, or takes its place if the options differ. `endpoint.stop()` ends it.
        """
        # The one import that points up: a notebook looks for the server here, and only a call loads it.
        from workbench.server import serve

        return serve(self, **options)

    def stats(self) -> EngineStats:
        """Figures of the running engine: batch, queue, KV blocks, token counters."""
        return self._client.stats()

    def requests(self) -> list[RequestInFlight]:
        """What waits or runs now, oldest first, whichever surface asked for it."""
        return self._client.in_flight()

    def abort(self, request_id: str) -> None:
        """Stop a request, whoever made it; its caller gets what has come. Unknown and finished ids are ignored."""
        self._client.abort(request_id)

    @property
    def plan(self) -> Plan | None:
        """What was predicted before loading; None with `check_plan=False` and for a model that cannot be planned."""
        return None if self._record is None else self._record.plan

    @property
    def answers(self) -> RequestLog:
        """Every answer so far as a row, with histograms; `answers.to_dataframe()` for pandas."""
        return self._client.requests

    def comparison(self) -> Comparison:
        """Predicted beside measured: memory, tokens/s, time to the first token. It is kept for later plans.

        Raises ConfigError where there is no plan.
        """
        if self._record is None:
            raise ConfigError("there is no plan to compare with: load with check_plan=True")
        return self._record.comparison()

    def memory_owners(self) -> MemoryOwners:
        """The device's memory by owner; the parts add up to what is in use there."""
        return self._memory.owners(self.weight_bytes, self.limits)

    def profile(
        self, prompt: Prompt | None = None, *, batch: int = 1, max_tokens: int = 32, operations: bool = True
    ) -> StepProfile:
        """Where the time of each step goes, while `batch` copies of a prompt are answered.

        `prompt` is text or token ids; None takes 128 tokens. The split is timed by itself; with `operations` the same
        is answered once more under torch's profiler, for its operations, a flame graph and a trace. Other requests
        that run meanwhile are in the recording too.
        """
        ids = profiled_prompt(self.spec.vocab_size) if prompt is None else self._encode(prompt, None)
        return record_profile(self._client, self.submit, ids, batch=batch, max_tokens=max_tokens, operations=operations)

    def get_backend_info(self) -> dict[str, object]:
        """The documented keys (`backend_type`, `model_path`, `prefer_gpu`, `auto_detect_aws`, `aws_instance`, and on
        EC2 GPU instances `aws_gpu_info`), and what was chosen with the reasons."""
        info: dict[str, object] = {
            "backend_type": type(self.backend).__name__,
            "model_path": self.model_path,
            "prefer_gpu": self.prefer_gpu,
            "auto_detect_aws": self.auto_detect_aws,
            **(_aws_facts() if self.auto_detect_aws else {"aws_instance": False}),
            "device": self.backend.torch_device(self.device_index),
            "backend_reason": self.backend_reason,
            "dtype": self.dtype,
            "dtype_reason": self.dtype_reason,
            "quantization": self.quantization.quantization_type.value if self.quantization else None,
            "runner": self.runner_reason,
            "draft_model": None if self.draft is None else self.draft.name,
            "isolation": self.isolation,
            "isolation_reason": self.isolation_reason,
            "max_context": self.max_context,
            "limits_reasons": dict(self.limits.reasons),
        }
        if self.parallel is not None:
            info.update(parallel=str(self.parallel.strategy.value), degraded_reason=self.degraded_reason)
        return info

    def get_memory_usage(self) -> dict[str, object]:
        """Memory in MiB: the backend's documented keys, and what weights and KV pool take (0 after `unload()`)."""
        usage = dict(self.backend.get_memory_usage())
        loaded = self.is_loaded
        usage["weights_mb"] = self.weight_bytes / 1024**2 if loaded else 0.0
        usage["kv_cache_mb"] = self.limits.kv_bytes / 1024**2 if loaded else 0.0
        return usage

    def unload(self) -> dict[str, int]:
        """Stop the engine and free the model. Returns the bytes given back per device; {} if already unloaded.

        What a process of the engine's own held is in it. Requests in flight end with EngineStoppedError. Afterwards
        every method that needs the model raises it; `restart()` loads it again.
        """
        if not self._finalizer.alive:
            return {}
        device = self.backend.torch_device(self.device_index)
        with_the_process = self._memory.elsewhere_by_device()
        before = self._memory.here_bytes()
        self._finalizer()
        self._tokenizer = None
        release(self.backend)
        freed = {device: max(0, before - self._memory.here_bytes())}
        for name, num_bytes in with_the_process.items():
            freed[name] = freed.get(name, 0) + num_bytes
        return freed

    def restart(self, progress: ProgressCallback | None = None) -> None:
        """Load the same model again with the same settings, after an unload or when its engine died.

        A running engine is stopped first. Raises what loading raises; the files are not looked for again.
        """
        self.unload()
        guard = self._new_guard() if self._checks_plan else None
        with _shown(progress) as report:
            running = self._start.run(self.plugins, report)
        self._take(running, guard)

    def __enter__(self) -> LlamaGPU:
        return self

    def __exit__(self, *_: object) -> None:
        self.unload()

    def twin(self) -> Twin:
        """What is loaded, without figures of the machine."""
        rows = (
            ("model", self.model_path),
            ("backend", self.backend.name),
            ("weights", self.precision),
            ("context", f"{self.max_context} tokens"),
            ("state", "loaded" if self.is_loaded else "unloaded"),
        )
        return Twin("LlamaGPU", rows)

    def __repr__(self) -> str:
        state = "" if self.is_loaded else ", unloaded"
        return f"LlamaGPU({self.model_path!r}, backend={self.backend.name!r}, quant_type={self.precision!r}{state})"


@contextmanager
def _shown(progress: ProgressCallback | None) -> Iterator[ProgressCallback]:
    """The caller's way of showing progress, else ours."""
    if progress is not None:
        yield progress
        return
    with ProgressDisplay(lines_after_s=_LINES_AFTER_S) as display:
        yield display


def _engine_config(
    engine: EngineConfig | None, context_length: int | None, draft_model: str | Path | None
) -> EngineConfig:
    draft_name = None if draft_model is None else str(draft_model)
    if engine is None:
        return EngineConfig(context_length=context_length, draft_model=draft_name)
    if context_length is not None:
        raise ConfigError("context_length is given beside engine: set EngineConfig(context_length=...) instead")
    if draft_name is None:
        return engine
    if engine.draft_model is not None:
        raise ConfigError("draft_model is given beside engine, which has one too: give one of the two")
    return replace(engine, draft_model=draft_name)


def _stand_in_engine(asked: EngineConfig, context_length: int) -> EngineConfig:
    """Of what was asked for, how the engine runs, and nothing that was sized for the other model."""
    return EngineConfig(
        context_length=context_length,
        enable_prefix_caching=asked.enable_prefix_caching,
        native_kernels=asked.native_kernels,
        isolation=asked.isolation,
        serve_at_once=asked.serve_at_once,
    )


def _choose_cache(cache: QuantizationCache | bool | None) -> QuantizationCache | None:
    if cache is False:
        return None
    return QuantizationCache() if cache is None or cache is True else cache


def _note_run(record: LoadRecord, status: RunnerStatus, row: RequestRow) -> None:
    """Have plans learn from an answer, unless some of it came while a faster way to compute was being prepared."""
    if not status.is_provisional and row.submitted_at >= status.final_at:
        record.finished(row)


def _stop(
    client: EngineClient | PooledClient, record: LoadRecord | None, plugins: PluginManager, name: str, device: str
) -> None:
    client.stop()
    if record is not None:
        record.save()
    plugins.events.dispatch("engine_stop", name=name, device=device)


def _aws_facts() -> dict[str, object]:
    from workbench.aws import get_aws_gpu_info, get_aws_instance_type

    if get_aws_instance_type() is None:
        return {"aws_instance": False}
    gpu = get_aws_gpu_info()
    return {"aws_instance": True, **({"aws_gpu_info": gpu} if gpu else {})}
