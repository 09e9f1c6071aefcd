"""vLLM as far as its documented interface is used here, with a model of bytes behind it, for machines without it.

Names, fields and behaviour are those of AsyncLLM, RequestOutput, CompletionOutput and SamplingParams of 0.29 and later:
deltas per step, several answers by index in one RequestOutput, the final one with `finished`, EngineDeadError for all
requests once the engine is dead, ValueError for what it refuses, the end of a request whose generator is closed.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from dataclasses import dataclass, field
from types import SimpleNamespace

__version__ = "0.29.0"


class EngineDeadError(Exception):
    pass


class VLLMValidationError(ValueError):
    pass


class RequestOutputKind:
    CUMULATIVE, DELTA, FINAL_ONLY = range(3)


@dataclass
class StructuredOutputsParams:
    json: str | None = None
    regex: str | None = None
    grammar: str | None = None
    json_object: bool | None = None


@dataclass
class SamplingParams:
    n: int = 1
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: list[str] | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool = False
    max_tokens: int | None = 16
    min_tokens: int = 0
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    skip_special_tokens: bool = True
    output_kind: int = RequestOutputKind.CUMULATIVE
    structured_outputs: StructuredOutputsParams | None = None
    logit_bias: dict[int, float] | None = None

    def __post_init__(self) -> None:
        if self.max_tokens is not None and self.max_tokens < 1:
            raise VLLMValidationError("max_tokens must be at least 1")


@dataclass
class AsyncEngineArgs:
    model: str
    dtype: str = "auto"
    max_model_len: int | None = None
    gpu_memory_utilization: float = 0.92
    kv_cache_memory_bytes: int | None = None
    kv_cache_dtype: str = "auto"
    block_size: int | None = None
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    enable_prefix_caching: bool | None = None
    trust_remote_code: bool = False
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    distributed_executor_backend: str | None = None
    device_ids: list[int] | None = None
    disable_log_stats: bool = False


@dataclass
class Logprob:
    logprob: float
    rank: int | None = None
    decoded_token: str | None = None


@dataclass
class CompletionOutput:
    index: int
    text: str
    token_ids: list[int]
    cumulative_logprob: float | None = None
    logprobs: list[dict[int, Logprob]] | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None


@dataclass
class RequestOutput:
    request_id: str
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]
    finished: bool
    prompt_logprobs: list | None = None
    num_cached_tokens: int | None = None


@dataclass
class _Growing:
    """One answer: `pending` is text held back for a stop string."""

    tokens: list[int] = field(default_factory=list)
    pending: str = ""
    is_over: bool = False


class AsyncLLMEngine:
    """Tokens are bytes from a hash of seed, answer and what came before."""

    def __init__(self, arguments: AsyncEngineArgs) -> None:
        # As the real one, it takes the event loop that runs.
        self._loop = asyncio.get_running_loop()
        self.arguments = arguments
        self.errored = False
        self.aborted: list[str] = []
        self.is_shut_down = False
        self.gate = asyncio.Event()
        self.gate.set()
        self.vllm_config = SimpleNamespace(
            model_config=SimpleNamespace(max_model_len=arguments.max_model_len or 512),
            cache_config=SimpleNamespace(block_size=16, num_gpu_blocks=1000),
            scheduler_config=SimpleNamespace(max_num_seqs=arguments.max_num_seqs or 256, max_num_batched_tokens=2048),
        )

    @classmethod
    def from_engine_args(cls, arguments: AsyncEngineArgs) -> AsyncLLMEngine:
        return cls(arguments)

    def shutdown(self) -> None:
        self.is_shut_down = True

    def die(self) -> None:
        """For tests: the engine's process is gone."""
        self.errored = True
        self._loop.call_soon_threadsafe(self.gate.set)

    async def generate(self, prompt: dict, sampling_params: SamplingParams, request_id: str):
        if self.errored:
            raise EngineDeadError
        ids = prompt["prompt_token_ids"]
        if len(ids) >= self.vllm_config.model_config.max_model_len:
            raise VLLMValidationError("The decoder prompt is longer than the maximum model length")
        answers = [_Growing() for _ in range(sampling_params.n)]
        is_first = True
        try:
            while not all(answer.is_over for answer in answers):
                await self.gate.wait()
                await asyncio.sleep(0)
                if self.errored:
                    raise EngineDeadError
                grown = [(i, answer) for i, answer in enumerate(answers) if not answer.is_over]
                parts = [self._step(i, answer, ids, sampling_params) for i, answer in grown]
                finished = all(answer.is_over for answer in answers)
                output = RequestOutput(request_id, ids, parts, finished, num_cached_tokens=0)
                if sampling_params.prompt_logprobs is not None:
                    rows = [None, *(_row(i, sampling_params.prompt_logprobs) for i in ids[1:])]
                    # As the real one: whole with the first output, an empty list with every later one.
                    output.prompt_logprobs = rows if is_first else []
                is_first = False
                yield output
        except (asyncio.CancelledError, GeneratorExit):
            self.aborted.append(request_id)
            raise

    def _step(self, index: int, answer: _Growing, ids: list[int], params: SamplingParams) -> CompletionOutput:
        token = _next_token(index, [*ids, *answer.tokens], params)
        answer.tokens.append(token)
        answer.pending += chr(token)
        part = CompletionOutput(index, "", [token])
        if params.logprobs is not None:
            part.logprobs = [_row(token, params.logprobs)]
        found = [stop for stop in params.stop or [] if stop in answer.pending]
        if found:
            part.text, part.finish_reason, part.stop_reason = answer.pending.partition(found[0])[0], "stop", found[0]
        elif len(answer.tokens) == params.max_tokens:
            part.text, part.finish_reason = answer.pending, "length"
        else:
            held = max((len(stop) - 1 for stop in params.stop or []), default=0)
            part.text = answer.pending[: len(answer.pending) - held] if held else answer.pending
            answer.pending = answer.pending[len(part.text) :]
        answer.is_over = part.finish_reason is not None
        return part


def _next_token(index: int, before: list[int], params: SamplingParams) -> int:
    choice = (params.seed, index) if params.temperature else None
    digest = hashlib.sha256(repr((choice, before)).encode()).digest()
    return ord("a") + digest[0] % 26


def _row(token: int, num_top: int) -> dict[int, Logprob]:
    row = {(token + i) % 256: Logprob(math.log(0.5 / (i + 1)), i + 1) for i in range(max(num_top, 1))}
    return row


sampling_params = SimpleNamespace(StructuredOutputsParams=StructuredOutputsParams, RequestOutputKind=RequestOutputKind)
v1 = SimpleNamespace(engine=SimpleNamespace(exceptions=SimpleNamespace(EngineDeadError=EngineDeadError)))
