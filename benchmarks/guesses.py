"""What guessing ahead gains: tokens/s with and without by turns, on text that repeats its prompt and on other text.

python benchmarks/guesses.py --quant-type gguf --draft-tokens 8
python benchmarks/guesses.py --quant-type bf16 --draft-model default --draft-tokens 4
python benchmarks/guesses.py --quant-type bf16 --draft-layers 4 --draft-tokens 4 --tokens 512
python benchmarks/guesses.py --backend cuda --model random:llama-3.1-8b --only prose --streams 1,2,4,8,16 --rounds 2

Where greedy tokens differ, as they may where a step of several rows rounds in another order than one of one row, it
tells how close the model itself finds the first token that differs: a tie is at most 1/4 between log-probabilities, a
few roundings of logits of 8 to 16 in bfloat16. `--known` guesses what was answered before, as a text that is wholly
predictable would be guessed: a model with random weights repeats nothing.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack

from workbench import EngineConfig, LlamaGPU
from workbench.engine.measured_lookup import MeasuredLookup
from workbench.engine.sequence import Sequence

_PASSAGE = (
    "The harbour of Lisbon lies on the river Tagus. In the morning the ferries leave for the other bank, and the "
    "fishermen sell sardines near the market hall. In the evening the lamps along the quay are lit one by one, and "
    "the last tram climbs the hill to the castle."
)
_CODE = "def area(width, height):\n    return width * height\n\n\ndef volume(width, height, depth):\n    return width"
PROMPTS = {
    "copies the prompt": f"Repeat this text word for word, then again.\n\n{_PASSAGE}\n\n{_PASSAGE}\n\nThe harbour of",
    "code": _CODE,
    "prose": "Once upon a time, in a village at the foot of a mountain, there lived an old clockmaker who",
}
_TIE = 1 / 4


class Known(MeasuredLookup):
    """Guesses that an answer becomes what one with the same beginning became before."""

    def __init__(self, max_tokens: int) -> None:
        super().__init__(max_tokens)
        self.texts: list[list[int]] = []

    def wants(self, sequences: Iterable[Sequence]) -> bool:
        return any(self._next(sequence, 2) for sequence in sequences)

    def draft(self, room: Mapping[Sequence, int]) -> dict[Sequence, tuple[int, ...]]:
        return {sequence: self._next(sequence, min(most, self.max_tokens)) for sequence, most in room.items()}

    def _next(self, sequence: Sequence, most: int) -> tuple[int, ...]:
        length = sequence.num_tokens
        texts = (text for text in self.texts if text[:length] == sequence.token_ids)
        return tuple(next(texts, [])[length : length + max(0, most)])


def tokens_per_s(llm: LlamaGPU, prompt: str, streams: int, tokens: int, **sampling: object) -> tuple[float, list]:
    """Of all streams together while they decode, and their token ids."""
    options = {"max_tokens": tokens, "ignore_eos": True, **sampling}
    ids = llm.tokenizer.encode(prompt)
    running = [llm.submit([*_mark(i), *ids], **options, **({"seed": i} if sampling else {})) for i in range(streams)]
    answers = [generation.result() for generation in running]
    rate = statistics.fmean(answer.timings.decode_tokens_per_s for answer in answers) * streams
    return rate, [answer.token_ids for answer in answers]


def _mark(stream: int) -> list[int]:
    """A few tokens that tell the streams apart, so that their answers differ."""
    return random.Random(stream).choices(range(100, 200), k=3) if stream else []


def differences(llm: LlamaGPU, prompt: str, answers: list, others: list) -> list[float | None]:
    """Of each answer, how far apart `llm` finds the first two tokens that differ (log-probabilities); None where none
    do."""
    gaps: list[float | None] = []
    for stream, (one, other) in enumerate(zip(answers, others, strict=True)):
        at = next((i for i, pair in enumerate(zip(one, other, strict=True)) if pair[0] != pair[1]), None)
        if at is None:
            gaps.append(None)
            continue
        ids = [*_mark(stream), *llm.tokenizer.encode(prompt), *one[:at]]
        (entry,) = llm.submit(ids, max_tokens=1, logprobs=True, top_logprobs=20).result().logprobs
        chances = dict(entry.top)
        lowest = min(chances.values())
        gaps.append(abs(chances.get(one[at], lowest) - chances.get(other[at], lowest - 1)))
    return gaps


def truncated(model: str, num_layers: int, folder: str) -> str:
    """A folder with the model's first layers alone: a draft that is quick and mostly wrong."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from workbench.models import Catalogue

    path = Catalogue().resolve(model).folder
    shorter = AutoModelForCausalLM.from_pretrained(path, dtype="bfloat16")
    shorter.model.layers = shorter.model.layers[:num_layers]
    shorter.config.num_hidden_layers = num_layers
    shorter.config.layer_types = None
    shorter.save_pretrained(folder)
    AutoTokenizer.from_pretrained(path).save_pretrained(folder)
    return folder


