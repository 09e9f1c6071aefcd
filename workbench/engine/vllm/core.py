"""`VLLMCore`: an engine client's messages for vLLM's `AsyncLLM`, whose loop runs in a thread of this process."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any

from workbench.engine.logprobs import TokenLogprobs
from workbench.engine.messages import (
    Abort,
    Chunk,
    Embed,
    Embedded,
    EngineStats,
    ReadStats,
    Reply,
    Request,
    StartProfile,
    StopProfile,
    Usage,
)
from workbench.engine.sequence import FinishReason
from workbench.engine.vllm.translation import (
    finish_reason,
    prompt_logprobs,
    sampling_fields,
    structure_fields,
    token_logprobs,
)
from workbench.errors import ConfigError, EngineStoppedError, InferenceError, RequestError, WorkbenchError
from workbench.parallel.pump import Pump
from workbench.telemetry import DeviceUsage
from workbench.telemetry.device_usage import UsageReader

__all__ = ["VLLMCore"]

_log = logging.getLogger(__name__)


class VLLMCore:
    """What an EngineClient connects to, as `EngineCore` is; `connect(emit)` says where answers go, in one thread.

    `library` is the vllm package; `make_engine()` makes its AsyncLLM, in the thread whose event loop it then uses;
    `after_stop()` is called once that has been shut down.
    Raises what making it raises.
    """

    def __init__(
        self,
        library: Any,
        make_engine: Callable[[], Any],
        weight_bytes: int = 0,
        after_stop: Callable[[], None] | None = None,
    ) -> None:
        self.end_reason: str | None = None
        # vLLM does not tell which of its processes it was.
        self.ended_process: str | None = None
        self._library = library
        self._weight_bytes = weight_bytes
        self._after_stop = after_stop
        self._emit: Callable[[Reply], None] = lambda message: None
        self._lock = threading.Lock()
        self._is_stopped = False
        self._running: dict[str, tuple[asyncio.Task[Any], _Answers]] = {}
        self._counts: Counter[str] = Counter()
        self._finished: Counter[str] = Counter()
        self._pump = Pump("workbench-vllm")
        made: Future[Any] = Future()
        self._pump.spawn(_fill(made, make_engine))
        try:
            self.engine = made.result()
        except BaseException:
            self._pump.stop()
            raise

    def connect(self, emit: Callable[[Reply], None]) -> VLLMCore:
        """From now on answer there."""
        self._emit = emit
        return self

    @property
    def is_alive(self) -> bool:
        """Whether requests are taken."""
        return not self._is_stopped and self.end_reason is None

    def send(self, message: object) -> None:
        """Take a message in. Raises EngineStoppedError after the end."""
        if isinstance(message, StartProfile | StopProfile):
            raise ConfigError("the vllm engine records no profiles of ours")
        handlers: dict[type, Callable[[Any], Coroutine[Any, Any, None]]]
        handlers = {Request: self._serve, Abort: self._abort, ReadStats: self._tell_stats, Embed: self._refuse_embed}
        if self.end_reason is not None or not self._pump.spawn(handlers[type(message)](message)):
            raise EngineStoppedError(self.end_reason or "the model is unloaded: load it again")

    def stop(self) -> None:
        """End the requests in flight and the engine. Stopping twice is harmless."""
        with self._lock:
            if self._is_stopped:
                return
            self._is_stopped = True
        self._pump.stop()
        self.engine.shutdown()
        if self._after_stop is not None:
            self._after_stop()

    def held_bytes(self, device: str) -> dict[str, int]:
        """Memory of vLLM's own processes, which it does not tell: none."""
        return {}

    def read_usage(self, reader: UsageReader) -> DeviceUsage:
        """A device's memory as this process sees it."""
        return reader.read_usage()

    async def _serve(self, request: Request) -> None:
        answers = _Answers(request)
        task = asyncio.current_task()
        assert task is not None
        self._running[request.request_id] = task, answers
        self._counts["requests"] += 1
        try:
            await self._follow(request, answers)
        except asyncio.CancelledError:
            reason = FinishReason.ABORT if answers.is_aborted else FinishReason.ERROR
            error = None if answers.is_aborted else EngineStoppedError("the engine was stopped")
            self._end(answers, reason, error)
            if not answers.is_aborted:
                raise
        except Exception as error:  # top of a task: whoever waits must hear of it
            self._end(answers, FinishReason.ERROR, self._known(error))
        finally:
            self._running.pop(request.request_id, None)

    async def _follow(self, request: Request, answers: _Answers) -> None:
        params = self._params(request)
        prompt: dict[str, Any] = {"prompt_token_ids": list(request.prompt_token_ids)}
        if request.params.cache_salt:
            prompt["cache_salt"] = request.params.cache_salt
        async for output in self.engine.generate(prompt, params, request.request_id):
            for chunk in answers.take(output):
                self._count(chunk)
                self._emit(chunk)
        # An end without a word is no answer.
        self._end(answers, FinishReason.ERROR, InferenceError("vllm ended the request without a reason"))

    def _params(self, request: Request) -> Any:
        fields = sampling_fields(request)
        if request.params.structure is not None:
            structured = self._library.sampling_params.StructuredOutputsParams
            fields["structured_outputs"] = structured(**structure_fields(request.params.structure))
        kind = self._library.sampling_params.RequestOutputKind.DELTA
        try:
            return self._library.SamplingParams(**fields, output_kind=kind)
        except ValueError as error:
            raise RequestError(f"vllm refuses the settings: {error}") from error

    def _known(self, error: Exception) -> WorkbenchError:
        """The error in our words; that vLLM's own engine is dead ends this one."""
        if isinstance(error, WorkbenchError):
            return error
        if isinstance(error, self._library.v1.engine.exceptions.EngineDeadError) or self.engine.errored:
            self.end_reason = f"the vllm engine died: {str(error).rstrip('.') or type(error).__name__}"
            return EngineStoppedError.of_death(self.end_reason)
        if isinstance(error, ValueError):
            return RequestError(f"vllm refuses the request: {error}")
        _log.error("a request failed in vllm", exc_info=error)
        return InferenceError(f"the request failed in vllm: {error.__cause__ or error}")

    def _end(self, answers: _Answers, reason: FinishReason, error: WorkbenchError | None) -> None:
        for chunk in answers.last_chunks(reason, error):
            self._count(chunk)
            self._emit(chunk)

    def _count(self, chunk: Chunk) -> None:
        self._counts["generated_tokens"] += len(chunk.token_ids)
        if chunk.finish_reason is not None:
            self._finished[chunk.finish_reason.value] += 1
            assert chunk.usage is not None  # the last chunk has it
            self._counts["prompt_tokens"] += chunk.usage.num_prompt_tokens
            self._counts["cached_tokens"] += chunk.usage.num_cached_tokens

    async def _abort(self, message: Abort) -> None:
        running = self._running.get(message.request_id)
        if running is not None:
            task, answers = running
            answers.is_aborted = True
            # vLLM ends a request whose generator is cancelled.
            task.cancel()

    async def _tell_stats(self, message: ReadStats) -> None:
        self._emit(
            EngineStats(
                num_running=len(self._running),
                weight_bytes=self._weight_bytes,
                requests_total=self._counts["requests"],
                requests_finished_total=self._counts["requests"] - len(self._running),
                prompt_tokens_total=self._counts["prompt_tokens"],
                generated_tokens_total=self._counts["generated_tokens"],
                prefix_hit_tokens_total=self._counts["cached_tokens"],
                finished_by_reason=dict(self._finished),
                reply_id=message.reply_id,
            )
        )

    async def _refuse_embed(self, message: Embed) -> None:
        self._emit(Embedded(message.reply_id, error=RequestError("the vllm engine makes no embeddings here")))


