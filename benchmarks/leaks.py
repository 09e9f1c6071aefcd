"""10,000 random requests, most of them aborted somewhere: the pool must be whole and memory flat afterwards.

python benchmarks/leaks.py --requests 10000 [--device cuda]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import torch

# In place of this folder, whose engine.py would hide the tests' folder of that name.
sys.path.pop(0)
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from engine.random_aborts import run_random_aborts
from engine.tiny_engine import build, engine_around

from workbench import EngineConfig, LlamaGPU
from workbench.engine.client import EngineClient

# So small a pool that requests wait, share blocks and are preempted.
_KNOBS = {"kv_cache_tokens": 384, "block_size": 4, "max_num_seqs": 16, "max_num_batched_tokens": 128}


@contextmanager
def _small_pool(device: str) -> Iterator[EngineClient]:
    """A client to an engine whose pool is whole when the block ends."""
    if device == "cpu":
        with engine_around(build("llama"), **_KNOBS) as client:
            yield client
        return
    config = EngineConfig(context_length=256, isolation="thread", **_KNOBS)
    with LlamaGPU("random:tiny", backend="cuda", engine=config, check_plan=False) as llm:
        llm.wait_until_compiled()
        engine = llm._client._core._engine
        yield llm._client
        assert llm.stats().kv_blocks_used == 0
        engine.check_integrity()


def _on_device(device: str) -> str:
    if device == "cpu":
        return ""
    free_bytes, total_bytes = torch.cuda.mem_get_info()
    return f", {torch.cuda.memory_allocated() / 1e6:.1f} MB allocated, {(total_bytes - free_bytes) / 1e6:.0f} MB in use"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    arguments = parser.parse_args()
    with _small_pool(arguments.device) as client:
        for number in range(arguments.rounds):
            began_s = time.perf_counter()
            ended = run_random_aborts(client, arguments.requests // arguments.rounds, seed=number)
            stats = client.stats()
            print(
                f"round {number}: {dict(ended)} in {time.perf_counter() - began_s:.0f} s; "
                f"{stats.kv_blocks_used} blocks in use, {stats.preemptions_total} preemptions, "
                f"{psutil.Process().memory_info().rss / 1e6:.0f} MB resident{_on_device(arguments.device)}",
                flush=True,
            )
    # It was checked on the way out.
    print(f"{arguments.requests} requests: the pool is whole")


if __name__ == "__main__":
    main()
