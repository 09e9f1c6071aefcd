"""Models over GPUs: the same text as on one, tokens/s beside one, and what a rank's death does to its requests.

    python benchmarks/gpu_parallel.py cost                  # one rank in a process of its own against none, one GPU
    python benchmarks/gpu_parallel.py text rates kill --gpus 2

Rates are decode rates (from the last first token to the first last one), prompts of 128 random tokens.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from workbench import EngineConfig, LlamaGPU
from workbench.errors import WorkbenchError
from workbench.parallel import GPUConfig

_NEW = 128


@contextmanager
def opened(model: str, parallel: GPUConfig | None, quant_type: str | None = None) -> Iterator[LlamaGPU]:
    """A model with room for 64 requests, its loop in this process."""
    engine = EngineConfig(
        context_length=1024, kv_cache_tokens=64 * 512, enable_prefix_caching=False,
        isolation="thread" if parallel is None else None,
    )  # fmt: skip
    began_s = time.perf_counter()
    with LlamaGPU(model, quant_type=quant_type, engine=engine, parallel=parallel, check_plan=False) as llm:
        print(f"  {model}: {llm.runner_reason}, loaded in {time.perf_counter() - began_s:.1f} s", flush=True)
        yield llm


def prompts(llm: LlamaGPU, count: int, length: int, seed: int = 0) -> list[list[int]]:
    draw = random.Random(seed)
    return [draw.choices(range(5, llm.spec.vocab_size - 5), k=length) for _ in range(count)]


def rate(llm: LlamaGPU, batch: int, seed: int, new: int = _NEW) -> float:
    """Tokens/s of `batch` greedy answers at once."""
    running = [llm.submit(p, max_tokens=new, ignore_eos=True) for p in prompts(llm, batch, 128, seed)]
    usages = []
    for generation in running:
        *_, last = generation
        usages.append(last.usage)
    step_s = (min(u.finished_s for u in usages) - max(u.first_token_s for u in usages)) / (new - 1)
    return batch / step_s


def rates(llm: LlamaGPU, batches: tuple[int, ...], new: int = _NEW) -> dict[int, float]:
    return {b: round(statistics.median([rate(llm, b, seed, new) for seed in range(3)][1:]), 1) for b in batches}


def cost(options: argparse.Namespace) -> None:
    """One rank in a process of its own against an engine in a thread, both loaded, turn by turn."""
    with (
        opened(options.model, None) as one,
        opened(options.model, GPUConfig(num_gpus=1, strategy="tensor")) as group,
    ):
        for batch in (1, 8, 64):
            pairs = [(rate(one, batch, seed), rate(group, batch, seed)) for seed in range(4)][1:]
            shares = statistics.median(b / a for a, b in pairs)
            words = ", ".join(f"{a:.0f} and {b:.0f}" for a, b in pairs)
            print(f"batch {batch}: {words} tokens/s, the rank's share {shares:.3f}", flush=True)


def text(options: argparse.Namespace) -> None:
    """Greedy text of 20 prompts at once, each strategy against one GPU."""
    for model, quant_type in (("random:tiny", "fp32"), ("random:llama-3.2-1b", None)):
        with opened(model, None, quant_type) as llm:
            asked = prompts(llm, 20, 40)
            expected = [llm.submit(p, max_tokens=32, ignore_eos=True) for p in asked]
            expected = [generation.result().token_ids for generation in expected]
        for strategy in options.strategies:
            with opened(model, GPUConfig(num_gpus=options.gpus, strategy=strategy), quant_type) as llm:
                found = [llm.submit(p, max_tokens=32, ignore_eos=True) for p in asked]
                found = [generation.result().token_ids for generation in found]
                share = [rank.weight_bytes / 1e6 for replica in llm.replicas() for rank in replica.ranks]
            equal = sum(a == b for a, b in zip(expected, found, strict=True))
            first = [
                next((i for i, (a, b) in enumerate(zip(one, other, strict=True)) if a != b), 32)
                for one, other in zip(expected, found, strict=True)
            ]
            print(
                f"{model} {quant_type or 'bf16'} {strategy}: {equal} of 20 equal, tokens until the first other one "
                f"{min(first)} at least, {statistics.mean(first):.0f} on average; weights per rank "
                f"{', '.join(f'{mb:.0f}' for mb in share)} MB",
                flush=True,
            )


def run_rates(options: argparse.Namespace) -> None:
    """Tokens/s of one GPU and of each strategy."""
    with opened(options.model, None) as llm:
        print("one GPU", rates(llm, (1, 8, 64)), flush=True)
    for strategy in options.strategies:
        with opened(options.model, GPUConfig(num_gpus=options.gpus, strategy=strategy)) as llm:
            # Stages compute with torch's operators, one launch after the other.
            found = rates(llm, (1, 64), new=24) if strategy == "pipeline" else rates(llm, (1, 8, 64, 128))
            print(strategy, found, llm.replicas()[0].pipeline, flush=True)


def kill(options: argparse.Namespace) -> None:
    """SIGKILL one rank under load; every request must end within 10 s."""
    for strategy in options.strategies:
        with opened("random:llama-3.2-1b", GPUConfig(num_gpus=options.gpus, strategy=strategy)) as llm:
            running = [llm.submit(p, max_tokens=800, ignore_eos=True) for p in prompts(llm, 24, 64)]
            begun = [iter(generation) for generation in running]  # dropping one would abort its request
            for chunks in begun:
                next(chunks)
            ends: list[str] = []

            def follow(generation, ends=ends) -> None:
                try:
                    ends.append(f"{len(generation.result(timeout_s=60).token_ids)} tokens")
                except WorkbenchError as error:
                    ends.append(f"{type(error).__name__}: {error}")

            threads = [threading.Thread(target=follow, args=(generation,)) for generation in running]
            for thread in threads:
                thread.start()
            began_s = time.perf_counter()
            os.kill(llm.replicas()[-1].ranks[-1].process_id, signal.SIGKILL)
            for thread in threads:
                thread.join()
            ended_s = time.perf_counter() - began_s
            counts = {end[:160]: ends.count(end) for end in ends}
            print(f"{strategy}: all 24 ended {ended_s:.1f} s after the kill: {counts}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="+", choices=("cost", "text", "rates", "kill"))
    parser.add_argument("--model", default="random:llama-3.1-8b")
    parser.add_argument("--gpus", type=int, default=2)
    parser.add_argument("--strategies", type=lambda words: words.split(","), default=["tensor", "pipeline", "data"])
    options = parser.parse_args()
    for what in options.what:
        print(what, flush=True)
        {"cost": cost, "text": text, "rates": run_rates, "kill": kill}[what](options)


if __name__ == "__main__":
    main()
