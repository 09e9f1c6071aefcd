"""What guessing ahead gains: tokens/s with and without by turns, on text that repeats its prompt and on other text.

python benchmarks/guesses.py --quant-type gguf --draft-tokens 8
python benchmarks/guesses.py --quant-type bf16 --draft-model default --draft-tokens 4
python benchmarks/guesses.py --quant-type bf16 --draft-layers 4 --draft-tokens 4 --tokens 512
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from contextlib import ExitStack

from workbench import EngineConfig, LlamaGPU

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


def tokens_per_s(llm: LlamaGPU, prompt: str, streams: int, tokens: int, **sampling: object) -> tuple[float, list]:
    """Of all streams together while they decode, and their token ids."""
    options = {"max_tokens": tokens, "ignore_eos": True, **sampling}
    running = [llm.submit(prompt, **options, **({"seed": i} if sampling else {})) for i in range(streams)]
    answers = [generation.result() for generation in running]
    rate = statistics.fmean(answer.timings.decode_tokens_per_s for answer in answers) * streams
    return rate, [answer.token_ids for answer in answers]


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="default")
    parser.add_argument("--quant-type")
    parser.add_argument("--draft-tokens", type=int, default=8)
    parser.add_argument("--draft-model", help="guesses, in place of looking up what came before")
    parser.add_argument("--draft-layers", type=int, help="the model's own first layers are the draft model")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--streams", default="1,4")
    parser.add_argument("--only", choices=PROMPTS, action="append")
    arguments = parser.parse_args()

    def load(draft_tokens: int | None, draft_model: str | None = None) -> LlamaGPU:
        config = EngineConfig(draft_tokens=draft_tokens, draft_model=draft_model, context_length=2048)
        return LlamaGPU(arguments.model, quant_type=arguments.quant_type, engine=config, check_plan=False)

    with ExitStack() as stack:
        draft_model = arguments.draft_model
        if arguments.draft_layers:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            draft_model = truncated(arguments.model, arguments.draft_layers, folder)
        plain = stack.enter_context(load(None))
        guessing = stack.enter_context(load(arguments.draft_tokens, draft_model))
        for name in arguments.only or PROMPTS:
            prompt = PROMPTS[name]
            for sampling in ({}, {"temperature": 0.8}):
                for streams in map(int, arguments.streams.split(",")):
                    before, ratios, rates, same = guessing.stats(), [], [], True
                    for _ in range(arguments.rounds):
                        one, ids = tokens_per_s(plain, prompt, streams, arguments.tokens, **sampling)
                        other, guessed_ids = tokens_per_s(guessing, prompt, streams, arguments.tokens, **sampling)
                        ratios.append(other / one)
                        rates.append((one, other))
                        same &= ids == guessed_ids
                    after = guessing.stats()
                    drafted = after.draft_tokens_total - before.draft_tokens_total
                    accepted = after.accepted_draft_tokens_total - before.accepted_draft_tokens_total
                    print(
                        f"{name}, {'sampled' if sampling else 'greedy'}, {streams} streams: "
                        f"{', '.join(f'{a:.0f} -> {b:.0f}' for a, b in rates)} tokens/s, "
                        f"{statistics.median(ratios):.2f} times; {accepted} of {drafted} guesses right; "
                        f"{'the same tokens' if same else 'OTHER TOKENS'}",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
