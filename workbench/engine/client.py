"""The doors' side of the engine: checks a request, sends it as a message, hands its output to its caller."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from workbench.engine.generation import Generation
from workbench.engine.messages import (
    Abort,
    Chunk,
    Embed,
    Embedded,
    EngineStats,
    Failed,
    Message,
    Profiled,
    ReadStats,
    Reply,
    Request,
    StartProfile,
    StopProfile,
)
from workbench.engine.request_in_flight import RequestInFlight
from workbench.engine.sampling_params import SamplingParams
from workbench.errors import EngineStoppedError, PromptTooLongError, RequestError
from workbench.mailbox import Mailbox
from workbench.telemetry import DeviceUsage, RequestLog, StepProfile
from workbench.telemetry.device_usage import UsageReader
from workbench.telemetry.recent_rate import RecentRate

if TYPE_CHECKING:
    from workbench.engine.grammar import StructureCompiler
    from workbench.engine.isolation.process_core import ProcessCore
    from workbench.engine.request_plugins import FinishWatch, RequestPlugins

__all__ = ["EngineClient"]

_Question = Embed | ReadStats | StartProfile | StopProfile
_Reply = Embedded | EngineStats | Failed | Profiled
_Answer = TypeVar("_Answer", Embedded, EngineStats, Profiled)


class Core(Protocol):
    """What runs the engine's loop, as its client sees it: an `EngineCore`, in a thread or in another process."""

    @property
    def is_alive(self) -> bool: ...

    @property
    def end_reason(self) -> str | None: ...

    @property
    def ended_process(self) -> str | None: ...

    def send(self, message: Message) -> None: ...

    def stop(self) -> None: ...

    def held_bytes(self, device: str) -> dict[str, int]: ...

    def read_usage(self, reader: UsageReader) -> DeviceUsage: ...


