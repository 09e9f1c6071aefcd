"""The engine's own process on a GPU: start with cold and warm caches, what streams feel of the switch to captured
kernels, memory back to the last byte, and a crash.

python benchmarks/gpu_process.py --model random:llama-3.1-8b

The first start compiles kernels, the later ones find them: begin without caches (TRITON_CACHE_DIR, WORKBENCH_HOME) to
time a cold one. Memory is what the driver says is in use on the whole device, so nothing else may run there.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import tempfile
import time

import psutil
import pynvml

from workbench import EngineConfig, LlamaGPU
from workbench.errors import WorkbenchError
from workbench.progress import Progress


class Device:
    """Bytes in use on the first GPU, from the driver: no CUDA context is made here."""

    def __init__(self) -> None:
        pynvml.nvmlInit()
        self._handle = pynvml.nvmlDeviceGetHandleByIndex(0)

    def used_bytes(self) -> int:
        return int(pynvml.nvmlDeviceGetMemoryInfo(self._handle).used)


class Stages:
    """When each stage of a load began, in seconds since this was made."""

    def __init__(self) -> None:
        self._began_s = time.perf_counter()
        self.began_s: dict[str, float] = {}

    def __call__(self, progress: Progress) -> None:
        self.began_s.setdefault(progress.stage, self.elapsed_s())

    def elapsed_s(self) -> float:
        return time.perf_counter() - self._began_s


def start(model: str, quant_type: str | None, isolation: str = "process") -> tuple[LlamaGPU, Stages, dict[str, object]]:
    """A model in a process of its own; seconds until it is loaded and until its first token."""
    stages = Stages()
    config = EngineConfig(context_length=4096, isolation=isolation)
    llm = LlamaGPU(
        model, backend="cuda", quant_type=quant_type, engine=config, check_plan=False, progress=stages,
    )  # fmt: skip
    loaded_s = stages.elapsed_s()
    llm.infer([5, 6, 7], max_tokens=1)
    first_token_s = stages.elapsed_s()
    return llm, stages, {"stages_s": stages.began_s, "loaded_s": loaded_s, "first_token_s": first_token_s}


def across_the_switch(llm: LlamaGPU, stages: Stages, num_streams: int) -> dict[str, object]:
    """Streams that run from the load on: seconds until the captured kernels have them, and between their tokens."""
    running = [llm.submit([3 + n] * 50, max_tokens=4000, ignore_eos=True) for n in range(num_streams)]
    came_s: list[tuple[float, str]] = []
    ready_s, last_words, words_s = None, "", {}
    for _ in running[0]:
        now_s, words = stages.elapsed_s(), llm.runner_reason
        came_s.append((now_s, words))
        kind = words.split(":")[0] if "while" in words else "final"
        if kind != last_words:
            words_s[kind], last_words = now_s, kind
        if ready_s is None and kind == "final":
            ready_s, num_before = now_s, len(came_s)
        if ready_s is not None and len(came_s) >= num_before + 100:
            break
    for generation in running:
        generation.abort()
    gaps_s = [(after[0] - before[0], after[1]) for before, after in zip(came_s, came_s[1:], strict=False)]
    slowest = sorted(gaps_s[: num_before + 2], reverse=True)[:5]
    return {
        "ready_s": ready_s,
        "phases_s": words_s,
        "tokens_before": num_before,
        "median_gap_before_ms": 1e3 * statistics.median(gap for gap, _ in gaps_s[:num_before]),
        "median_gap_after_ms": 1e3 * statistics.median(gap for gap, _ in gaps_s[num_before:]),
        "longest_gaps_ms": [(round(1e3 * gap), words) for gap, words in slowest],
    }


def load_and_unload(model: str, quant_type: str | None, device: Device) -> dict[str, object]:
    """One start, 16 answers at once, and the end of it."""
    before = device.used_bytes()
    llm, stages, found = start(model, quant_type)
    found |= across_the_switch(llm, stages, 4)
    running = [llm.submit([9 + n] * 100, max_tokens=64, ignore_eos=True) for n in range(16)]
    tokens = sum(len(generation.result().token_ids) for generation in running)
    used = device.used_bytes()
    words, isolation = llm.runner_reason, llm.isolation
    receipt = llm.unload()
    return found | {
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
    llm, _, _ = start(model, None)
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


def unload_while_preparing(model: str, device: Device) -> dict[str, object]:
    """Unload as soon as it is loaded: what is left of it, and of the processes that compile."""
    before, processes = device.used_bytes(), len(psutil.Process().children(recursive=True))
    llm, _, _ = start(model, None)
    words = llm.runner_reason
    began_s = time.perf_counter()
    llm.unload()
    return {
        "unloaded_while": words,
        "took_s": time.perf_counter() - began_s,
        "kept_bytes": device.used_bytes() - before,
        "processes_left": len(psutil.Process().children(recursive=True)) - processes,
    }


def equality(model: str, num_prompts: int = 4, num_tokens: int = 120) -> dict[str, object]:
    """Greedy texts of a random model in float32 from before the switch to after it: how many are `generate`'s."""
    config = EngineConfig(context_length=256)
    with tempfile.TemporaryDirectory() as folder:
        module = _save_random(model, folder)
        prompts = [[(7 * i + 11 * n + 3) % 250 for i in range(20 + n)] for n in range(num_prompts)]
        expected = [_generate(module, prompt, num_tokens) for prompt in prompts]
        rounds = []
        with LlamaGPU(folder, backend="cuda", quant_type="fp32", engine=config, check_plan=False) as llm:
            is_last = False
            while not is_last:
                before = llm.runner_reason
                running = [llm.submit(prompt, max_tokens=num_tokens, ignore_eos=True) for prompt in prompts]
                texts = [list(generation.result().token_ids) for generation in running]
                num_equal = sum(text == right for text, right in zip(texts, expected, strict=True))
                rounds.append({"from": before, "to": llm.runner_reason, "equal": num_equal})
                is_last = "while" not in before
    crossing = [one for one in rounds if one["from"] != one["to"] and "while" not in one["to"]]
    return {
        "rounds": len(rounds),
        "texts": len(rounds) * num_prompts,
        "equal": sum(one["equal"] for one in rounds),
        "across_the_switch": crossing,
        "after": rounds[-1],
    }


