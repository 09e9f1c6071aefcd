"""One step after the other: schedule, launch, collect, finish. Knows no threads and no doors.

Where the runner overlaps, a step is launched before the one before it is collected, so that the device never waits
for the host: while it computes, the host decodes text, looks for stops and plans. Where it is a pipeline, as many steps
as it has lanes are computed at once, each of other sequences; if it overlaps too, one more waits behind them.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import torch

from workbench.engine.answer import Answer
from workbench.engine.config import EngineLimits
from workbench.engine.drafter import Drafter
from workbench.engine.embedding import Embedder
from workbench.engine.engine_figures import EngineFigures
from workbench.engine.finish import StopMatch
from workbench.engine.grammar import StructureCompiler, TokenMatcher
from workbench.engine.messages import Chunk, EngineStats, Request
from workbench.engine.prompt_scores import prompt_logprobs, score_prompt
from workbench.engine.row_plugins import RowPlugins
from workbench.engine.runner import LaunchedStep, Runner
from workbench.engine.sampler import SampledTokens
from workbench.engine.scheduler import Scheduler
from workbench.engine.sequence import FinishReason, Sequence
from workbench.engine.step_plan import ScheduledSequence, StepPlan
from workbench.errors import InferenceError, OutOfMemoryError, RequestError, WorkbenchError
from workbench.plugins import PluginManager

__all__ = ["Engine"]

_log = logging.getLogger(__name__)


class Engine:
    """The running engine: a scheduler, a runner, and the answers in flight.

    `decode(ids, skip_special_tokens)` gives text; `structures` compiles what answers must look like; `embedder` is
    there for models that make embeddings; `plugins` has the samplers that requests may name; `drafter` guesses ahead
    (None: by looking up what came before); `clock` is monotonic, in seconds.
    """

    def __init__(
        self,
        runner: Runner,
        limits: EngineLimits,
        *,
        decode: Callable[[list[int], bool], str],
        vocab_size: int,
        eos_token_ids: frozenset[int],
        weight_bytes: int = 0,
        structures: StructureCompiler | None = None,
        embedder: Embedder | None = None,
        plugins: PluginManager | None = None,
        drafter: Drafter | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limits = limits
        self.scheduler = Scheduler(limits, drafter)
        self._runner = runner
        self._decode = decode
        self._vocab_size = vocab_size
        self._eos_token_ids = eos_token_ids
        self._structures = structures
        self._embedder = embedder
        self._plugins = plugins
        self._clock = clock
        self._answers: dict[Sequence, Answer] = {}
        self._num_lanes: int = getattr(runner, "num_lanes", 1)
        self._advance: Callable[[], None] | None = getattr(runner, "advance", None)
        self._in_flight: deque[tuple[StepPlan, LaunchedStep]] = deque()
        self._step_began_s = 0.0
        self._figures = EngineFigures(weight_bytes)

    @property
    def has_work(self) -> bool:
        return self.scheduler.has_work or bool(self._in_flight)

    @property
    def most_idle_s(self) -> float | None:
        """How long the next step may be waited for if no message comes, in seconds; None: for ever."""
        return 0.0 if self.has_work else self._runner_idle_s

    @property
    def _runner_idle_s(self) -> float | None:
        """See PreparingRunner; None for all others."""
        return getattr(self._runner, "most_idle_s", None)

    def close(self) -> None:
        """Stop whatever the runner does beside its steps."""
        close = getattr(self._runner, "close", None)
        if close is not None:
            close()

    def add(self, request: Request) -> None:
        """Take a request in. It was checked by the client; an id outside the vocabulary is refused here again."""
        bad = next((i for i in request.prompt_token_ids if not 0 <= i < self._vocab_size), None)
        if bad is not None or not request.prompt_token_ids:
            raise RequestError(f"prompt token id {bad} is outside the vocabulary of {self._vocab_size}")
        # All are made before the first is taken in, so that a request that fails leaves nothing behind.
        answers = self._new_answers(request)
        self._figures.note_request()
        for answer in answers:
            self._answers[answer.sequence] = answer
            self.scheduler.add(answer.sequence)

    def abort(self, request_id: str) -> list[Chunk]:
        """Stop a request's answers now and give their last chunks. Unknown ids give none."""
        answers = [a for a in self._answers.values() if a.request.request_id == request_id]
        return [self._close(a, StopMatch(FinishReason.ABORT), text=a.last_text()) for a in answers]

    def fail_all(self, error: WorkbenchError) -> list[Chunk]:
        """End every request with `error`."""
        self._in_flight.clear()
        return [self._fail(answer, error) for answer in list(self._answers.values())]

    def step(self) -> list[Chunk]:
        """Launch a step, and give what the last one added to each answer."""
        if self._num_lanes > 1:
            return self._step_in_lanes()
        if not self._in_flight:
            if self._advance is not None:
                self._advance()
            self._step_began_s = self._clock()
        must_know = self._must_know_tokens()
        awaits = not must_know and self._waits_to_guess()
        chunks = self._collect() if must_know or awaits else []
        plan = self.scheduler.schedule()
        plan.was_awaited = awaits
        try:
            launched = self._launch(plan) if plan.items else None
        except torch.OutOfMemoryError as error:
            return [*chunks, *self._collect(), *self._after_out_of_memory(str(error))]
        chunks += self._collect()
        if launched is not None:
            self._in_flight.append((plan, launched))
        if self._runner.overlaps or launched is None:
            return chunks
        return [*chunks, *self._collect()]

    def embed(self, token_ids: tuple[int, ...]) -> tuple[float, ...]:
        """One text's embedding, computed at once. Raises RequestError for a model that makes none."""
        if self._embedder is None:
            raise RequestError("this model makes no embeddings")
        values = tuple(self._embedder.embed(token_ids))
        self._figures.note_embedding(len(token_ids))
        return values

    def stats(self, reply_id: str = "") -> EngineStats:
        """Figures as of now."""
        return self._figures.view(self.scheduler, self.limits, reply_id)

    def check_integrity(self) -> None:
        """Raise AssertionError if a block leaked or an answer is kept that no longer runs."""
        self.scheduler.check_integrity()
        assert set(self._answers) == {*self.scheduler.running, *self.scheduler.waiting}, "answers do not match"

    def _new_answers(self, request: Request) -> list[Answer]:
        decode, skip = self._decode, request.params.skip_special_tokens
        answers: list[Answer] = []
        for index, matcher in enumerate(self._matchers(request)):
            leader = answers[0].sequence if answers and self.limits.enable_prefix_caching else None
            sequence = self._new_sequence(request, index, leader)
            sequence.matcher = matcher
            sequence.plugins = RowPlugins.of(self._plugins, request.params.plugins)
            answers.append(Answer(request, sequence, lambda ids: decode(ids, skip)))
        for token_id in request.sent_token_ids:
            answers[0].take_sent(token_id)
        return answers

    def _new_sequence(self, request: Request, index: int, leader: Sequence | None) -> Sequence:
        return Sequence(
            request_id=request.request_id,
            index=index,
            token_ids=list(request.prompt_token_ids),
            num_prompt_tokens=len(request.prompt_token_ids),
            params=request.params,
            seed=request.seed,
            eos_token_ids=self._eos_token_ids,
            max_total_tokens=self.limits.max_context,
            leader=leader,
        )

    def _matchers(self, request: Request) -> list[TokenMatcher | None]:
        """One per answer, each at the beginning of the request's structure; None where it has none."""
        structure = request.params.structure
        if structure is None:
            return [None] * request.params.n
        if self._structures is None:
            raise RequestError("structure: this engine cannot constrain answers")
        return [self._structures.matcher(structure) for _ in range(request.params.n)]

    def _step_in_lanes(self) -> list[Chunk]:
        """Launch one more step if there is room and a sequence waits for one, else collect the oldest."""
        most = self._num_lanes + self._runner.overlaps
        if len(self._in_flight) < most:
            plan = self._plan_for_lane()
            if plan.items:
                self._in_flight.append((plan, self._launch(plan)))
                if len(self._in_flight) < most:
                    return []
        return self._collect()

    def _plan_for_lane(self) -> StepPlan:
        """Of sequences that are in no step; of the oldest's too where every lane has one or nothing else waits."""
        if len(self._in_flight) < self._num_lanes:
            plan = self.scheduler.schedule(self._num_lanes)
            if plan.items or not self._runner.overlaps:
                return plan
        oldest = self._in_flight[0][1].sampled if self._in_flight else []
        fed = {item.sequence for item in oldest if not self._runner.needs_history(item.sequence)}
        return self.scheduler.schedule(self._num_lanes, fed)

    def _must_know_tokens(self) -> bool:
        """Whether the next step can only be chosen once the tokens in flight are known."""
        if not self._in_flight:
            return False
        _, launched = self._in_flight[0]
        return any(item.draft_token_ids or self._runner.needs_history(item.sequence) for item in launched.sampled)

    def _waits_to_guess(self) -> bool:
        """Whether the tokens in flight are worth waiting for, because what follows them can be guessed."""
        return bool(self._in_flight) and self._runner.overlaps and self.scheduler.wants_guesses()

    def _launch(self, plan: StepPlan) -> LaunchedStep:
        self._note_starts(plan)
        launched = self._runner.launch(plan)
        self._figures.note_step(plan, self.scheduler.pool.num_used_blocks)
        self.scheduler.commit(plan)
        for item in launched.sampled:
            item.sequence.num_pending_tokens += 1
        return launched

    def _note_starts(self, plan: StepPlan) -> None:
        """When each answer's first chunk of prompt was launched; decodes come first in a plan and are long begun."""
        for item in plan.items[plan.num_decodes :]:
            answer = self._answers.get(item.sequence)
            if answer is not None and answer.started_s is None:
                answer.started_s = self._clock()

    def _collect(self) -> list[Chunk]:
        """Wait for the oldest step in flight, if there is one, and finish what it brings."""
        if not self._in_flight:
            return []
        plan, launched = self._in_flight.popleft()
        tokens = launched.wait()
        for item in launched.sampled:
            item.sequence.num_pending_tokens -= 1
        num_before = self._figures.num_generated_tokens
        chunks = self._finish(launched, tokens)
        num_tokens, began_s = self._figures.num_generated_tokens - num_before, self._step_began_s
        self._step_began_s = self._clock()
        # What steps take now says nothing of those of a faster runner.
        if self._runner_idle_s is None:
            self.scheduler.drafter.note_step(plan, num_tokens, self._step_began_s - began_s)
        return chunks

    def _finish(self, launched: LaunchedStep, tokens: SampledTokens) -> list[Chunk]:
        for item, rows in launched.scored:
            score_prompt(item.sequence, item.start, rows)
        chunks: list[Chunk] = []
        row = 0
        for item in launched.sampled:
            first_row, row = row, row + item.num_choices
            answer = self._answers.get(item.sequence)
            if answer is None:  # it ended while this step was in flight
                continue
            try:
                self._extend_by_choices(answer, item, tokens, first_row, chunks)
            except Exception as error:  # one request's failure must not reach the others
                _log.exception("request %s failed", item.sequence.request_id)
                chunks.append(self._fail(answer, InferenceError(f"the request failed: {error}")))
        return chunks

    def _extend_by_choices(
        self, answer: Answer, item: ScheduledSequence, tokens: SampledTokens, first_row: int, chunks: list[Chunk]
    ) -> None:
        """The token that was due, and one more after each guess that was what would have been chosen."""
        num_accepted = 0
        for row, guess in enumerate((*item.draft_token_ids, None), first_row):
            chunk = self._extend(answer, tokens, row)
            chunks.append(chunk)
            if chunk.finish_reason is not None or tokens.token_ids[row] != guess:
                break
            num_accepted += 1
        if item.draft_token_ids:
            self.scheduler.settle(item, num_accepted)

    def _extend(self, answer: Answer, tokens: SampledTokens, row: int) -> Chunk:
        sequence = answer.sequence
        if sequence.params.max_tokens == 0:
            return self._close(answer, StopMatch(FinishReason.LENGTH))
        if tokens.is_nan[row]:
            return self._fail(answer, InferenceError("the model's output is not a number: try another precision"))
        matcher = sequence.matcher
        if matcher is not None and not matcher.accept(tokens.token_ids[row]):
            return self._fail(answer, RequestError(f"structure: the answer cannot go on inside it: {matcher.error}"))
        sequence.token_ids.append(tokens.token_ids[row])
        is_first = answer.first_token_s is None
        self._figures.note_token(answer.note_token(self._clock()))
        piece = answer.text.advance()
        logprobs = tokens.logprobs[row]
        new: dict[str, Any] = {
            "text": piece.text,
            "token_ids": (sequence.token_ids[-1],),
            "logprobs": (logprobs,) if logprobs else (),
            "prompt_logprobs": prompt_logprobs(sequence) if is_first else None,
        }
        if piece.finished:
            return self._close(answer, piece.finished, **new)
        if matcher is not None and matcher.is_complete:
            new["text"] += answer.text.flush()
            return self._close(answer, StopMatch(FinishReason.STOP), **new)
        return Chunk(sequence.request_id, sequence.index, **new)

    def _close(self, answer: Answer, why: StopMatch, **last: Any) -> Chunk:
        sequence = answer.sequence
        self.scheduler.finish(sequence)
        del self._answers[sequence]
        is_last = all(other.request is not answer.request for other in self._answers.values())
        self._figures.note_end(why.reason, is_requests_last=is_last)
        if sequence.params.max_tokens == 0:
            last["prompt_logprobs"] = prompt_logprobs(sequence)
        return Chunk(
            sequence.request_id,
            sequence.index,
            finish_reason=why.reason,
            stop_reason=why.stop,
            usage=answer.usage(self._clock()),
            **last,
        )

    def _fail(self, answer: Answer, error: WorkbenchError) -> Chunk:
        return self._close(answer, StopMatch(FinishReason.ERROR), error=error)

    def _after_out_of_memory(self, message: str) -> list[Chunk]:
        """Make room by letting the youngest wait; if it ran alone there is nothing to give up but itself."""
        torch.cuda.empty_cache()
        running = self.scheduler.running
        if len(running) > 1:
            self.scheduler.hold_back_youngest()
            return []
        if not running:  # it ended with the step before
            return []
        alone = self._answers[running[0]]
        return [self._fail(alone, OutOfMemoryError(f"the device ran out of memory in this request: {message}"))]