def _said(gaps: list[float | None], *, is_greedy: bool) -> str:
    apart = [gap for gap in gaps if gap is not None]
    words = f"{len(gaps) - len(apart)} of {len(gaps)} answers the same"
    if not apart or not is_greedy:
        return words
    num_ties = sum(gap <= _TIE for gap in apart)
    return f"{words}, {num_ties} part at a tie (at most {max(apart):.3f} apart)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="default")
    parser.add_argument("--quant-type")
    parser.add_argument("--backend")
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--kv-cache-tokens", type=int, default=32768)
    parser.add_argument("--draft-tokens", type=int, default=8)
    parser.add_argument("--draft-model", help="guesses, in place of looking up what came before")
    parser.add_argument("--draft-layers", type=int, help="the model's own first layers are the draft model")
    parser.add_argument("--known", action="store_true")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--streams", default="1,4")
    parser.add_argument("--only", choices=PROMPTS, action="append")
    arguments = parser.parse_args()

    def load(draft_tokens: int | None, draft_model: str | None = None) -> LlamaGPU:
        config = EngineConfig(
            draft_tokens=draft_tokens,
            draft_model=draft_model,
            context_length=2048,
            kv_cache_tokens=arguments.kv_cache_tokens,
            isolation="thread" if arguments.known else None,
        )
        started_s = time.monotonic()
        llm = LlamaGPU(
            arguments.model,
            backend=arguments.backend,
            quant_type=arguments.quant_type,
            engine=config,
            check_plan=False,
        )
        llm.wait_until_compiled()
        print(f"{llm.model_name} loaded in {time.monotonic() - started_s:.1f} s, {llm.runner_reason}", flush=True)
        return llm

    with ExitStack() as stack:
        draft_model = arguments.draft_model
        if arguments.draft_layers:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            draft_model = truncated(arguments.model, arguments.draft_layers, folder)
        plain = stack.enter_context(load(0))
        guessing = stack.enter_context(load(arguments.draft_tokens, draft_model))
        known = Known(arguments.draft_tokens)
        if arguments.known:
            guessing._client._core._engine.scheduler.drafter = known
        for name in arguments.only or PROMPTS:
            prompt = PROMPTS[name]
            for sampling in ({}, {"temperature": arguments.temperature}):
                for streams in map(int, arguments.streams.split(",")):
                    for llm in (plain, guessing):  # the first requests of a kind take longer
                        tokens_per_s(llm, prompt, streams, 16, **sampling)
                    before, ratios, rates, gaps = guessing.stats(), [], [], []
                    for _ in range(arguments.rounds):
                        one, ids = tokens_per_s(plain, prompt, streams, arguments.tokens, **sampling)
                        begins = ([*_mark(i), *plain.tokenizer.encode(prompt)] for i in range(streams))
                        known.texts = [[*begin, *answer] for begin, answer in zip(begins, ids, strict=True)]
                        other, guessed_ids = tokens_per_s(guessing, prompt, streams, arguments.tokens, **sampling)
                        ratios.append(other / one)
                        rates.append((one, other))
                        gaps += differences(plain, prompt, ids, guessed_ids)
                    after = guessing.stats()
                    drafted = after.draft_tokens_total - before.draft_tokens_total
                    accepted = after.accepted_draft_tokens_total - before.accepted_draft_tokens_total
                    print(
                        f"{name}, {'sampled' if sampling else 'greedy'}, {streams} streams: "
                        f"{', '.join(f'{a:.0f} -> {b:.0f}' for a, b in rates)} tokens/s, "
                        f"{statistics.median(ratios):.2f} times; {accepted} of {drafted} guesses right; "
                        f"{_said(gaps, is_greedy=not sampling)}",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
