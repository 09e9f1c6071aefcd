"""The engine's knobs, and the values they resolve to once model and device are known. Knows no torch."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from workbench.errors import ConfigError, OutOfMemoryError

__all__ = [
    "OVER_SEVERAL_DEVICES",
    "EngineConfig",
    "EngineLimits",
    "cpu_pool_bytes",
    "refuse_drafts",
    "resolve_limits",
    "wanted_context",
]

_MIB = 1024**2
_MOST_THREADS = 1024
# Measured on two cores with the native kernels, whose attention uses the vector units only.
_CPU_DOUBLING_CONTEXT = 512
# As vLLM's examples and transformers' assisted generation have about as many.
_DRAFT_MODEL_TOKENS = 5
# Rows that a step computes at most while some of them are guesses: beyond, a row costs about what it could save. On an
# H200 a step of 64 rows takes 1.5 times as long as one of one row.
_CPU_DRAFT_ROWS, _GPU_DRAFT_ROWS = 32, 64
# Why nothing is guessed ahead there.
OVER_SEVERAL_DEVICES = "a model over several devices guesses nothing ahead"


@dataclass(frozen=True)
class EngineConfig:
    """What a caller may set; None means "choose for this model and device".

    Attributes:
        context_length: most tokens (prompt and answer) of one request. Smaller saves KV memory.
        kv_cache_bytes: size of the KV pool. Default: on CPU 512 MiB or one full context, whichever is larger;
            on a GPU `memory_fraction` of the device, less what is in use after a warm-up step.
        kv_cache_tokens: the same in tokens; give one of the two.
        kv_dtype: "fp8" keeps keys and values in 8 bits (e4m3, no scales): twice the tokens in the same memory, and less
            to read at long contexts; a GPU with Triton only. Default: the model's own precision.
        memory_fraction: share of a GPU's memory that weights, KV pool and workspace may take together.
        block_size: tokens per KV block. Smaller wastes less and matches prefixes finer, larger costs less bookkeeping.
        max_num_seqs: most requests in one batch.
        max_num_batched_tokens: most tokens computed in one step. Larger fills the device better.
        max_prompt_tokens_beside_decodes: most prompt tokens computed in a step that also serves running streams:
            it bounds the pause that a long new prompt causes in them. Left out, a GPU computes 1,024 tokens in such a
            step, and a sixteenth of those that wait where that is more: a queue is worked off sooner.
        enable_prefix_caching: reuse the KV blocks of prompts that begin alike.
        num_threads: CPU threads for the model; default is the number of physical cores this process may use.
        native_kernels: on a CPU, compute with this package's own kernels where it has the instructions and a compiler;
            false keeps to torch's operators, which are several times slower.
        serve_at_once: answer with torch's operators as soon as the weights are loaded, and with the faster kernels from
            the step after they are compiled (on a GPU: and captured); false makes the load wait for them.
        cpu_offload_layers: the weights of so many decoder layers stay in the host's memory, where a model does not fit
            the GPU, and are copied there for each step (by accelerate): slow, since every token waits for the copies.
        draft_tokens: most tokens of each answer that are guessed ahead in a step, from what followed the same tokens
            before, and checked in one pass: the text stays the same to the bit, and text that repeats itself or its
            prompt comes in fewer passes. On a GPU only where that is expected to gain, by what was measured so far (and
            in bf16 a tie may fall the other way). 0 for none. Default: none, and 5 with a draft model.
        draft_model: a smaller model with the same vocabulary that guesses those tokens instead, any that could be
            loaded by itself; from a .gguf file its weights stay packed on a CPU, else they have the model's
            precision. It guesses only as long as that brings more tokens a second.
        engine_name: "paged"; "vllm" where that is installed, for models that outgrow a machine; or an engine that a
            plugin brings.
        isolation: "process" runs the engine in a process of its own: a busy notebook cell does not slow it, a crash of
            it leaves the notebook alone, and unloading gives back every byte; it starts some seconds later. "thread"
            runs it here. Default: a process on a GPU, a thread on a CPU; for each whole copy of a model over several
            devices a process on either.
    """

    context_length: int | None = None
    kv_cache_bytes: int | None = None
    kv_cache_tokens: int | None = None
    kv_dtype: str | None = None
    memory_fraction: float = 0.9
    block_size: int = 16
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    max_prompt_tokens_beside_decodes: int | None = None
    enable_prefix_caching: bool = True
    num_threads: int | None = None
    native_kernels: bool = True
    serve_at_once: bool = True
    cpu_offload_layers: int | None = None
    draft_tokens: int | None = None
    draft_model: str | None = None
    engine_name: str = field(default="paged", metadata={"flags": ("--engine",)})
    isolation: str | None = None

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if one.name in ("enable_prefix_caching", "native_kernels", "serve_at_once"):
                if not isinstance(value, bool):
                    raise ConfigError(f"{one.name}={value!r}: must be true or false")
                continue
            if one.name == "kv_dtype" and value not in (None, "fp8"):
                raise ConfigError(f"kv_dtype={value!r}: must be 'fp8', or None for the model's own precision")
            if one.name == "engine_name" and (not isinstance(value, str) or not value):
                raise ConfigError(f"engine_name={value!r}: must be a name, such as 'paged'")
            if one.name == "isolation" and value not in (None, "thread", "process"):
                raise ConfigError(f"isolation={value!r}: must be 'thread' or 'process', or None to choose")
            if one.name == "draft_model" and value is not None and (not isinstance(value, str) or not value.strip()):
                raise ConfigError(f"draft_model={value!r}: must be a model's name, such as 'org/name', or None")
            if one.name in ("memory_fraction", "engine_name", "kv_dtype", "isolation", "draft_model") or value is None:
                continue
            least = 0 if one.name == "draft_tokens" else 1
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ConfigError(f"{one.name}={value!r}: must be an integer of at least {least}")
            if one.name == "num_threads" and value > _MOST_THREADS:
                raise ConfigError(f"num_threads={value}: at most {_MOST_THREADS}")
        fraction = self.memory_fraction
        if isinstance(fraction, bool) or not isinstance(fraction, int | float) or not 0 < fraction <= 1:
            raise ConfigError(f"memory_fraction={self.memory_fraction!r}: must be above 0 and at most 1")
        if self.draft_tokens == 0 and self.draft_model is not None:
            raise ConfigError(f"draft_tokens=0 and draft_model={self.draft_model!r}: give one of the two")
        if self.kv_cache_bytes is not None and self.kv_cache_tokens is not None:
            raise ConfigError("kv_cache_bytes and kv_cache_tokens are both set: give one of the two")


@dataclass(frozen=True)
class EngineLimits:
    """The knobs with every None decided, and why.

    `max_context` is in tokens, `kv_bytes` is the whole pool (a draft model's too), `reasons` maps a field to the words
    that explain it. A step with guesses computes at most `draft_rows` tokens.
    With `chunks_grow`, more prompt tokens than `max_prompt_tokens_beside_decodes` are computed beside decodes where
    many wait.
    A prompt's token costs twice as much behind `doubling_context_tokens` of context, and chunks beside running streams
    shrink accordingly; None: they do not.
    """

    max_context: int
    block_size: int
    num_blocks: int
    kv_bytes: int
    max_num_seqs: int
    max_num_batched_tokens: int
    max_prompt_tokens_beside_decodes: int
    enable_prefix_caching: bool
    reasons: dict[str, str]
    draft_tokens: int = 0
    draft_rows: int = 32
    doubling_context_tokens: int | None = None
    chunks_grow: bool = False


def resolve_limits(
    config: EngineConfig, *, on_gpu: bool, model_max_context: int, kv_bytes_per_token: int, free_bytes: int
) -> EngineLimits:
    """Decide every knob for a model that is loaded; `free_bytes` is what the KV pool may take at most.

    Raises OutOfMemoryError when not even a small pool fits, ConfigError when `context_length` exceeds the model's.
    """
    reasons: dict[str, str] = {}
    context = wanted_context(config, model_max_context)
    bytes_per_block = kv_bytes_per_token * config.block_size
    num_blocks = _num_blocks(config, on_gpu, context, bytes_per_block, free_bytes, reasons)
    capacity = num_blocks * config.block_size
    if capacity < context:
        reasons["max_context"] = f"the KV pool holds {capacity} tokens, the model allows {context}"
    max_num_batched_tokens = config.max_num_batched_tokens or (8192 if on_gpu else 512)
    beside_decodes = config.max_prompt_tokens_beside_decodes or (1024 if on_gpu else 256)
    return EngineLimits(
        max_context=min(context, capacity),
        block_size=config.block_size,
        num_blocks=num_blocks,
        kv_bytes=num_blocks * bytes_per_block,
        max_num_seqs=config.max_num_seqs or (256 if on_gpu else 32),
        max_num_batched_tokens=max_num_batched_tokens,
        max_prompt_tokens_beside_decodes=min(beside_decodes, max_num_batched_tokens),
        enable_prefix_caching=config.enable_prefix_caching,
        reasons=reasons,
        draft_tokens=config.draft_tokens or (0 if config.draft_model is None else _DRAFT_MODEL_TOKENS),
        draft_rows=_GPU_DRAFT_ROWS if on_gpu else _CPU_DRAFT_ROWS,
        doubling_context_tokens=None if on_gpu else _CPU_DOUBLING_CONTEXT,
        chunks_grow=on_gpu and config.max_prompt_tokens_beside_decodes is None,
    )


def refuse_drafts(config: EngineConfig, reason: str) -> None:
    """Raises ConfigError with the reason where tokens are to be guessed ahead, by whatever."""
    for name in ("draft_tokens", "draft_model"):
        value = getattr(config, name)
        if value:
            raise ConfigError(f"{name}={value!r}: {reason}; leave it out")


def wanted_context(config: EngineConfig, model_max_context: int) -> int:
    """Most tokens of a request, in tokens. Raises ConfigError for more than the model was trained for."""
    if config.context_length is None:
        return model_max_context
    if config.context_length > model_max_context:
        raise ConfigError(
            f"context_length={config.context_length}: the model was trained for at most {model_max_context} tokens"
        )
    return config.context_length


def cpu_pool_bytes(one_context_bytes: int, free_bytes: int) -> int:
    """The size of a KV pool on a CPU if nobody says one: 512 MiB or one full context, at most half of what is free."""
    return min(max(512 * _MIB, one_context_bytes), free_bytes // 2)


def _num_blocks(
    config: EngineConfig,
    on_gpu: bool,
    context: int,
    bytes_per_block: int,
    free_bytes: int,
    reasons: dict[str, str],
) -> int:
    one_context = -(-context // config.block_size) * bytes_per_block
    if config.kv_cache_tokens is not None:
        wanted, reasons["kv_bytes"] = -(-config.kv_cache_tokens // config.block_size) * bytes_per_block, "as asked"
    elif config.kv_cache_bytes is not None:
        wanted, reasons["kv_bytes"] = config.kv_cache_bytes, "as asked"
    elif on_gpu:
        wanted, reasons["kv_bytes"] = free_bytes, f"{config.memory_fraction:.0%} of the device, less what is in use"
    else:
        wanted = cpu_pool_bytes(one_context, free_bytes)
        reasons["kv_bytes"] = "512 MiB or one full context, at most half of the free memory"
    if config.kv_cache_bytes is not None and wanted < bytes_per_block <= free_bytes:
        block = f"one block of {config.block_size} tokens takes {bytes_per_block:,} bytes"
        raise ConfigError(f"kv_cache_bytes={wanted}: must be more, since {block}")
    if wanted > free_bytes or wanted < bytes_per_block:
        raise OutOfMemoryError(
            f"the KV pool needs {max(wanted, bytes_per_block) / _MIB:,.0f} MiB, "
            f"and {free_bytes / _MIB:,.0f} MiB are free"
            + (f" within memory_fraction={config.memory_fraction:g}" if on_gpu else ""),
            needed_bytes=max(wanted, bytes_per_block),
            free_bytes=free_bytes,
            would_fit=_what_would_fit(free_bytes, bytes_per_block, config.block_size, context),
        )
    return wanted // bytes_per_block


def _what_would_fit(free_bytes: int, bytes_per_block: int, block_size: int, context: int) -> tuple[str, ...]:
    tokens = free_bytes // bytes_per_block * block_size
    if not tokens:
        return ("a smaller model",)
    # A pool may hold more than one request's context, and no request more than the model's.
    return (f"kv_cache_tokens={tokens}", f"context_length={min(tokens, context)}")