class _Answers:
    """The answers to one request as they grow; times are this process's."""

    def __init__(self, request: Request) -> None:
        self.is_aborted = False
        self._request = request
        self._num_tokens = [0] * request.params.n
        self._first_token_s: list[float | None] = [None] * request.params.n
        self._num_cached = 0
        self._prompt_rows: Any = None
        self._scored: set[int] = set()
        self._open = set(range(request.params.n))

    def take(self, output: Any) -> list[Chunk]:
        """What one RequestOutput, with deltas, adds."""
        self._num_cached = output.num_cached_tokens or self._num_cached
        # The prompt's come once, with one of the answers; after them it sends empty lists.
        self._prompt_rows = output.prompt_logprobs or self._prompt_rows
        return [self._chunk(part) for part in output.outputs if part.index in self._open]

    def last_chunks(self, reason: FinishReason, error: WorkbenchError | None) -> list[Chunk]:
        """The ends of the answers that have none yet."""
        ended = sorted(self._open)
        self._open.clear()
        request_id = self._request.request_id
        return [Chunk(request_id, i, finish_reason=reason, usage=self._usage(i), error=error) for i in ended]

    def _chunk(self, part: Any) -> Chunk:
        request, index = self._request, part.index
        wants_tokens = request.params.max_tokens != 0
        token_ids = tuple(part.token_ids) if wants_tokens else ()
        if token_ids and self._first_token_s[index] is None:
            self._first_token_s[index] = time.monotonic()
        self._num_tokens[index] += len(token_ids)
        reason = finish_reason(part.finish_reason)
        chunk = Chunk(
            request.request_id,
            index,
            text=part.text if wants_tokens else "",
            token_ids=token_ids,
            logprobs=token_logprobs(list(token_ids), part.logprobs, request.params.top_logprobs) if token_ids else (),
            prompt_logprobs=self._prompt_logprobs(index),
            finish_reason=reason,
            stop_reason=part.stop_reason,
            usage=self._usage(index) if reason is not None else None,
        )
        # Only now: what cannot be said in our words must still end the answer.
        if reason is not None:
            self._open.discard(index)
        return chunk

    def _prompt_logprobs(self, index: int) -> tuple[TokenLogprobs | None, ...] | None:
        """The prompt's, for an answer that has not had them."""
        if self._prompt_rows is None or index in self._scored:
            return None
        self._scored.add(index)
        return prompt_logprobs(self._request, self._prompt_rows)

    def _usage(self, index: int) -> Usage:
        return Usage(
            num_prompt_tokens=len(self._request.prompt_token_ids),
            num_generated_tokens=self._num_tokens[index],
            num_cached_tokens=self._num_cached,
            submitted_s=self._request.submitted_s,
            first_token_s=self._first_token_s[index],
            finished_s=time.monotonic(),
        )


async def _fill(made: Future[Any], make: Callable[[], Any]) -> None:
    try:
        made.set_result(make())
    except BaseException as error:  # it is the caller's, who waits in another thread
        made.set_exception(error)
