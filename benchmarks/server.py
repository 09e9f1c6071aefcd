"""Measures the endpoint on this machine against the engine behind it.

    python benchmarks/server.py                                 # throughput, first byte, vanishing clients
    python benchmarks/server.py --parts flood,keys              # what one key's flood costs another, and a key's check
    python benchmarks/server.py --parts load --load-s 300 --kv-cache-tokens 4096    # memory, and missing answers

The server runs in this process, as in a notebook; the clients in another one. Throughput and first byte are taken in
turn with the engine's own, on the same prompts. The KV pool takes memory as it fills, up to its size: it is filled
before the load starts, so that what grows is something else.

Ends with 1 when a figure misses its goal.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import statistics
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parent))
from served_traffic import Address, beside_flood, mixed_load, stream_at_once, stream_one, vanish

from workbench import EngineConfig, LlamaGPU
from workbench.server.keys import KeyRing, Scope, static_key

# Of the second client in `flood`.
CALM_KEY = "key-of-the-calm-client"
GOALS = {
    "served_over_engine": (">=", 0.90),
    "first_byte_later_ms": ("<=", 30.0),
    "first_text_later_ms": ("<=", 30.0),
    "idle_after_s": ("<=", 2.0),
    "memory_growth": ("<=", 0.05),
    "p99_with_a_longer_line": ("<=", 1.25),
    "key_check_spread": ("<=", 1.25),
    "unanswered": ("<=", 0),
}


def main() -> int:
    options = _options()
    report: dict[str, object] = {"versions": _versions(), "command": " ".join(sys.argv)}
    with (
        LlamaGPU(options.model, engine=_engine(options)) as llm,
        llm.serve(port=0, admin_key=CALM_KEY) as endpoint,
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as clients,
    ):
        llm.wait_until_compiled()
        address = Address(endpoint.port, endpoint.api_key)
        parts = {
            "throughput": lambda: throughput(llm, address, clients, options.streams, options.rounds),
            "first_byte": lambda: first_byte(llm, address, clients, options.tries),
            "vanish": lambda: vanishing(llm, address, clients, options.vanishing),
            "flood": lambda: flood(address, clients),
            "keys": key_checks,
            "load": lambda: load(llm, address, clients, options.load_s),
        }
        for name in options.parts.split(","):
            report[name] = parts[name]()
            _print_part(name, report[name])
    if options.json:
        Path(options.json).write_text(json.dumps(report, indent=1))
    missed = [name for part in options.parts.split(",") for name, value in report[part].items() if _misses(name, value)]
    print("missed:", ", ".join(missed) if missed else "nothing")
    return 1 if missed else 0


def throughput(llm: LlamaGPU, address: Address, clients, streams: int, rounds: int) -> dict[str, object]:
    """Tokens/s of `streams` answers at once: the engine's own and served, in turn, each pair with the same prompts."""
    own, served = [], []
    for number in range(rounds + 1):
        bodies = [_body(number * 100 + i, max_tokens=96) for i in range(streams)]
        own_rate = asyncio.run(_own_rate(llm, bodies))
        got = clients.submit(stream_at_once, address, bodies).result()
        if number:  # the first one warms up
            own.append(round(own_rate, 1))
            served.append(round(got["tokens"] / got["seconds"], 1))
    ratio = statistics.median(b / a for a, b in zip(own, served, strict=True))
    return {"engine_tokens_s": own, "served_tokens_s": served, "served_over_engine": round(ratio, 3)}


async def _own_rate(llm: LlamaGPU, bodies: list[dict]) -> float:
    started = time.perf_counter()
    counts = await asyncio.gather(*(_own_tokens(llm, body) for body in bodies))
    return sum(counts) / (time.perf_counter() - started)


async def _own_tokens(llm: LlamaGPU, body: dict) -> int:
    return sum([len(chunk.token_ids) async for chunk in llm.submit(**body)])


def first_byte(llm: LlamaGPU, address: Address, clients, tries: int) -> dict[str, object]:
    """Milliseconds to the engine's first token, and to the first byte and first text of a stream, on an idle engine."""
    own, byte, text = [], [], []
    for number in range(tries + 2):
        body = _body(50_000 + number, max_tokens=4)
        own_s = llm.submit(**body).result().timings.ttft_s
        got = clients.submit(stream_one, address, body).result()
        if number >= 2:
            own.append(own_s * 1e3)
            byte.append(got["first_byte_s"] * 1e3)
            text.append(got["first_text_s"] * 1e3)
    return {
        "engine_first_token_ms": round(statistics.median(own), 1),
        "first_byte_ms": round(statistics.median(byte), 1),
        "first_text_ms": round(statistics.median(text), 1),
        "first_byte_later_ms": round(statistics.median(b - a for a, b in zip(own, byte, strict=True)), 1),
        "first_text_later_ms": round(statistics.median(b - a for a, b in zip(own, text, strict=True)), 1),
    }


def vanishing(llm: LlamaGPU, address: Address, clients, count: int) -> dict[str, object]:
    """Seconds from the moment at which all clients break their connections until the engine has nothing to do."""
    begun = llm.stats().requests_total
    left_s = clients.submit(vanish, address, count, _body(90_000, max_tokens=1024), 3.0).result()
    while (stats := llm.stats()).num_running or stats.num_waiting:
        time.sleep(0.005)
    idle_s = time.monotonic()
    time.sleep(0.5)
    stats = llm.stats()
    assert not stats.num_running and not stats.num_waiting, "somebody came after the others had left"
    return {
        "clients": count,
        "reached_the_engine": stats.requests_total - begun,
        "idle_after_s": round(max(0.0, idle_s - left_s), 3),
    }


