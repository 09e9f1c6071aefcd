"""What guessing ahead gains on a GPU at a large shape, by how predictable the text is; with and without by turns.

    python benchmarks/guesses_gpu.py --model random:llama-3.1-8b --streams 1,2,4,8,16

Random weights repeat nothing. So here what attention and feed-forward add is made small, and tokens whose ids leave the
same rest share a row of the embedding: a token follows from the one before it, and greedy text soon goes in circles.
A low temperature breaks the circle now and then, a high one always; the time of a step is what it was. One engine, in a
thread, whose guessing is switched off and on.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace

import torch
from guesses import PROMPTS, differences, tokens_per_s

from workbench import EngineConfig, LlamaGPU
from workbench.engine.measured_lookup import MeasuredLookup

_PERIOD = 16
_SMALL = 1e-3
TEXTS = {"goes in circles": 0.0, "mostly goes in circles": 0.1, "never repeats": 1.0}


def make_repetitive(llm: LlamaGPU) -> None:
    """Change the loaded weights as said above."""
    weights = llm._client._core._engine._runner.steps._decoder._weights
    with torch.no_grad():
        table = weights.embedding
        table.copy_(table[:_PERIOD].repeat(-(-len(table) // _PERIOD), 1)[: len(table)])
        for layer in weights.layers:
            layer.output.mul_(_SMALL)
            layer.down.mul_(_SMALL)
    torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="random:llama-3.1-8b")
    parser.add_argument("--quant-type", default="bf16", help="one whose embedding and projections stay floats")
    parser.add_argument("--draft-tokens", type=int, default=7)
    parser.add_argument("--streams", default="1,2,4,8,16")
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    started_s = time.monotonic()
    config = EngineConfig(
        draft_tokens=arguments.draft_tokens, context_length=2048, kv_cache_tokens=65536, isolation="thread"
    )
    llm = LlamaGPU(arguments.model, backend="cuda", quant_type=arguments.quant_type, engine=config, check_plan=False)
    print(f"loaded in {time.monotonic() - started_s:.1f} s, {llm.runner_reason}", flush=True)
    make_repetitive(llm)
    scheduler = llm._client._core._engine.scheduler
    with_guesses, without = scheduler.limits, replace(scheduler.limits, draft_tokens=0)
    prompt = PROMPTS["prose"]

    def run(streams: int, temperature: float, limits, tokens: int = arguments.tokens):
        scheduler.limits = limits
        return tokens_per_s(llm, prompt, streams, tokens, **({"temperature": temperature} if temperature else {}))

    for streams in map(int, arguments.streams.split(",")):
        scheduler.drafter = MeasuredLookup(arguments.draft_tokens)
        for limits in (without, with_guesses):
            run(streams, 0.0, limits, 32)
        for name, temperature in TEXTS.items():
            drafter, rates, ratios, gaps, same = scheduler.drafter, [], [], [], []
            before = drafter.num_drafted, drafter.num_accepted
            for _ in range(arguments.rounds):
                one, ids = run(streams, temperature, without)
                other, guessed_ids = run(streams, temperature, with_guesses)
                rates.append(f"{one:.0f} -> {other:.0f}")
                ratios.append(other / one)
                gaps += [] if temperature else differences(llm, prompt, ids, guessed_ids)
                same += [one_ids == other_ids for one_ids, other_ids in zip(ids, guessed_ids, strict=True)]
            words = f"{sum(same)} of {len(same)} answers the same"
            apart = [gap for gap in gaps if gap is not None]
            words += f", greedy ones part at most {max(apart):.3f} apart; " if apart else "; "
            print(
                f"{streams} streams, {name}: {', '.join(rates)} tokens/s, {statistics.median(ratios):.2f} times; "
                f"{drafter.num_accepted - before[1]} of {drafter.num_drafted - before[0]} guesses right; {words}"
                f"{_costs(drafter, streams)}",
                flush=True,
            )
    llm.unload()


def _costs(drafter: MeasuredLookup, streams: int) -> str:
    steps = drafter._price._of(streams)
    return f"a step takes {steps.plain.seconds * 1e3:.2f} ms, {steps.guessed.seconds * 1e3:.2f} with guesses"


if __name__ == "__main__":
    main()
