"""Starts vLLM's AsyncLLM for checked model files and gives a client to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from workbench.backends import dtype_bytes, get_backend
from workbench.engine.client import EngineClient
from workbench.engine.config import EngineConfig, EngineLimits, cpu_pool_bytes, wanted_context
from workbench.engine.launch import EngineFacts, EngineLaunch
from workbench.engine.request_plugins import RequestPlugins
from workbench.engine.runner_status import RunnerStatus
from workbench.engine.vllm.availability import vllm_obstacle
from workbench.engine.vllm.core import VLLMCore
from workbench.errors import BackendUnavailableError, ConfigError
from workbench.models import ModelFiles, ModelSpec, Tokenizer
from workbench.models.doors_tokenizer import load_doors_tokenizer
from workbench.models.loader import load_shell
from workbench.plugins import PluginManager

__all__ = ["StartedVLLM", "VLLMShape", "engine_arguments", "start_vllm"]

# Settings of ours that it has not, all of them None where they are left out; 0 asks for nothing either.
_NOT_VLLMS = (
    "num_threads",
    "cpu_offload_layers",
    "draft_tokens",
    "draft_model",
    "max_prompt_tokens_beside_decodes",
)
_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


@dataclass(frozen=True)
class VLLMShape:
    """Over how many GPUs vLLM spreads the model; with `on_ray` they may be of several machines, and Ray chooses them.

    `device_indexes` are torch's numbers of this machine's, one per rank; empty: the first ones.
    """

    tensor: int = 1
    pipeline: int = 1
    on_ray: bool = False
    device_indexes: tuple[int, ...] = ()

    @property
    def device_ids(self) -> list[int] | None:
        """What to tell vLLM, which takes the first ones by itself."""
        chosen = list(self.device_indexes)
        return None if self.on_ray or chosen == list(range(len(chosen))) else chosen


@dataclass(frozen=True)
class StartedVLLM:
    """A client to the running engine and what is known of it."""

    client: EngineClient
    facts: EngineFacts
    tokenizer: Tokenizer
    runner_status: RunnerStatus


def engine_arguments(launch: EngineLaunch, shape: VLLMShape, spec: ModelSpec) -> dict[str, Any]:
    """Fields of vLLM's AsyncEngineArgs. Raises ConfigError for settings that it has not."""
    files, config = launch.files, launch.config
    _check(files, launch, config)
    arguments: dict[str, Any] = {
        "model": str(files.path),
        "dtype": _DTYPES[launch.dtype],
        "max_model_len": config.context_length,
        "gpu_memory_utilization": config.memory_fraction,
        "kv_cache_memory_bytes": _kv_bytes(launch, shape, spec),
        "kv_cache_dtype": config.kv_dtype,
        # Left to vLLM, which knows what its attention wants, unless somebody chose.
        "block_size": config.block_size if config.block_size != EngineConfig.block_size else None,
        "max_num_seqs": config.max_num_seqs,
        "max_num_batched_tokens": config.max_num_batched_tokens,
        "enable_prefix_caching": config.enable_prefix_caching,
        "trust_remote_code": files.trust_remote_code,
        "tensor_parallel_size": shape.tensor,
        "pipeline_parallel_size": shape.pipeline,
        "distributed_executor_backend": "ray" if shape.on_ray else None,
        "device_ids": None if launch.backend_name == "cpu" else shape.device_ids,
        # Statistics are counted here.
        "disable_log_stats": True,
    }
    return {name: value for name, value in arguments.items() if value is not None}


