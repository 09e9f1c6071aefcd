"""A `LlamaGPU` without a model: loads in steps and answers word by word, each step held by a gate if a test wants."""

from __future__ import annotations

import threading
from types import SimpleNamespace

from workbench.engine import EngineConfig, EngineStats, Timings
from workbench.engine.logprobs import TokenLogprobs
from workbench.engine.messages import Chunk
from workbench.errors import EngineStoppedError, RequestAborted
from workbench.progress import Progress


class Gate:
    """Lets a thread through when told: `open()` for good, `let(n)` for n passes."""

    def __init__(self, *, is_open: bool = True) -> None:
        self._is_open = is_open
        self._passes = threading.Semaphore(0)
        self.was_reached = threading.Event()

    def pass_through(self) -> None:
        self.was_reached.set()
        if not self._is_open:
            assert self._passes.acquire(timeout=30), "nobody opened the gate"

    def let(self, count: int = 1) -> None:
        self._passes.release(count)

    def open(self) -> None:
        self._is_open = True
        self._passes.release(1000)


class FakeTokenizer:
    """Writes conversations as "role:text|role:text", one token a byte."""

    vocab_size = 256
    hf = SimpleNamespace(added_tokens_decoder={}, get_vocab=lambda: {chr(i): i for i in range(33, 127)})

    def apply_chat_template(self, messages, add_generation_prompt=True, continue_final_message=False):
        return [*"|".join(f"{message['role']}:{message['content']}" for message in messages).encode()]

    def encode(self, text):
        return [*text.encode()]

    def id_to_token(self, token_id):
        return chr(token_id)


class FakeGeneration:
    """Yields the words of an answer; `abort()` ends it with what has come."""

    seed = 7

    def __init__(
        self, llm: FakeLlama, words: list[str], gate: Gate, error: Exception | None, wants_scores: bool = False
    ) -> None:
        self._llm = llm
        self._wants_scores = wants_scores
        self._words = words
        self._gate = gate
        self._error = error
        self._is_aborted = threading.Event()
        self.num_given = 0
        self.timings: Timings | None = None

    def abort(self) -> None:
        self._is_aborted.set()
        self._gate.let()

    def __iter__(self):
        self._llm.num_running += 1
        try:
            for index, word in enumerate(self._words):
                self._gate.pass_through()
                if self._is_aborted.is_set():
                    yield self._chunk("", "abort")
                    return
                if self._llm.is_unloaded:
                    raise EngineStoppedError("the engine was unloaded")
                self.num_given += 1
                self._llm.generated_tokens_total += 1
                is_last = index == len(self._words) - 1 and self._error is None
                yield self._chunk(word, "stop" if is_last else None)
            if self._error is not None:
                raise self._error
        finally:
            self._llm.num_running -= 1

    def _chunk(self, text: str, finish_reason: str | None) -> Chunk:
        if finish_reason is not None:
            self.timings = Timings(
                num_prompt_tokens=7,
                num_generated_tokens=self.num_given,
                ttft_s=0.25,
                total_s=1.0,
                decode_tokens_per_s=40.0 if self.num_given > 1 else None,
            )
        token_id = ord("A") + self.num_given - 1
        scores = (
            (TokenLogprobs(token_id, -0.5, ((token_id, -0.5), (token_id + 1, -1.5))),) if self._wants_scores else ()
        )
        return Chunk(
            "req-1",
            0,
            text=text,
            token_ids=(token_id,) if text else (),
            logprobs=scores if text else (),
            finish_reason=finish_reason,
        )

    def result(self, timeout_s: float | None = None):
        if self._is_aborted.is_set():
            raise RequestAborted("aborted")
        return SimpleNamespace(text="".join(self._words), timings=self.timings)


class FakeLlama:
    """The surface of `LlamaGPU` that sessions and panels use."""

    def __init__(self, choice, *, words, gate, error) -> None:
        self.model_path = choice.model
        self.backend = SimpleNamespace(name=choice.backend or "cpu")
        self.dtype = self.precision = choice.precision or "fp32"
        self.meanwhile = ""
        self.quantization = None
        self.max_context = choice.context_length or 2048
        self.stands_in_for = None
        self.model_name = str(choice.model)
        self.weight_bytes = 400_000_000
        self.limits = SimpleNamespace(kv_bytes=100_000_000, num_blocks=100, block_size=16)
        self.device_index = choice.gpus[0] if choice.gpus else 0
        self.engine_config = EngineConfig(
            context_length=choice.context_length,
            kv_dtype=choice.kv_dtype,
            cpu_offload_layers=choice.cpu_offload_layers,
            engine_name=choice.engine_name or "paged",
            draft_model=choice.draft_model,
        )
        self.tokenizer = FakeTokenizer()
        self.is_unloaded = False
        self.parallel = self.degraded_reason = None
        # As of replicas on a cluster: whether another model finds room beside this one.
        self.has_room = self.was_reclaimed = False
        self.num_running = 0
        self.generated_tokens_total = 0
        self.requests: list[dict] = []
        self._words, self._gate, self._error = words, gate, error

    @property
    def is_loaded(self) -> bool:
        return not self.is_unloaded

    def submit(self, prompt=None, *, messages=None, **sampling):
        if self.is_unloaded:
            raise EngineStoppedError("the engine was unloaded")
        self.requests.append({"prompt": prompt, "messages": messages, **sampling})
        wants_scores = bool(sampling.get("logprobs"))
        return FakeGeneration(self, list(self._words), self._gate, self._error, wants_scores)

    def stats(self) -> EngineStats:
        if self.is_unloaded:
            raise EngineStoppedError("the engine was unloaded")
        return EngineStats(
            num_running=self.num_running,
            weight_bytes=self.weight_bytes,
            kv_bytes=self.limits.kv_bytes,
            kv_blocks_total=100,
            kv_blocks_used=self.num_running,
            generated_tokens_total=self.generated_tokens_total,
            prompt_tokens_total=7 * len(self.requests),
        )

    def make_room(self) -> bool:
        return self.has_room

    def reclaim_room(self) -> None:
        self.was_reclaimed = True

    def unload(self) -> dict[str, int]:
        self.is_unloaded = True
        return {"cpu": 500_000_000}


class FakeFactory:
    """Makes `FakeLlama`s as `Session` wants them, in `num_steps` steps of progress, or fails with `load_error`."""

    def __init__(self, words=("Hello", " there", "."), *, num_steps=4, load_error=None, reply_error=None) -> None:
        self.load_gate = Gate()
        self.reply_gate = Gate()
        self.words = words
        self.num_steps = num_steps
        self.load_error = load_error
        self.reply_error = reply_error
        self.made: list[FakeLlama] = []
        self.choices: list = []

    def __call__(self, choice, progress) -> FakeLlama:
        self.choices.append(choice)
        for step in range(self.num_steps):
            progress(Progress("load weights", step * 1_000_000, self.num_steps * 1_000_000))
            self.load_gate.pass_through()
        if self.load_error is not None:
            raise self.load_error
        llm = FakeLlama(choice, words=self.words, gate=self.reply_gate, error=self.reply_error)
        self.made.append(llm)
        return llm
