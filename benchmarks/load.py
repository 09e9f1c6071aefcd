"""How long loading takes and what `unload()` gives back, for two loads in this process.

python benchmarks/load.py --import-torch-first --model default
"""

from __future__ import annotations

import argparse
import time

import psutil


def resident_mb() -> float:
    return psutil.Process().memory_info().rss / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="default")
    parser.add_argument("--import-torch-first", action="store_true")
    arguments = parser.parse_args()
    if arguments.import_torch_first:
        import torch  # noqa: F401
    from workbench import LlamaGPU

    for number in ("first", "second"):
        before_mb, started = resident_mb(), time.perf_counter()
        llm = LlamaGPU(arguments.model)
        seconds, loaded_mb = time.perf_counter() - started, resident_mb()
        weights_mb = llm.weight_bytes / 1e6
        freed_mb = sum(llm.unload().values()) / 1e6
        took_mb = loaded_mb - before_mb
        print(
            f"{number} load: {seconds:.2f} s, took {took_mb:.0f} MB ({weights_mb:.0f} MB of weights), "
            f"gave back {freed_mb:.0f} MB ({freed_mb / took_mb:.0%})",
            flush=True,
        )


if __name__ == "__main__":
    main()