def start_vllm(
    launch: EngineLaunch,
    plugins: PluginManager,
    shape: VLLMShape | None = None,
    library: Any = None,
    after_stop: Callable[[], None] | None = None,
) -> StartedVLLM:
    """Have vLLM load the model; blocks until it serves. `library` is the vllm package (None: imported).

    `after_stop` is called once the client has been stopped.

    Raises BackendUnavailableError where it is not installed or does not start, and ConfigError for settings that it
    has not.
    """
    shape = shape or VLLMShape(device_indexes=(launch.device_index,))
    library = library or _import_vllm()
    # The facts of the model, without its weights.
    loaded = load_shell(launch.files, dtype=launch.dtype)
    arguments = engine_arguments(launch, shape, loaded.spec)
    try:
        core = VLLMCore(
            library,
            lambda: library.AsyncLLMEngine.from_engine_args(library.AsyncEngineArgs(**arguments)),
            loaded.weight_bytes,
            after_stop,
        )
    except (RuntimeError, ValueError, TypeError) as error:
        raise BackendUnavailableError(f"vllm did not start: {error}") from error
    limits = _limits(core.engine, launch.config)
    client = EngineClient(
        core.connect,
        max_context=limits.max_context,
        vocab_size=loaded.spec.vocab_size,
        plugins=RequestPlugins(plugins),
    )
    words = f"vllm {library.__version__}, {shape.pipeline} stages of {shape.tensor} tensor ranks"
    facts = EngineFacts.of(loaded, limits)
    return StartedVLLM(client, facts, load_doors_tokenizer(launch.files), RunnerStatus(words))


def _import_vllm() -> Any:
    obstacle = vllm_obstacle()
    if obstacle is not None:
        raise BackendUnavailableError(f"engine_name='vllm': {obstacle}")
    import vllm
    import vllm.sampling_params
    import vllm.v1.engine.exceptions

    return vllm


def _check(files: ModelFiles, launch: EngineLaunch, config: EngineConfig) -> None:
    if files.path is None:
        raise ConfigError(f"{files.name}: the vllm engine reads a model's files, and this one is made here")
    if launch.quantization is not None:
        raise ConfigError("quant_type: the vllm engine takes weights as their files have them; leave it out")
    for name in _NOT_VLLMS:
        if getattr(config, name):
            raise ConfigError(f"{name}={getattr(config, name)!r}: the vllm engine has no such setting; leave it out")


def _kv_bytes(launch: EngineLaunch, shape: VLLMShape, spec: ModelSpec) -> int | None:
    """The size of its cache on each device; None leaves it to the memory's fraction.

    On a CPU it has a size always: of the fraction vLLM wants all to be free, whoever else uses the machine.
    """
    config = launch.config
    element_bytes = 1 if config.kv_dtype == "fp8" else dtype_bytes(launch.dtype)
    token_bytes = 2 * spec.num_layers * spec.num_kv_heads * spec.head_dim * element_bytes
    pool_bytes = config.kv_cache_bytes
    if config.kv_cache_tokens is not None:
        pool_bytes = config.kv_cache_tokens * token_bytes
    elif pool_bytes is None and launch.backend_name == "cpu" and not shape.on_ray:
        context_bytes = wanted_context(config, spec.max_context) * token_bytes
        pool_bytes = cpu_pool_bytes(context_bytes, get_backend("cpu").memory().free_bytes)
    return None if pool_bytes is None else pool_bytes // (shape.tensor * shape.pipeline)


def _limits(engine: Any, config: EngineConfig) -> EngineLimits:
    """As vLLM decided them; the size of its cache in bytes it does not tell."""
    vllm_config = engine.vllm_config
    scheduler = vllm_config.scheduler_config
    return EngineLimits(
        max_context=vllm_config.model_config.max_model_len,
        block_size=vllm_config.cache_config.block_size or config.block_size,
        num_blocks=vllm_config.cache_config.num_gpu_blocks or 0,
        kv_bytes=0,
        max_num_seqs=scheduler.max_num_seqs,
        max_num_batched_tokens=scheduler.max_num_batched_tokens,
        max_prompt_tokens_beside_decodes=scheduler.max_num_batched_tokens,
        enable_prefix_caching=config.enable_prefix_caching,
        reasons={"all": "as vllm decided"},
    )