def _save_random(model: str, folder: str):
    """Save a random model with its tokenizer, and give the model itself in float32 on the GPU."""
    from workbench.models import Catalogue, load_model

    loaded = load_model(Catalogue().resolve(model), device="cuda", dtype="fp32", attn_implementation="eager")
    loaded.module.save_pretrained(folder)
    loaded.tokenizer.hf.save_pretrained(folder)
    return loaded.module


def _generate(module, prompt: list[int], num_tokens: int) -> list[int]:
    import torch

    ids = torch.tensor([prompt], device="cuda")
    out = module.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=num_tokens, do_sample=False, eos_token_id=None,
        pad_token_id=0,
    )  # fmt: skip
    return out[0, len(prompt) :].tolist()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="random:llama-3.1-8b")
    parser.add_argument("--quant-type")
    parser.add_argument("--starts", type=int, default=2)
    parser.add_argument("--crash", action="store_true")
    parser.add_argument("--unload-while-preparing", action="store_true")
    parser.add_argument(
        "--equality", nargs="*", default=[], help="models whose greedy text is compared with generate's"
    )
    arguments = parser.parse_args()
    device = Device()
    for number in range(arguments.starts):
        found = load_and_unload(arguments.model, arguments.quant_type, device)
        print(f"start {number}", json.dumps(found, default=lambda value: round(value, 2)), flush=True)
    for model in arguments.equality:
        print("equality", model, json.dumps(equality(model)), flush=True)
    if arguments.unload_while_preparing:
        print("unload", json.dumps(unload_while_preparing(arguments.model, device)), flush=True)
    if arguments.crash:
        print("crash", json.dumps(crash(arguments.model, device)), flush=True)


if __name__ == "__main__":
    main()
