"""One request on its way through the engine: prepared in a thread, charged, queued, run, and always cleaned up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from workbench.engine import Chunk, SamplingParams, StructureSpec
from workbench.errors import PromptTooLongError, RequestError, WorkbenchError
from workbench.server.caller import Call
from workbench.server.errors import ApiError, api_error, invalid
from workbench.server.served_model import ServedModel

if TYPE_CHECKING:
    from workbench.server.services import Services

__all__ = ["Job", "Serving"]


@dataclass(frozen=True)
class Job:
    """What a route asks for: prompts, each answered `params.n` times.

    `encode` gives the token ids of every prompt and may take its time. `param` is the field that holds them, and
    `structure_param` the one that `params.structure` comes from; `structure_parts` are structures inside of that one,
    each of which must be possible.
    """

    encode: Callable[[], list[list[int]]]
    params: SamplingParams
    param: str
    structure_param: str = "response_format"
    structure_parts: tuple[StructureSpec, ...] = ()


class Serving:
    """A running request. Iterating gives (prompt index, chunk) as they come; `close()` must be called at the end.

    Made by `start`, which raises before anything is sent whatever can be known by then.
    """

    def __init__(self, services: Services, call: Call, model: ServedModel, job: Job) -> None:
        self.call = call
        self.model = model
        salt = "" if services.settings.queue.share_prefixes else f"key:{call.key_id}"
        self.job = replace(job, params=replace(job.params, cache_salt=salt))
        self.prompts: list[list[int]] = []
        self.num_cached_tokens = 0
        self._services = services
        self._stack = AsyncExitStack()
        self._output: asyncio.Queue[tuple[int, Chunk] | Exception] = asyncio.Queue()
        self._runs: list[asyncio.Task[None]] = []
        self._num_unfinished = 0
        # Done once the first prompt is in the engine.
        self._begun: asyncio.Future[None] | None = None
        # (prompt, answer) -> tokens so far.
        self._num_generated: dict[tuple[int, int], int] = {}
        self._has_failed = False
        self._started_s = time.monotonic()
        # (prompt, answer) -> when its last piece came.
        self._last_piece_s: dict[tuple[int, int], float] = {}

    @classmethod
    async def start(cls, services: Services, call: Call, model: ServedModel, job: Job) -> Serving:
        """Prepare, charge, wait for room and begin. Raises ApiError; then nothing is left behind."""
        serving = cls(services, call, model, job)
        services.servings.add(serving)
        try:
            await serving._begin()
        except BaseException as error:
            await serving.close()
            if isinstance(error, WorkbenchError):
                raise api_error(error, param=job.param) from error
            raise
        return serving

    @property
    def num_prompt_tokens(self) -> int:
        """Tokens of all prompts."""
        return sum(map(len, self.prompts))

    @property
    def num_generated_tokens(self) -> int:
        """Tokens of all answers so far."""
        return sum(self._num_generated.values())

    async def __aiter__(self) -> AsyncIterator[tuple[int, Chunk]]:
        """Chunks of all answers as they come. Raises ApiError when one of them fails."""
        while self._num_unfinished:
            item = await self._output.get()
            if isinstance(item, Exception):
                self._has_failed = True
                raise api_error(item, param=self.job.param) from item
            self._note(*item)
            yield item

    def fail(self, error: ApiError) -> None:
        """End the request with an error, as the server's own wish, also while it waits for room."""
        if self._begun is not None and not self._begun.done():
            self._begun.set_exception(error)
        self._output.put_nowait(error)

    async def close(self) -> None:
        """Stop what still runs, give everything back and settle the bill. Doing so twice is harmless."""
        for run in self._runs:
            run.cancel()
        try:
            await asyncio.gather(*self._runs, return_exceptions=True)
        finally:
            # Also where the caller is cancelled while it waits: a send to a client that left has failed already then.
            self._runs.clear()
            await self._stack.aclose()
            self._services.servings.discard(self)

    async def _begin(self) -> None:
        services, call = self._services, self.call
        call.model = self.model.model_id
        self._stack.enter_context(services.rates.in_flight(call))
        self._stack.enter_context(services.host.in_use())
        self.prompts = await services.text_pool.run(self._prepare)
        # A WebSocket is one call of many requests.
        call.num_prompt_tokens += self.num_prompt_tokens
        services.rates.charge_prompt(call, self.num_prompt_tokens)
        self._stack.callback(self._settle)
        await self._launch()

    def _prepare(self) -> list[list[int]]:
        """Token ids of every prompt, checked. Runs in a thread."""
        params, llm = self.job.params, self.model.llm
        if params.plugins:
            try:
                llm.check_plugins(params)
            except RequestError as error:
                raise invalid(str(error), param="plugins") from error
        for name, ids in (("logit_bias", params.logit_bias), ("stop_token_ids", params.stop_token_ids)):
            if any(token_id >= llm.spec.vocab_size for token_id in ids):
                raise invalid(f"{name}: a token id is outside the vocabulary of {llm.spec.vocab_size}", param=name)
        prompts = self.job.encode()
        for prompt in prompts:
            self._check_fits(len(prompt))
        self._check_bounds(len(prompts))
        for prompt in prompts:
            llm.check(prompt, replace(params, structure=None))
        try:
            # Compiles the structures, so that submitting takes no time.
            for structure in (*self.job.structure_parts, params.structure):
                llm.check(prompts[0], replace(params, structure=structure))
        except RequestError as error:
            raise invalid(str(error), param=self.job.structure_param) from error
        return prompts

    def _check_fits(self, num_prompt_tokens: int) -> None:
        max_context, max_tokens = self.model.llm.max_context, self.job.params.max_tokens
        if num_prompt_tokens >= max_context + (max_tokens == 0):
            raise PromptTooLongError(num_prompt_tokens, max_context)
        if max_tokens is not None and num_prompt_tokens + max_tokens > max_context:
            raise invalid(
                f"the context holds {max_context} tokens; {num_prompt_tokens} of the prompt and {max_tokens} of the "
                "answer are more: shorten one of them",
                param=self.job.param,
                code="context_length_exceeded",
            )

    def _check_bounds(self, num_prompts: int) -> None:
        wire, params = self._services.settings.wire, self.job.params
        if num_prompts > wire.max_prompts:
            raise invalid(f"{num_prompts} prompts are more than the {wire.max_prompts} of one request", param="prompt")
        num_answers = num_prompts * params.n
        if num_answers > wire.max_answers:
            raise invalid(f"{num_answers} answers are more than the {wire.max_answers} of one request", param="n")
        longest = self.model.llm.max_context if params.max_tokens is None else params.max_tokens
        if num_answers > 1 and num_answers * longest > wire.max_answer_tokens:
            raise invalid(
                f"{num_answers} answers of up to {longest} tokens are more than the {wire.max_answer_tokens} tokens of "
                "one request: set a smaller max_tokens",
                param="max_tokens",
            )

    async def _launch(self) -> None:
        """Start every prompt, and wait until the first one is in the engine: until then an error has a status."""
        self._num_unfinished = len(self.prompts) * self.job.params.n
        begun = self._begun = asyncio.get_running_loop().create_future()
        self._runs = [asyncio.create_task(self._run(index, begun)) for index in range(len(self.prompts))]
        try:
            await begun
        except Exception:
            self._has_failed = True
            raise

    async def _run(self, index: int, begun: asyncio.Future[None]) -> None:
        """Answer one prompt, its chunks going to the common output."""
        try:
            room = self._services.queue.room(self.call.key_id, self.job.params.n, may_overfill=index > 0)
            async with room:
                generation = self.model.llm.submit(self.prompts[index], params=self.job.params)
                if not begun.done():
                    begun.set_result(None)
                async with aclosing(aiter(generation)) as chunks:
                    async for chunk in chunks:
                        self._output.put_nowait((index, chunk))
        except Exception as error:  # whoever reads the answers must hear of it
            if not begun.done():
                begun.set_exception(error)
            self._output.put_nowait(error)

    def _note(self, index: int, chunk: Chunk) -> None:
        """Keep the counts, and tell the metrics."""
        place = (index, chunk.index)
        self._num_generated[place] = self._num_generated.get(place, 0) + len(chunk.token_ids)
        now_s = time.monotonic()
        if place in self._last_piece_s:
            self._services.metrics.piece_came(self.model.model_id, now_s - self._last_piece_s[place])
        self._last_piece_s[place] = now_s
        if chunk.finish_reason is None:
            return
        self._num_unfinished -= 1
        if chunk.usage is not None:
            self._num_generated[place] = chunk.usage.num_generated_tokens
            if chunk.index == 0:
                self.num_cached_tokens += chunk.usage.num_cached_tokens
        self._services.metrics.answer_ended(self.model.model_id, self.job.params, chunk, self._started_s)

    def _settle(self) -> None:
        """Charge what was generated, whether or not the client stayed. What failed costs nothing."""
        self.call.num_generated_tokens += self.num_generated_tokens
        charge = -self.num_prompt_tokens if self._has_failed else self.num_generated_tokens
        self._services.rates.charge(self.call, charge)
