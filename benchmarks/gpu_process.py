"""The engine's own process on a GPU: start with cold and warm caches, memory back to the last byte, and a crash.

python benchmarks/gpu_process.py --model random:llama-3.1-8b

The first start compiles kernels, the later ones find them: begin without Triton's cache (TRITON_CACHE_DIR) to time a
cold one. Memory is what the driver says is in use on the whole device, so nothing else may run there.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import time

import pynvml

from workbench import EngineConfig, LlamaGPU
from workbench.errors import WorkbenchError


class Device:
    """Bytes in use on the first GPU, from the driver: no CUDA context is made here."""

    def __init__(self) -> None:
        pynvml.nvmlInit()
        self._handle = pynvml.nvmlDeviceGetHandleByIndex(0)

    def used_bytes(self) -> int:
        return int(pynvml.nvmlDeviceGetMemoryInfo(self._handle).used)


def start(model: str, quant_type: str | None) -> tuple[LlamaGPU, dict[str, float]]:
    """A model in a process of its own; seconds until it is loaded and until its first token."""
    began_s = time.perf_counter()
    llm = LlamaGPU(
        model, backend="cuda", quant_type=quant_type, engine=EngineConfig(context_length=4096), check_plan=False
    )
    loaded_s = time.perf_counter() - began_s
    llm.infer([5, 6, 7], max_tokens=1)
    return llm, {"loaded_s": loaded_s, "first_token_s": time.perf_counter() - began_s}


def load_and_unload(model: str, quant_type: str | None, device: Device) -> dict[str, object]:
    """One start, 16 answers at once, and the end of it."""
    before = device.used_bytes()
    llm, seconds = start(model, quant_type)
    running = [llm.submit([9 + n] * 100, max_tokens=64, ignore_eos=True) for n in range(16)]
    tokens = sum(len(generation.result().token_ids) for generation in running)
    used = device.used_bytes()
    words, isolation = llm.runner_reason, llm.isolation
    receipt = llm.unload()
    return seconds | {
        "tokens": tokens,
        "runner": words,
        "isolation": isolation,
        "taken_mb": (used - before) / 1e6,
        "kept_after_unload_bytes": device.used_bytes() - before,
        "receipt_mb": {name: value / 1e6 for name, value in receipt.items()},
    }


def crash(model: str, device: Device) -> dict[str, object]:
    """SIGKILL the engine's process under 8 running requests: what each of them says, and whether a restart works."""
    before = device.used_bytes()
    llm, _ = start(model, None)
    running = [llm.submit([3 + n] * 50, max_tokens=3000, ignore_eos=True) for n in range(8)]
    for generation in running:
        next(iter(generation))
    killed_s = time.perf_counter()
    os.kill(llm._client._core.pid, signal.SIGKILL)
    errors = []
    for generation in running:
        try:
            generation.result(timeout_s=60)
            errors.append("an answer")
        except WorkbenchError as error:
            errors.append(f"{type(error).__name__}: {error}")
    ended_s = time.perf_counter() - killed_s
    kept = device.used_bytes() - before
    began_s = time.perf_counter()
    llm.restart()
    text = llm.submit([5, 6, 7], max_tokens=4, ignore_eos=True).result().token_ids
    restarted_s = time.perf_counter() - began_s
    llm.unload()
    return {
        "all_ended_s": ended_s,
        "errors": sorted(set(errors)),
        "kept_after_kill_bytes": kept,
        "restart_s": restarted_s,
        "tokens_after_restart": len(text),
        "kept_after_unload_bytes": device.used_bytes() - before,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="random:llama-3.1-8b")
    parser.add_argument("--quant-type")
    parser.add_argument("--starts", type=int, default=2)
    parser.add_argument("--crash", action="store_true")
    arguments = parser.parse_args()
    device = Device()
    for number in range(arguments.starts):
        found = load_and_unload(arguments.model, arguments.quant_type, device)
        print(f"start {number}", json.dumps(found, default=lambda value: round(value, 2)), flush=True)
    if arguments.crash:
        print("crash", json.dumps(crash(arguments.model, device)), flush=True)


if __name__ == "__main__":
    main()
