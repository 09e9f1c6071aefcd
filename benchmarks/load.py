"""How long loading takes and what `unload()` gives back, for two loads in this process.

python benchmarks/load.py --import-libraries-first --use --model default

Memory is this process's resident size, and with `--isolation process` what the engine's own process has for itself.
"""

from __future__ import annotations

import argparse
import time

import psutil


def held_mb() -> float:
    this = psutil.Process()
    children = sum(child.memory_full_info().uss for child in this.children())
    return (this.memory_info().rss + children) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="default")
    parser.add_argument("--import-libraries-first", action="store_true")
    parser.add_argument("--use", action="store_true", help="answer sixteen requests before unloading")
    parser.add_argument("--isolation", choices=("thread", "process"), default="thread")
    arguments = parser.parse_args()
    from workbench import EngineConfig, LlamaGPU

    start_mb = held_mb()
    if arguments.import_libraries_first:
        from transformers import PreTrainedTokenizerFast  # noqa: F401

        if arguments.isolation == "thread":
            import torch  # noqa: F401
    print(f"libraries: {held_mb() - start_mb:.0f} MB")
    for number in ("first", "second"):
        before_mb, started = held_mb(), time.perf_counter()
        llm = LlamaGPU(arguments.model, engine=EngineConfig(isolation=arguments.isolation))
        seconds = time.perf_counter() - started
        if arguments.use:
            for text in ("One story.", "Another story. " * 100):
                for generation in [llm.submit(f"{text} {i}", max_tokens=48, ignore_eos=True) for i in range(8)]:
                    generation.result()
        took_mb, weights_mb = held_mb() - before_mb, llm.weight_bytes / 1e6
        freed_mb = sum(llm.unload().values()) / 1e6
        print(
            f"{number} load: {seconds:.2f} s, took {took_mb:.0f} MB ({weights_mb:.0f} MB of weights), "
            f"gave back {freed_mb:.0f} MB ({freed_mb / took_mb:.0%})",
            flush=True,
        )


if __name__ == "__main__":
    main()
