"""10,000 random requests, most of them aborted somewhere: the pool must be whole and memory flat afterwards.

python benchmarks/leaks.py --requests 10000
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import psutil

# In place of this folder, whose engine.py would hide the tests' folder of that name.
sys.path.pop(0)
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from engine.random_aborts import run_random_aborts
from engine.tiny_engine import build, engine_around


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    # So small a pool that requests wait, share blocks and are preempted.
    with engine_around(
        build("llama"), kv_cache_tokens=384, block_size=4, max_num_seqs=16, max_num_batched_tokens=128
    ) as client:
        for number in range(arguments.rounds):
            began_s = time.perf_counter()
            ended = run_random_aborts(client, arguments.requests // arguments.rounds, seed=number)
            stats = client.stats()
            print(
                f"round {number}: {dict(ended)} in {time.perf_counter() - began_s:.0f} s; "
                f"{stats.kv_blocks_used} blocks in use, {stats.preemptions_total} preemptions, "
                f"{psutil.Process().memory_info().rss / 1e6:.0f} MB resident",
                flush=True,
            )
    # `engine_around` has called check_integrity on the way out.
    print(f"{arguments.requests} requests: the pool is whole")


if __name__ == "__main__":
    main()
