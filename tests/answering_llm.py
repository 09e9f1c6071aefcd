"""A `LlamaGPU` that answers with what a test gives it, in the engine's own values, and keeps what it was asked."""

from __future__ import annotations

from types import SimpleNamespace

from workbench.engine import Completion, FinishReason, Timings
from workbench.engine.logprobs import TokenLogprobs


class WordTokenizer:
    """A token a word; ids are handed out as words come."""

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}

    def encode(self, text, add_special_tokens=True):
        return [self._ids.setdefault(word, len(self._ids)) for word in text.split()]

    def word(self, token_id):
        return next(word for word, known in self._ids.items() if known == token_id)


class AnsweringLlama:
    """`answer` is the text of every answer, or a function from a request (a dict) to its text."""

    def __init__(self, answer="", logprobs=(-0.1, -0.3)) -> None:
        self.backend = SimpleNamespace(name="cpu", device_type="cpu")
        self.tokenizer = WordTokenizer()
        self.requests: list[dict] = []
        self.opened_with: dict = {}
        self.num_waiting = self.most_waiting = 0
        self._answer = answer if callable(answer) else lambda _: answer
        self._logprobs = logprobs

    def open(self, **options):
        """The `open_llm` of the command line's services."""
        self.opened_with = options
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def submit(self, prompt=None, *, messages=None, **sampling):
        request = {"prompt": prompt, "messages": messages, **sampling}
        self.requests.append(request)
        self.num_waiting += 1
        self.most_waiting = max(self.most_waiting, self.num_waiting)
        return _Asked(self, self._answer(request), self._logprobs)

    def infer(self, prompt, **sampling):
        return self.submit(prompt, **sampling).result().text

    def batch_infer(self, prompts, batch_size=None, **sampling):
        return [self.infer(prompt, **sampling) for prompt in prompts]

    def stream_infer(self, prompt, **sampling):
        yield from self.infer(prompt, **sampling).split()

    def get_backend_info(self):
        return {"device": "cpu"}


class _Asked:
    def __init__(self, llm, text, logprobs) -> None:
        self._llm, self._text, self._logprobs, self._is_read = llm, text, logprobs, False

    def abort(self) -> None:
        pass

    def result(self):
        self._llm.num_waiting -= not self._is_read
        self._is_read = True
        scores = () if not self._text else tuple(TokenLogprobs(7, value) for value in self._logprobs)
        timings = Timings(num_prompt_tokens=7, num_generated_tokens=5, ttft_s=0.25, total_s=1.0, decode_tokens_per_s=4)
        return Completion(self._text, (7,), FinishReason.STOP, None, 7, 0, timings, scores, None, 1)


class WeighingLlama(AnsweringLlama):
    """Gives each next word the log-probability that `weigh(words of the prompt, word)` says; -2 to all others."""

    def __init__(self, weigh, num_likeliest=1) -> None:
        super().__init__()
        self._weigh, self._num_likeliest = weigh, num_likeliest

    def submit(self, prompt=None, *, messages=None, **sampling):
        self.requests.append({"prompt": prompt, **sampling})
        words = [self.tokenizer.word(token_id) for token_id in prompt]
        known = {i: self._weigh(words, self.tokenizer.word(i)) for i in self.tokenizer._ids.values()}
        ranked = sorted(known.items(), key=lambda pair: -pair[1])
        (chosen,) = sampling.get("logit_bias") or (ranked[0][0],)
        scores = (TokenLogprobs(chosen, known[chosen], tuple(ranked[: self._num_likeliest])),)
        timings = Timings(
            num_prompt_tokens=7, num_generated_tokens=1, ttft_s=0.25, total_s=1.0, decode_tokens_per_s=None
        )
        done = Completion("x", (chosen,), FinishReason.LENGTH, None, 7, 0, timings, scores, None, 1)
        return SimpleNamespace(result=lambda: done, abort=lambda: None)
