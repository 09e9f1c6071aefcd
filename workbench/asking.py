"""Every way to ask a loaded model for text: whole, in batches, piece by piece, as a chat, in an event loop."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

from workbench.engine import Generation, SamplingParams
from workbench.errors import EngineStoppedError, RequestError
from workbench.models import Tokenizer
from workbench.prompt import Messages, Prompt, encode_prompt

if TYPE_CHECKING:
    from workbench.distributed.pooled_client import PooledClient
    from workbench.engine.client import EngineClient

__all__ = ["Asking"]

_DEFAULT_MAX_TOKENS = SamplingParams().max_tokens
_LONGEST_DELAY_S = 60


class Asking:
    """What `LlamaGPU` can be asked, given a client of the running engine and the model's tokenizer.

    Sampling keywords of all methods are the fields of `SamplingParams`.
    """

    _client: EngineClient | PooledClient
    _tokenizer: Tokenizer | None

    @property
    def is_loaded(self) -> bool:
        """Whether requests are served: not unloaded, and the engine's loop is alive."""
        return self._client.is_alive

    def submit(
        self,
        prompt: Prompt | None = None,
        *,
        messages: Messages | None = None,
        params: SamplingParams | None = None,
        **sampling: Any,
    ) -> Generation:
        """Start a request and return at once. Give a prompt (text or token ids) or chat messages.

        `params` are ready-made sampling settings, in place of the keywords. Raises RequestError or PromptTooLongError
        for a request that cannot be served.
        """
        if params is not None and sampling:
            raise RequestError(f"params is given beside {', '.join(sorted(sampling))}: give one of the two")
        params = params or SamplingParams.from_options(sampling)
        # That of several replicas has the same surface.
        generation = cast("Generation", self._client.submit(self._encode(prompt, messages), params))
        generation.owner = self
        return generation

    def check(self, prompt: Prompt, params: SamplingParams) -> None:
        """Raise what `submit` would raise for this prompt, without starting it. A structure is compiled by the way."""
        self._client.check(self._encode(prompt, None), params)

    def check_plugins(self, params: SamplingParams) -> None:
        """Raise RequestError for a plugin that is named and not in use here, or that refuses its options."""
        self._client.check_plugins(params)

    def go_on(
        self, prompt_token_ids: Sequence[int], sent_token_ids: Sequence[int], params: SamplingParams
    ) -> Generation:
        """Continue an answer behind tokens that another engine chose with the same model and settings.

        `params.seed` must be given. Chunks are those that follow. Raises RequestError for what cannot go on: several
        answers, or those that plugins have a part in.
        """
        generation = self._client.go_on(prompt_token_ids, sent_token_ids, params)
        generation.owner = self
        return generation

    def infer(self, input_data: Prompt, **sampling: Any) -> str:
        """The model's continuation of a prompt."""
        return self.submit(input_data, **sampling).result().text

    def batch_infer(self, input_data: Iterable[Prompt], batch_size: int | None = None, **sampling: Any) -> list[str]:
        """Continuations of several prompts, in their order; at most `batch_size` at once (None: all)."""
        if isinstance(input_data, str):
            raise RequestError("batch_infer takes a list of prompts; for one prompt use infer")
        if batch_size is not None and (type(batch_size) is not int or batch_size < 1):
            raise RequestError(f"batch_size={batch_size!r}: must be an integer of at least 1, or None")
        # Any iterable: it is gone through twice.
        prompts = list(input_data)
        self._check_all(prompts, sampling)
        running: deque[Generation] = deque()
        texts: list[str] = []
        try:
            for prompt in prompts:
                if len(running) == batch_size:
                    texts.append(running.popleft().result().text)
                running.append(self.submit(prompt, **sampling))
            while running:
                texts.append(running[0].result().text)
                running.popleft()
        finally:
            for generation in running:
                generation.abort()
        return texts

    def stream_infer(
        self,
        input_data: Prompt,
        max_tokens: int | None = _DEFAULT_MAX_TOKENS,
        *,
        delay: float = 0.0,
        **sampling: Any,
    ) -> Iterator[str]:
        """The continuation piece by piece; leaving the loop stops the model. Empty pieces are left out.

        `delay` holds every piece but the first back by that many seconds, for a steady show; the model does not wait.
        """
        if isinstance(delay, bool) or not isinstance(delay, int | float) or not 0 <= delay <= _LONGEST_DELAY_S:
            raise RequestError(f"delay={delay!r}: must be seconds from 0 to {_LONGEST_DELAY_S}")
        pieces = self._stream(input_data, None, {"max_tokens": max_tokens, **sampling})
        return _paced(pieces, delay) if delay else pieces

    def chat(self, messages: Messages, **sampling: Any) -> str:
        """The reply to a conversation: a list of {"role", "content"}, or the user's text."""
        return self.submit(messages=messages, **sampling).result().text

    def stream_chat(self, messages: Messages, **sampling: Any) -> Iterator[str]:
        """The reply piece by piece; leaving the loop stops the model."""
        return self._stream(None, messages, sampling)

    async def ainfer(self, input_data: Prompt, **sampling: Any) -> str:
        """`infer` for an event loop; cancelling the task stops the model."""
        return (await self.submit(input_data, **sampling).aresult()).text

    async def achat(self, messages: Messages, **sampling: Any) -> str:
        """`chat` for an event loop; cancelling the task stops the model."""
        return (await self.submit(messages=messages, **sampling).aresult()).text

    async def astream(
        self, input_data: Prompt | None = None, *, messages: Messages | None = None, **sampling: Any
    ) -> AsyncIterator[str]:
        """Pieces of the continuation, or of the reply to `messages`, with `async for`."""
        async for chunk in self.submit(input_data, messages=messages, **sampling):
            if chunk.text:
                yield chunk.text

    def embed(self, text: Prompt) -> list[float]:
        """The embedding of a text (or token ids), made as the model's author does: `embedding_recipe`.

        Raises RequestError for a model that was not trained to make embeddings, or a text that cannot be one.
        """
        return list(self._client.embed(self._encode(text, None)))

    def check_embeddable(self, text: Prompt) -> None:
        """Raise what `embed` would raise for this text, without computing it."""
        self._client.check_embeddable(self._encode(text, None))

    def _stream(self, prompt: Prompt | None, messages: Messages | None, sampling: dict[str, object]) -> Iterator[str]:
        # Checked here, so that a bad request fails where it is made and not at the first piece.
        params = SamplingParams.from_options(sampling)
        ids = self._encode(prompt, messages)
        self._client.check(ids, params)
        if not self.is_loaded:
            raise EngineStoppedError("the model is unloaded: load it again")

        def pieces() -> Iterator[str]:
            for chunk in self._client.submit(ids, params):
                if chunk.text:
                    yield chunk.text

        return pieces()

    def _check_all(self, prompts: Sequence[Prompt], sampling: dict[str, object]) -> None:
        params = SamplingParams.from_options(sampling)
        for prompt in prompts:
            self._client.check(self._encode(prompt, None), params)

    def _encode(self, prompt: Prompt | None, messages: Messages | None) -> Sequence[int]:
        if self._tokenizer is None:
            raise EngineStoppedError("the model is unloaded: load it again")
        return encode_prompt(self._tokenizer, prompt, messages)


def _paced(pieces: Iterator[str], delay_s: float) -> Iterator[str]:
    for number, piece in enumerate(pieces):
        if number:
            time.sleep(delay_s)
        yield piece
