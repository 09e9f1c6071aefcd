"""Holds plans against what happens: peak memory, tokens/s and time to the first token, before and after calibration.

    python benchmarks/plan_check.py --models default,default:int8,random:smollm2-360m --json out.json

Each model is loaded in a process of its own, twice: the first run teaches the planner (through the records that every
load keeps), the second is compared with what the planner then says. Peak memory is the process's largest resident size
on a CPU; on a GPU what the device says is in use, less what was before. The cache is filled to its last token.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import threading
import time
from typing import Any

_NEW_TOKENS = 64
_ALONE_PROMPT = 128


def main() -> None:
    options = _options()
    if options.child:
        print(json.dumps(_run(options.child, options)))
        return
    if not options.no_measure:
        rates = _child(["--child", "measure"], options)
        print("rates", json.dumps(rates), flush=True)
    rows = []
    for model in options.models.split(","):
        first, second = (_child(["--child", model], options) for _ in range(2))
        rows.append(_row(model, first, second))
        print(json.dumps(rows[-1]), flush=True)
    report = {"machine": platform.platform(), "command": " ".join(sys.argv), "rows": rows}
    if options.json:
        with open(options.json, "w") as file:
            json.dump(report, file, indent=1)
    print(_table(rows))


def _run(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """One load and its runs, in this process."""
    from workbench import LlamaGPU, plan
    from workbench.planner import Calibration, measure

    backend = None if options.backend == "auto" else options.backend
    if name == "measure":
        rates = measure(backend)
        return {label: {"read": r.read_bytes_per_s, "flops": dict(r.flops), "launch": r.launch_s}
                for label, r in rates.items()}  # fmt: skip
    model, quant = _split(name)
    asked = {"backend": backend, "quant": quant, "context": options.context, "batch": options.batch}
    raw = plan(model, calibration=Calibration(), prompt_tokens=_ALONE_PROMPT, **asked)
    learnt = plan(model, prompt_tokens=_ALONE_PROMPT, **asked)
    peak = _PeakMemory(raw.backend_name)
    with peak:
        with LlamaGPU(**learnt.load_arguments()) as llm:
            load_s = time.monotonic()
            _wait_for_fast_runner(llm)
            measured = _measure_speed(llm, options)
            runner = llm.runner_reason
            load_s = time.monotonic() - load_s
    mean_context = _ALONE_PROMPT + _NEW_TOKENS / 2
    batch_context = options.context - _NEW_TOKENS / 2
    return {
        "runner": runner,
        "seconds": round(load_s, 1),
        "peak_bytes": peak.bytes,
        **measured,
        "predicted_peak_bytes": [_peak(made) for made in (raw, learnt)],
        "predicted_alone": [1 / made for made in _step_s(raw, learnt, 1, mean_context)],
        "predicted_batch": [options.batch / made for made in _step_s(raw, learnt, options.batch, batch_context)],
        "predicted_ttft_s": [made.predictor.prefill_s(_ALONE_PROMPT) for made in (raw, learnt)],
    }


def _measure_speed(llm: Any, options: argparse.Namespace) -> dict[str, float]:
    """Tokens/s alone and in a batch that fills the cache, and the time to the first token of a prompt."""
    _submit(llm, 1, 32, 17)
    alone, ttft = [], []
    for repeat in range(3):
        (timings,) = _submit(llm, 1, _ALONE_PROMPT, 1000 + repeat)
        alone.append(timings.decode_tokens_per_s)
        ttft.append(timings.ttft_s)
    batched = []
    for repeat in range(2):
        several = _submit(llm, options.batch, options.context - _NEW_TOKENS, 5000 + 100 * repeat)
        batched.append(options.batch * statistics.median(timings.decode_tokens_per_s for timings in several))
    return {
        "alone": statistics.median(alone),
        "batch": statistics.median(batched),
        "ttft_s": statistics.median(ttft),
    }


def _submit(llm: Any, count: int, length: int, seed: int) -> list[Any]:
    vocabulary = llm.spec.vocab_size
    prompts = [[(seed + 7919 * i + 104729 * j) % vocabulary for j in range(length)] for i in range(count)]
    running = [llm.submit(prompt, max_tokens=_NEW_TOKENS, ignore_eos=True) for prompt in prompts]
    return [generation.result().timings for generation in running]


def _wait_for_fast_runner(llm: Any) -> None:
    """On a CPU the native decoder may still be compiling; runs before it is ready say nothing of those after."""
    ends_s = time.monotonic() + 180
    while not llm.wait_until_compiled(0.5) and time.monotonic() < ends_s:
        time.sleep(0.5)
        llm.infer([1, 2, 3], max_tokens=2)


def _step_s(raw: Any, learnt: Any, batch: int, mean_context: float) -> list[float]:
    return [made.predictor.decode_s(batch, mean_context) for made in (raw, learnt)]


def _peak(made: Any) -> int:
    return max(made.needed_bytes, made.host_load_bytes) if made.backend_name == "cpu" else made.needed_bytes


class _PeakMemory:
    """The most memory that was in use inside the block."""

    def __init__(self, backend_name: str) -> None:
        self._on_gpu = backend_name != "cpu"
        self.bytes = 0

    def __enter__(self) -> _PeakMemory:
        if self._on_gpu:
            import pynvml

            pynvml.nvmlInit()
            self._handle = pynvml.nvmlDeviceGetHandleByIndex(0)
            self._read = lambda: pynvml.nvmlDeviceGetMemoryInfo(self._handle).used
            self._before = self._read()
            self._ended = threading.Event()
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._on_gpu:
            self._ended.set()
            self._thread.join()
        else:
            self.bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def _watch(self) -> None:
        while not self._ended.wait(0.02):
            self.bytes = max(self.bytes, self._read() - self._before)


def _child(extra: list[str], options: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, __file__, "--backend", options.backend, "--context", str(options.context)]
    command += ["--batch", str(options.batch), *extra]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-4000:])
    return json.loads(done.stdout.strip().splitlines()[-1])


def _row(model: str, first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {"model": model, "runner": second["runner"]}
    for what in ("peak_bytes", "alone", "batch", "ttft_s"):
        predicted = second[f"predicted_{what}"][1]
        row[what] = {
            "arithmetic": first[f"predicted_{what}"][0],
            "predicted": predicted,
            "measured": second[what],
            "ratio": second[what] / predicted,
        }
    return row


def _table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| model | peak memory, MB: arithmetic / predicted / measured | off | tokens/s of one | off "
        "| tokens/s of the batch | off | first token, ms | off |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [row["model"]]
        for what, scale, digits in (("peak_bytes", 1e-6, 0), ("alone", 1, 1), ("batch", 1, 1), ("ttft_s", 1e3, 0)):
            values = [row[what][kind] * scale for kind in ("arithmetic", "predicted", "measured")]
            cells += [" / ".join(f"{value:,.{digits}f}" for value in values), f"{row[what]['ratio'] - 1:+.0%}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _split(name: str) -> tuple[str, str | None]:
    """ "default:int8" is a model and a quantisation; "random:tiny" is a model."""
    head, _, tail = name.rpartition(":")
    return (head, tail) if head and head != "random" else (name, None)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="default,default:int8,default:int4,random:smollm2-360m")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--json")
    parser.add_argument("--no-measure", action="store_true", help="do not measure the device's rates first")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
