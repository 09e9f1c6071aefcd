"""What an engine in a process of its own costs and gives: start, tokens/s idle and beside a busy cell, memory back.

python benchmarks/isolation.py --model random:tiny --model default
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from workbench import LlamaGPU
from workbench.engine import EngineConfig


@contextmanager
def busy_cell() -> Iterator[None]:
    """A thread that computes in Python without a pause, as a notebook's cell does."""
    stop = threading.Event()

    def compute() -> None:
        while not stop.is_set():
            sum(i * i for i in range(1000))

    thread = threading.Thread(target=compute)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def tokens_per_s(llm: LlamaGPU, streams: int, tokens: int) -> float:
    """Of the engine, from its own clock: first token to last, over all streams."""
    running = [llm.submit([5, 6, 7, 8 + i], max_tokens=tokens, ignore_eos=True) for i in range(streams)]
    results = [generation.result() for generation in running]
    return statistics.fmean(r.timings.decode_tokens_per_s for r in results) * streams


def load(model: str, isolation: str) -> tuple[LlamaGPU, float]:
    began_s = time.perf_counter()
    engine = EngineConfig(isolation=isolation, context_length=1024)
    llm = LlamaGPU(model, prefer_gpu=False, auto_detect_aws=False, check_plan=False, engine=engine)
    llm.infer([5], max_tokens=1)
    return llm, time.perf_counter() - began_s


def measure_memory(model: str) -> dict[str, float]:
    """The first load in this process: what it took here and there, and what unloading gave back."""
    before = psutil.Process().memory_info().rss
    llm, seconds = load(model, "process")
    here_mb = (psutil.Process().memory_info().rss - before) / 1e6
    there_mb = psutil.Process(llm._client._core.pid).memory_full_info().uss / 1e6
    given_back_mb = sum(llm.unload().values()) / 1e6
    share = given_back_mb / (here_mb + there_mb)
    return {
        "load_s": seconds,
        "here_mb": here_mb,
        "there_mb": there_mb,
        "given_back_mb": given_back_mb,
        "share": share,
    }


def measure_speed(model: str, tokens: int, repeats: int) -> dict[str, dict[str, float]]:
    """Thread and process by turns, in one run."""
    loaded = {isolation: load(model, isolation) for isolation in ("thread", "process")}
    rates: dict[str, dict[str, list[float]]] = {name: {} for name in loaded}
    for _ in range(repeats):
        for name, (llm, _) in loaded.items():
            for streams in (1, 8):
                rates[name].setdefault(f"{streams} streams", []).append(tokens_per_s(llm, streams, tokens))
            with busy_cell():
                rates[name].setdefault("1 streams, busy cell", []).append(tokens_per_s(llm, 1, tokens))
    figures = {name: {what: statistics.median(values) for what, values in each.items()} for name, each in rates.items()}
    for name, (llm, seconds) in loaded.items():
        figures[name]["load_s"] = seconds
        llm.unload()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", action="append", dest="models")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory-only", action="store_true")
    arguments = parser.parse_args()
    for model in arguments.models or ["random:tiny", "default"]:
        figures = {"model": model, "cpus": os.cpu_count(), "memory": measure_memory(model)}
        if not arguments.memory_only:
            figures |= measure_speed(model, arguments.tokens, arguments.repeats)
        print(json.dumps(figures, indent=1, default=lambda value: round(value, 2)), flush=True)


if __name__ == "__main__":
    main()