class EngineClient:
    """One engine, many callers: every method may be called from any thread.

    `connect(emit)` starts a core that answers through `emit`, and gives it back. `vocab_size` counts the model's output
    rows, `max_context` is in tokens. `structures` compiles what answers must look like, before the engine sees them;
    `plugins` are asked before and after each request. `requests` has a row for every answer.
    Requests' ids begin with `id_prefix`.
    """

    def __init__(
        self,
        connect: Callable[[Callable[[Reply], None]], Core],
        *,
        max_context: int,
        vocab_size: int,
        structures: StructureCompiler | ProcessCore | None = None,
        plugins: RequestPlugins | None = None,
        id_prefix: str = "req",
    ) -> None:
        self._id_prefix = id_prefix
        self.max_context = max_context
        self.vocab_size = vocab_size
        self.structures = structures
        self.plugins = plugins
        self._ids = itertools.count(1)
        self._lock = threading.Lock()
        self._mailboxes: dict[str, Mailbox[Chunk]] = {}
        self._unfinished: dict[str, int] = {}
        # Requests that were ever started.
        self.requests_total = 0
        self._replies: dict[str, SimpleQueue[_Reply]] = {}
        self._in_flight: dict[str, RequestInFlight] = {}
        self._watches: dict[str, FinishWatch] = {}
        self._stopped = False
        self.requests = RequestLog()
        self._token_rate = RecentRate()
        self._core = connect(self._route)

    @property
    def is_alive(self) -> bool:
        return not self._stopped and self._core.is_alive

    @property
    def death(self) -> EngineStoppedError | None:
        """What requests get since the engine died; None while it runs, and after `stop()`."""
        if self._stopped or self._core.is_alive:
            return None
        return EngineStoppedError.of_death(self._core.end_reason or "the engine has stopped", self._core.ended_process)

    @property
    def tokens_per_s(self) -> float:
        """Tokens generated per second, over the last five."""
        return self._token_rate.per_s()

    def submit(self, prompt_token_ids: Sequence[int], params: SamplingParams) -> Generation:
        """Start a request. Raises RequestError or PromptTooLongError at once, EngineStoppedError after `stop()`."""
        params = self._admitted(prompt_token_ids, params)
        seed = params.seed if params.seed is not None else int.from_bytes(os.urandom(7), "little")
        return self._start(prompt_token_ids, params, seed)

    def resume(self, ended: Generation, prompt_token_ids: Sequence[int], params: SamplingParams) -> Generation:
        """Go on with the request of an engine that has stopped, behind what it sent: with the same seed, so that the
        text is the same.

        Raises RequestError for what cannot be resumed (several answers, plugins that keep a state), and what `submit`
        raises.
        """
        _check_resumable(params)
        # What the prompt scored came with the first token.
        params = replace(self._admitted(prompt_token_ids, params), prompt_logprobs=None)
        return self._start(prompt_token_ids, params, ended.seed, ended)

    def go_on(
        self, prompt_token_ids: Sequence[int], sent_token_ids: Sequence[int], params: SamplingParams
    ) -> Generation:
        """Start a request behind tokens that another engine chose with the same settings; `params.seed` is given.

        Chunks are those that follow. Raises what `submit` raises.
        """
        if sent_token_ids:
            _check_resumable(params)
        params = self._admitted(prompt_token_ids, params)
        if params.seed is None:
            raise RequestError("seed: must be given to go on with an answer")
        return self._start(prompt_token_ids, params, params.seed, sent=tuple(sent_token_ids))

    def _start(
        self,
        prompt_token_ids: Sequence[int],
        params: SamplingParams,
        seed: int,
        resumed: Generation | None = None,
        sent: tuple[int, ...] = (),
    ) -> Generation:
        sent = sent if resumed is None else resumed.token_ids
        request_id = f"{self._id_prefix}-{next(self._ids)}"
        request = Request(request_id, tuple(prompt_token_ids), params, seed, time.monotonic(), sent)
        mailbox: Mailbox[Chunk] = Mailbox()
        filters = self.plugins.filters(params) if self.plugins else None
        watch = self.plugins.watch(request) if self.plugins else None
        with self._lock:
            self._check_alive()
            self._mailboxes[request_id] = mailbox
            self._unfinished[request_id] = params.n
            self._in_flight[request_id] = RequestInFlight(
                request_id, len(prompt_token_ids), params.max_tokens, request.submitted_s, len(sent)
            )
            if watch is not None:
                self._watches[request_id] = watch
            self._core.send(request)
            self.requests_total += 1
            self.requests.begin(request_id, params.n)
        return Generation(request_id, params.n, seed, mailbox, self.abort, filters, resumed)

    def abort(self, request_id: str) -> None:
        """Stop a request. Unknown and finished ids are ignored."""
        if self.is_alive:
            with contextlib.suppress(EngineStoppedError):  # it stopped just now, and with it the request
                self._core.send(Abort(request_id))

    def in_flight(self) -> list[RequestInFlight]:
        """The requests that wait or run, oldest first, with how far they are."""
        with self._lock:
            return [replace(request) for request in self._in_flight.values()]

    def stats(self, timeout_s: float = 30.0) -> EngineStats:
        """The engine's figures, read between two steps."""
        return self._ask(ReadStats(f"stats-{next(self._ids)}"), EngineStats, timeout_s)

    def embed(self, prompt_token_ids: Sequence[int], timeout_s: float = 600.0) -> tuple[float, ...]:
        """One text's embedding, computed between two steps. Raises what `submit` would, and RequestError for a model
        that makes none."""
        self.check_embeddable(prompt_token_ids)
        reply = self._ask(Embed(f"embed-{next(self._ids)}", tuple(prompt_token_ids)), Embedded, timeout_s)
        if reply.error is not None:
            raise reply.error
        return reply.values

    def start_profile(self, *, with_operations: bool = False, timeout_s: float = 30.0) -> None:
        """Record every step from now on; `with_operations` also each of torch's. One recording at a time: starting
        again begins anew."""
        self._ask(StartProfile(f"profile-{next(self._ids)}", with_operations), Profiled, timeout_s)

    def stop_profile(self, timeout_s: float = 300.0) -> StepProfile:
        """End the recording and give it. Raises RequestError if there is none."""
        reply = self._ask(StopProfile(f"profile-{next(self._ids)}"), Profiled, timeout_s)
        if reply.profile is None:
            raise RequestError("no profile is being recorded: start one first")
        return reply.profile

    def held_bytes(self, device: str) -> dict[str, int]:
        """What the engine's end gives back beside this process's memory, in bytes by device; {} for a thread."""
        return self._core.held_bytes(device)

    def read_usage(self, reader: UsageReader) -> DeviceUsage:
        """A device's memory as `reader` sees it, with what the engine's own process holds counted as this one's."""
        return self._core.read_usage(reader)

    def stop(self) -> None:
        """End the engine. Requests in flight end with EngineStoppedError. Stopping twice is harmless."""
        with self._lock:
            if self._stopped:
                return
            self._stopped = True
        self._core.stop()
        # They hold the tokenizer, which goes with the model.
        self.structures = None

    def check(self, prompt_token_ids: Sequence[int], params: SamplingParams) -> None:
        """Raise RequestError or PromptTooLongError for a request that could not be served."""
        num_prompt_tokens = len(prompt_token_ids)
        if num_prompt_tokens == 0:
            raise RequestError("the prompt is empty: give at least one token")
        if num_prompt_tokens >= self.max_context + (params.max_tokens == 0):
            raise PromptTooLongError(num_prompt_tokens, self.max_context)
        structures = self.structures
        if params.structure is not None and structures is not None:
            structures.prepare(params.structure)
        if params.plugins:
            self.check_plugins(params)
        named = (
            ("prompt", prompt_token_ids),
            ("stop_token_ids", params.stop_token_ids),
            ("logit_bias", params.logit_bias),
        )
        for name, ids in named:
            for token_id in ids:
                if type(token_id) is not int:
                    raise RequestError(f"{name}: {token_id!r} is not a token id (an integer)")
                if not 0 <= token_id < self.vocab_size:
                    raise RequestError(f"{name}: token id {token_id} is outside the vocabulary of {self.vocab_size}")

    def check_embeddable(self, prompt_token_ids: Sequence[int]) -> None:
        """Raise RequestError or PromptTooLongError for a text of which there can be no embedding."""
        self.check(prompt_token_ids, SamplingParams(max_tokens=0, prompt_logprobs=0))

    def _ask(self, question: _Question, expected: type[_Answer], timeout_s: float) -> _Answer:
        """The core's answer, of the class that belongs to the question."""
        reply: SimpleQueue[_Reply] = SimpleQueue()
        with self._lock:
            self._check_alive()
            self._replies[question.reply_id] = reply
            self._core.send(question)
        try:
            answer = reply.get(timeout=timeout_s)
        except Empty:
            raise EngineStoppedError(f"the engine did not answer within {timeout_s} s") from None
        finally:
            self._replies.pop(question.reply_id, None)
        if isinstance(answer, Failed):
            raise answer.error
        assert isinstance(answer, expected)
        return answer

    def check_plugins(self, params: SamplingParams) -> None:
        """Raise RequestError for plugins that a request names and that cannot do it."""
        if self.plugins is None:
            raise RequestError("plugins: this engine runs without plugins")
        self.plugins.check(params)

    def _admitted(self, prompt_token_ids: Sequence[int], params: SamplingParams) -> SamplingParams:
        """The settings to run with: as given, or as plugins changed them where that can be served."""
        self.check(prompt_token_ids, params)
        if self.plugins is None or not self.plugins.has_pre_request:
            return params
        return self.plugins.prepared(prompt_token_ids, params, self.check)

    def _check_alive(self) -> None:
        if self._stopped:
            raise EngineStoppedError("the model is unloaded: load it again")
        death = self.death
        if death is not None:
            raise death

    def _route(self, message: Chunk | _Reply) -> None:
        if not isinstance(message, Chunk):
            reply = self._replies.get(message.reply_id)
            if reply is not None:
                reply.put(message)
            return
        mailbox = self._mailboxes.get(message.request_id)
        if mailbox is None:
            return
        # Only this thread counts, so no lock is needed for it.
        self._in_flight[message.request_id].num_generated_tokens += len(message.token_ids)
        self._token_rate.add(len(message.token_ids))
        if self._watches:
            self._tell_watch(message)
        if message.finish_reason is not None:
            with self._lock:
                self._unfinished[message.request_id] -= 1
                is_last = self._unfinished[message.request_id] == 0
                if is_last:
                    del self._unfinished[message.request_id], self._mailboxes[message.request_id]
                    del self._in_flight[message.request_id]
            self._note_end(message, is_last)
        mailbox.put(message)

    def _tell_watch(self, chunk: Chunk) -> None:
        watch = self._watches.get(chunk.request_id)
        if watch is not None:
            watch.take(chunk)
            if self._unfinished[chunk.request_id] == 1 and chunk.finish_reason is not None:
                del self._watches[chunk.request_id]

    def _note_end(self, chunk: Chunk, is_last: bool) -> None:
        usage = chunk.usage
        counts: dict[str, Any] = {}
        if usage is not None:
            counts = {
                "num_prompt_tokens": usage.num_prompt_tokens,
                "num_cached_tokens": usage.num_cached_tokens,
                "num_generated_tokens": usage.num_generated_tokens,
                "started_s": usage.started_s,
                "first_token_s": usage.first_token_s,
            }
        self.requests.end(
            chunk.request_id,
            chunk.index,
            finish_reason=str(chunk.finish_reason),
            is_last=is_last,
            error=None if chunk.error is None else str(chunk.error),
            **counts,
        )


def _check_resumable(params: SamplingParams) -> None:
    if params.n > 1:
        raise RequestError(f"n={params.n}: of several answers none can be resumed")
    if params.plugins:
        raise RequestError("plugins: an answer that they had a part in cannot be resumed")
