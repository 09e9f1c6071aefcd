"""Models over several processes on this machine's CPU: a pipeline's idle share, what replicas bring, deaths.

python -m benchmarks.parallel [bubble|replicas|deaths] [--model random:smollm2-135m] [--tokens 48]
"""

from __future__ import annotations

import argparse
import os
import signal
import time

from benchmarks.pinning import pin
from workbench import EngineConfig, LlamaGPU
from workbench.engine import Generation
from workbench.errors import EngineStoppedError
from workbench.parallel import GPUConfig

_PROMPT = "The quick brown fox jumps over the lazy dog and"


def _open(model: str, parallel: GPUConfig | None, num_threads: int) -> LlamaGPU:
    engine = EngineConfig(kv_cache_tokens=8192, max_num_seqs=32, num_threads=num_threads, native_kernels=False)
    return LlamaGPU(model, prefer_gpu=False, quant_type="fp32", engine=engine, parallel=parallel)


def _run(llm: LlamaGPU, num_requests: int, num_tokens: int) -> float:
    """Tokens per second of equal requests at once."""
    started_s = time.perf_counter()
    running = [llm.submit(f"{_PROMPT} {i}", max_tokens=num_tokens, ignore_eos=True) for i in range(num_requests)]
    tokens = sum(len(generation.result().token_ids) for generation in running)
    return tokens / (time.perf_counter() - started_s)


def bubble(model: str, num_tokens: int) -> None:
    """Two stages with one thread each; four batches of eight requests are in flight."""
    with _open(model, GPUConfig(num_gpus=2, strategy="pipeline"), num_threads=1) as llm:
        print(llm.runner_reason)
        _run(llm, 32, 4)
        (before,) = llm.replicas()
        rate = _run(llm, 32, num_tokens)
        (after,) = llm.replicas()
        figures = after.pipeline.since(before.pipeline)
        spans = [(rank.layers.start, rank.layers.stop) for rank in after.ranks]
        print(f"2 stages, layers {spans}, 4 lanes: {rate:.0f} tokens/s, busy {[round(s, 2) for s in figures.busy_s]} s")
        print(f"of {figures.wall_s:.2f} s: bubble {figures.bubble_share:.1%}")
        shares = ", ".join(f"{rank.weight_bytes / llm.weight_bytes:.1%}" for rank in after.ranks)
        print(f"of {llm.weight_bytes / 1e6:.0f} MB of weights the stages hold {shares}")


def replicas(model: str, num_tokens: int) -> None:
    """Two replicas, each pinned to its own core, against one pinned to one core, A B A B.

    64 streams, so that every replica's batch of 32 is full: a step of a small batch takes as long as one of half of it,
    and two batches that are half full bring nothing.
    """
    cores = sorted(os.sched_getaffinity(0))
    for _ in range(2):
        one = _pinned_rate(model, num_tokens, cores[:1])
        two = _pinned_rate(model, num_tokens, cores[:2])
        print(f"one on one core {one:.1f} tokens/s, two on two cores {two:.1f} tokens/s: {two / one:.2f} times")
    os.sched_setaffinity(0, cores)


def _pinned_rate(model: str, num_tokens: int, cores: list[int]) -> float:
    os.sched_setaffinity(0, cores)
    strategy = "data" if len(cores) > 1 else "tensor"
    with _open(model, GPUConfig(num_gpus=len(cores), strategy=strategy), num_threads=1) as llm:
        for core, replica in zip(cores, llm.replicas(), strict=True):
            pin(replica.ranks[0].process_id, core)
        _run(llm, 16, 2)
        return _run(llm, 64, num_tokens)


def deaths(model: str, num_tokens: int) -> None:
    """Seconds from the SIGKILL of one process to the last of 20 requests' answer or error; `--model random:tiny`."""
    shapes = {
        "tensor": GPUConfig(num_gpus=2, strategy="tensor"),
        "pipeline": GPUConfig(num_gpus=2, strategy="pipeline"),
        "data": GPUConfig(num_gpus=2, strategy="data"),
        "hybrid": GPUConfig(num_gpus=4, strategy="hybrid", pipeline_parallel_size=2, data_parallel_size=2),
    }
    for name, shape in shapes.items():
        with _open(model, shape, num_threads=1) as llm:
            running = [llm.submit(f"{_PROMPT} {i}", max_tokens=num_tokens, ignore_eos=True) for i in range(20)]
            # Kept, since who stops reading an answer ends it.
            pieces = iter(running[0])
            next(pieces)
            os.kill(llm.replicas()[0].ranks[-1].process_id, signal.SIGKILL)
            started_s = time.perf_counter()
            num_errors = sum(_ends_in_error(generation) for generation in running)
            seconds = f"{time.perf_counter() - started_s:.1f} s"
            print(f"{name}: the last of 20 ended after {seconds}, {num_errors} with an error")


def _ends_in_error(generation: Generation) -> bool:
    try:
        generation.result()
    except EngineStoppedError:
        return True
    return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("bubble", "replicas", "deaths"))
    parser.add_argument("--model", default="random:smollm2-135m")
    parser.add_argument("--tokens", type=int, default=48)
    options = parser.parse_args()
    {"bubble": bubble, "replicas": replicas, "deaths": deaths}[options.what](options.model, options.tokens)


if __name__ == "__main__":
    main()