def flood(address: Address, clients) -> dict[str, object]:
    """Milliseconds of one key's short requests, median and 99th percentile of 90: alone, and beside another's floods.

    Beside a flood the batch is shared, and nobody is let in before an answer has ended; that the flood's line is three
    times as long must make no difference.
    """
    calm = Address(address.port, CALM_KEY)
    times_s: dict[int, list[float]] = {0: [], 12: [], 36: []}
    for _ in range(3):
        for number, taken_s in times_s.items():
            taken_s += clients.submit(beside_flood, calm, address, number, 30).result()
    p99_ms = {number: statistics.quantiles(taken_s, n=100)[98] * 1e3 for number, taken_s in times_s.items()}
    figures = {f"beside_{number}_median_ms": round(statistics.median(s) * 1e3, 1) for number, s in times_s.items()}
    figures |= {f"beside_{number}_p99_ms": round(value, 1) for number, value in p99_ms.items()}
    return {**figures, "p99_with_a_longer_line": round(p99_ms[36] / p99_ms[12], 2)}


def key_checks() -> dict[str, object]:
    """Median nanoseconds of 2,000 checks of a right key, one right but for its end, and one that is all wrong."""
    keys = [static_key(f"k{i}", Scope.USE) for i in range(8)]
    ring, right = KeyRing([key.key for key in keys]), keys[0].secret
    tried = {
        "right": right.encode(),
        "right_prefix": (right[:-1] + ("a" if right[-1] != "a" else "b")).encode(),
        "wrong": b"x" * len(right),
    }
    times_ns: dict[str, list[int]] = {name: [] for name in tried}
    for _ in range(2000):
        for name, secret in tried.items():
            started_ns = time.perf_counter_ns()
            ring.find(secret)
            times_ns[name].append(time.perf_counter_ns() - started_ns)
    medians = {name: statistics.median(values) for name, values in times_ns.items()}
    spread = max(medians.values()) / min(medians.values())
    return {**{f"{name}_ns": value for name, value in medians.items()}, "key_check_spread": round(spread, 3)}


def fill_pool(llm: LlamaGPU) -> None:
    """Compute prompts that share nothing until every block of the KV pool has been written once."""
    stats, length = llm.stats(), llm.max_context - 8
    for number in range(2 * stats.kv_blocks_total * stats.block_size // length + 1):
        ids = random.Random(number).choices(range(llm.spec.vocab_size), k=length)
        llm.infer(ids, max_tokens=1)


def load(llm: LlamaGPU, address: Address, clients, duration_s: float) -> dict[str, object]:
    """Mixed load: this process's memory after the first minute (or fifth of the time) and at the end, and answers."""
    fill_pool(llm)
    memory = _MemoryWatch()
    counts = clients.submit(mixed_load, address, duration_s).result()
    megabytes = memory.stop()
    settled = min(60.0, duration_s / 5)
    # Ten seconds' worth of readings, also where this process was held up and some are missing.
    num_readings = 10 * _MemoryWatch.PER_SECOND
    early = [m for t, m in megabytes if t >= settled][:num_readings]
    late = [m for _, m in megabytes][-num_readings:]
    return {
        "seconds": duration_s,
        "memory_mb_every_30_s": [round(m) for t, m in megabytes[:: 30 * _MemoryWatch.PER_SECOND]],
        "memory_growth": round(statistics.median(late) / statistics.median(early) - 1, 4),
        "unanswered": sum(n for kind, n in counts.items() if kind.startswith(("without", "wrong"))),
        **dict(sorted(counts.items())),
    }


class _MemoryWatch:
    """Reads this process's memory until it is stopped."""

    PER_SECOND = 2

    def __init__(self) -> None:
        self._readings: list[tuple[float, float]] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> list[tuple[float, float]]:
        """Seconds since the start, and MB."""
        self._done.set()
        self._thread.join()
        return self._readings

    def _run(self) -> None:
        process, started = psutil.Process(), time.monotonic()
        while not self._done.wait(1 / self.PER_SECOND):
            self._readings.append((time.monotonic() - started, process.memory_info().rss / 1e6))


_WORDS = "river stone cloud garden engine paper winter silver morning bridge letter mountain window candle".split()


def _body(seed: int, max_tokens: int) -> dict:
    """A prompt of some 40 tokens that no other seed gives; fields that the engine and the API both take."""
    words = " ".join(random.Random(seed).choices(_WORDS, k=36))
    return {"prompt": f"{seed}: {words}", "max_tokens": max_tokens, "temperature": 0, "ignore_eos": True}


def _engine(options: argparse.Namespace) -> EngineConfig | None:
    tokens = options.kv_cache_tokens
    return EngineConfig(kv_cache_tokens=tokens, context_length=min(tokens, 2048)) if tokens else None


def _misses(name: str, value: object) -> bool:
    if name not in GOALS:
        return False
    sign, goal = GOALS[name]
    return value < goal if sign == ">=" else value > goal


def _print_part(name: str, figures: dict[str, object]) -> None:
    for figure, value in figures.items():
        goal = " ".join(map(str, GOALS[figure])) if figure in GOALS else ""
        print(f"{name:12} {figure:32} {value!s:44} {goal}", flush=True)


def _versions() -> dict[str, str]:
    import torch
    import transformers

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "cores": str(os.cpu_count()),
        "machine": platform.processor() or platform.machine(),
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="default")
    parser.add_argument(
        "--parts", default="throughput,first_byte,vanish", help="of throughput,first_byte,vanish,flood,keys,load"
    )
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tries", type=int, default=20)
    parser.add_argument("--vanishing", type=int, default=200)
    parser.add_argument("--load-s", type=float, default=300.0)
    parser.add_argument("--kv-cache-tokens", type=int, help="size of the KV pool, the engine's default if left out")
    parser.add_argument("--json", help="write the figures here")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
