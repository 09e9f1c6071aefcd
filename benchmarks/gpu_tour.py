"""Everything that only a GPU can show, in one call: each part in a process of its own, with a time limit.

    python benchmarks/gpu_tour.py --json tour.jsonl                  # all parts, one after the other
    python benchmarks/gpu_tour.py --beside notebooks,widgets --parts probe,quality   # both lists at once
    python benchmarks/gpu_tour.py --parts memory,cache,plans,offload,bench

A part that fails or outlasts its limit is told with its last lines, and the next one goes on. What a part found is a
JSON line in the file and a short line on the screen; a table of all comes last. Memory is what the driver says is in
use on the whole device, so nothing else may run there. `--device cpu` goes through what a CPU can do, as a rehearsal.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parent.parent
_Found = dict[str, Any]
# Notebooks that load a model wherever the machine has its fastest device.
_ON_THE_DEVICE = ("01", "05", "06", "07")
_TEXT = "The lighthouse stood at the end of the rocks, and every evening its keeper climbed the stairs to light it."


def probe(options: argparse.Namespace) -> _Found:
    """What every quantisation does on a small matrix here."""
    from workbench.quantize import probe_capabilities

    return {one.name: one.in_words for one in probe_capabilities(options.torch_device)}


def shares(options: argparse.Namespace) -> Iterator[_Found]:
    """Weight bytes of the types that the engine packs itself, over bf16, beside the arithmetic of the plan."""
    from workbench import plan

    weights = {
        quant: plan(options.model, backend=options.device, quant=quant, context=1024, batch=4).devices[0].parts.weights
        for quant in ("bf16", "int8", "int4", "fp8")
    }
    for quant in ("int4", "int8", "fp8"):
        with _opened(options, quant_type=quant, context=1024, isolation="thread") as llm:
            held = llm.weight_bytes
            yield {quant: {
                "held_mb": held / 1e6, "share": held / weights["bf16"], "over_planned": held / weights[quant],
                "runner": llm.runner_reason, "tokens_per_s": _rate(llm, 1, 64),
                "text": llm.infer([5, 6, 7], max_tokens=8, ignore_eos=True)[:60],
            }}  # fmt: skip


def cache(options: argparse.Namespace) -> Iterator[_Found]:
    """A model in a folder of bf16 safetensors: read and quantised, then read from the cache. Seconds of `load_model`;
    the files were written just before, so both readings come from the system's page cache."""
    from workbench.models import Catalogue, load_model
    from workbench.quantize import QuantizationCache, QuantizationConfig

    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        began_s = time.perf_counter()
        made = load_model(Catalogue().resolve(options.model), device=options.torch_device, dtype="bf16")
        made.module.save_pretrained(folder)
        made.tokenizer.hf.save_pretrained(folder)
        plain_bytes = made.weight_bytes
        del made
        _forget()
        yield {"saved_s": time.perf_counter() - began_s, "bf16_mb": plain_bytes / 1e6}
        files = Catalogue().resolve(folder)
        load_model(files, device=options.torch_device, dtype="bf16")
        for name, config in (
            ("int8", QuantizationConfig("int8", dynamic=False)),
            ("int4", QuantizationConfig("int4")),
            ("int4, quickly", QuantizationConfig("int4", preserve_accuracy=False)),
            ("nf4", QuantizationConfig("nf4")),
            ("fp8", QuantizationConfig("fp8")),
            ("static", QuantizationConfig("static")),
        ):
            kept = QuantizationCache(Path(folder) / "cache")
            times: list[float] = []
            quantised: list[float] = []
            share, from_cache = 0.0, []
            try:
                for _ in range(3):
                    _forget()
                    began_s = time.perf_counter()
                    loaded = load_model(
                        files, device=options.torch_device, dtype="bf16", quantization=config, cache=kept
                    )
                    times.append(time.perf_counter() - began_s)
                    quantised.append(loaded.quantized.elapsed_s)
                    from_cache.append(loaded.quantized.from_cache)
                    share = loaded.weight_bytes / plain_bytes
                    del loaded
            # Boundary: each method stands for itself.
            except Exception as error:
                yield {name: f"{type(error).__name__}: {error}"[:300]}
                continue
            again_s = min(quantised[1:])
            yield {name: {
                "share": share, "quantise_s": quantised[0], "with_keeping_s": times[0], "from_cache_s": quantised[1:],
                "from_cache": from_cache, "times_faster": quantised[0] / again_s,
            }}  # fmt: skip
            kept.clear()


def quality(options: argparse.Namespace) -> _Found:
    """Each method on the embedded model: bytes, perplexity, KL against bf16."""
    script = [sys.executable, str(_ROOT / "benchmarks" / "quantization_gpu.py"), "--model", options.small]
    done = subprocess.run([*script, "--device", options.torch_device], capture_output=True, text=True)
    return {"exit": done.returncode, "lines": done.stdout.splitlines(), "errors": done.stderr.splitlines()[-5:]}


def offload(options: argparse.Namespace) -> Iterator[_Found]:
    """Layers in the host's memory: the same text on a small model, then bytes and tokens/s of a larger one."""
    texts = []
    for count in (None, 1, 2):
        with _opened(options, "random:tiny", quant_type="fp32", context=256, cpu_offload_layers=count,
                     isolation="thread") as llm:  # fmt: skip
            texts.append([llm.submit([n, 9, 4], max_tokens=24, ignore_eos=True).result().token_ids for n in range(6)])
    yield {"tiny_equal": sum(one == texts[0] for one in texts)}
    before = _used_bytes()
    with _opened(options, options.large, context=1024, cpu_offload_layers=options.offload_layers) as llm:
        yield {
            "layers": options.offload_layers, "weights_mb": llm.weight_bytes / 1e6, "runner": llm.runner_reason,
            "device_mb": (_used_bytes() - before) / 1e6, "alone_tokens_per_s": _rate(llm, 1, 16),
            "eight_tokens_per_s": _rate(llm, 8, 16),
        }  # fmt: skip


def memory(options: argparse.Namespace) -> _Found:
    """Memory by owner beside what the driver says is in use, the engine in a process and in a thread."""
    found: _Found = {}
    for isolation in ("process", "thread"):
        with _opened(options, context=2048, isolation=isolation) as llm:
            _rate(llm, 16, 32)
            used = _used_bytes()
            owners = llm.memory_owners()
            found[isolation] = {
                "owners_mb": {name: value / 1e6 for name, value in owners.to_dict().items()},
                "sum_mb": owners.used / 1e6, "driver_mb": used / 1e6, "off": owners.used / used - 1 if used else None,
                "weights_mb": llm.weight_bytes / 1e6, "kv_mb": llm.limits.kv_bytes / 1e6,
            }  # fmt: skip
            if llm.plan is not None:
                found[isolation]["comparison"] = str(llm.comparison())
    return found


def profile(options: argparse.Namespace) -> _Found:
    """`workbench profile` with its trace and flame graph, at one row and at 16."""
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        trace, flame = Path(folder) / "trace.json.gz", Path(folder) / "flame.html"
        words = ["profile", options.model, "--backend", options.device, "--context-length", "1024"]
        words += ["--kv-cache-tokens", "16384"]
        lines = _workbench(*words, "--trace", str(trace), "--flame-graph", str(flame), "--batch", "4")
        return {
            "lines": lines,
            "trace_bytes": trace.stat().st_size if trace.exists() else 0,
            "flame_bytes": flame.stat().st_size if flame.exists() else 0,
        }


def monitor(options: argparse.Namespace) -> _Found:
    """`workbench monitor` for three seconds in both machine formats, and `workbench gpus`."""
    words = ("monitor", "--duration", "3", "--output-format")
    return {"csv": _workbench(*words, "csv"), "json": _workbench(*words, "json"), "gpus": _workbench("gpus"),
            "info": _workbench("info")}  # fmt: skip


def plans(options: argparse.Namespace) -> Iterator[_Found]:
    """Plan against measurement, after one calibrating run."""
    script = str(_ROOT / "benchmarks" / "plan_check.py")
    for model in (f"{options.model}:int8", options.model):
        words = ["--models", model, "--backend", options.device]
        done = subprocess.run([sys.executable, script, *words], capture_output=True, text=True)
        yield {model: [*done.stdout.splitlines(), *done.stderr.splitlines()[-5:]]}


def fp8_cache(options: argparse.Namespace) -> _Found:
    """Greedy text and log-probabilities with an 8-bit cache beside those with bf16, on a model that says something."""
    prompts = [f"{start} is" for start in ("The capital of France", "Water", "A dog", "Music", "The sun", "History")]
    answers, scores = {}, {}
    for kv_dtype in (None, "fp8"):
        with _opened(options, options.small, context=1024, kv_dtype=kv_dtype) as llm:
            answers[kv_dtype] = [llm.infer(prompt, max_tokens=32) for prompt in prompts]
            logprobs = llm.submit(_TEXT * 4, max_tokens=1, prompt_logprobs=0).result().prompt_logprobs
            known = [one.logprob for one in logprobs if one is not None]
            scores[kv_dtype] = sum(known) / len(known)
    return {
        "mean_logprob": {str(kind): value for kind, value in scores.items()},
        "equal_texts": sum(a == b for a, b in zip(answers[None], answers["fp8"], strict=True)),
        "texts": list(zip(prompts, answers[None], answers["fp8"], strict=True)),
    }


def bench(options: argparse.Namespace) -> Iterator[_Found]:
    """`workbench bench --backend all`: the GPU beside the CPU of the same machine."""
    for model in (options.small, options.model):
        for batch in ("1", "16") if model == options.small else ("1",):
            words = ("--backend", "all", "--batch-size", batch, "--runs", "2", "--output-format", "csv")
            yield {f"{model}, {batch} at once": _workbench("bench", model, *words)}


def starts(options: argparse.Namespace) -> _Found:
    """Load and first token with cold kernel caches, then warm; SIGKILL of the engine."""
    script = str(_ROOT / "benchmarks" / "gpu_process.py")
    done = subprocess.run([sys.executable, script, "--model", options.model, "--crash"], capture_output=True, text=True)
    return {"lines": done.stdout.splitlines(), "errors": done.stderr.splitlines()[-5:]}


def notebooks(options: argparse.Namespace) -> _Found:
    """All notebooks executed: those that load a model on the device one after the other, since each takes nearly all
    of its memory, and the others beside them."""

    def run(path: Path) -> _Found:
        command = [sys.executable, __file__, "--execute", str(path)]
        done = subprocess.run(command, capture_output=True, text=True)
        return json.loads(done.stdout.splitlines()[-1]) if done.stdout.strip() else {"error": done.stderr[-1500:]}

    paths = sorted((_ROOT / "notebooks").glob("0*.ipynb"))
    lanes = [[p for p in paths if (p.stem[:2] in _ON_THE_DEVICE) == is_on] for is_on in (True, False)]
    with ThreadPoolExecutor(len(lanes)) as pool:
        ran = pool.map(lambda lane: [(path.stem, run(path)) for path in lane], lanes)
        return dict(sorted(pair for lane in ran for pair in lane))


def execute(path: str) -> _Found:
    """One notebook through nbclient: the error it ended with, and what its cells showed as text."""
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    notebook = nbformat.read(path, as_version=4)
    began_s, error = time.perf_counter(), None
    try:
        where = {"metadata": {"path": str(_ROOT)}}
        NotebookClient(notebook, timeout=150, kernel_name="python3", resources=where).execute()
    except CellExecutionError as failure:
        error = str(failure)[-1500:]
    shown = [
        (output.get("text") or output.get("data", {}).get("text/plain", ""))[:600]
        for cell in notebook.cells
        for output in cell.get("outputs", ())
    ]
    return {"error": error, "seconds": time.perf_counter() - began_s, "shown": shown}


def widgets(options: argparse.Namespace) -> _Found:
    """The parts that show a GPU, as text, and the panel with the GPU chosen."""
    from IPython.lib.pretty import pretty

    from widgets import GPUMap, MemoryMonitor, ThroughputMonitor, Workbench
    from workbench.session import LoadChoice, Session

    gpus = GPUMap()
    gpus._receive(gpus, {"type": "visible", "view": "one", "visible": True}, [])
    if gpus.devices:
        gpus.choose(gpus.devices[0]["name"])
    found: _Found = {"map": pretty(gpus), "chosen": list(gpus.chosen)}
    with Session() as session:
        panel = Workbench(session=session)
        session.load(LoadChoice(options.small, options.device, "bf16", 2048))
        session.wait()
        memory_rows, rates = MemoryMonitor(session.llm, threshold_percent=90), ThroughputMonitor(session.llm)
        session.llm.infer("Once upon a time", max_tokens=64)
        time.sleep(4)  # some beats of the sampler and of the map
        found |= {"panel": pretty(panel), "memory": pretty(memory_rows), "throughput": pretty(rates)}
        found |= {"levels": gpus.levels, "owners": gpus.owners, "where": session.llm.get_backend_info()["device"]}
        for part in (memory_rows, rates, panel):
            part.close()
    gpus.close()
    return found


# All at once or bit by bit: of one that is ended, what it has told counts.
_Part = Callable[[argparse.Namespace], _Found | Iterator[_Found]]
# With seconds after which each is ended.
_PARTS: dict[str, tuple[_Part, int]] = {
    "probe": (probe, 60), "shares": (shares, 90), "cache": (cache, 120), "quality": (quality, 120),
    "memory": (memory, 60), "profile": (profile, 60), "monitor": (monitor, 60), "fp8_cache": (fp8_cache, 60),
    "offload": (offload, 90), "plans": (plans, 150), "bench": (bench, 150), "starts": (starts, 100),
    "widgets": (widgets, 60), "notebooks": (notebooks, 180),
}  # fmt: skip


@contextmanager
def _opened(options: argparse.Namespace, model: str | None = None, *, quant_type: str | None = None,
            context: int, **knobs: Any) -> Iterator[Any]:  # fmt: skip
    from workbench import EngineConfig, LlamaGPU

    engine = EngineConfig(context_length=context, kv_cache_tokens=16 * context, enable_prefix_caching=False, **knobs)
    with LlamaGPU(model or options.model, backend=options.device, quant_type=quant_type, engine=engine) as llm:
        llm.wait_until_compiled()
        yield llm


def _rate(llm: Any, batch: int, new: int) -> float:
    """Decode tokens/s of `batch` answers at once, the second time."""
    for repeat in range(2):
        prompts = [[5 + repeat + n] * 100 for n in range(batch)]
        running = [llm.submit(prompt, max_tokens=new, ignore_eos=True) for prompt in prompts]
        timings = [generation.result().timings for generation in running]
    return batch * sum(one.decode_tokens_per_s for one in timings) / len(timings)


def _used_bytes() -> int:
    """In use on the first GPU that torch sees, as `nvidia-smi` has it: without what the driver reserves for itself."""
    try:
        import pynvml

        pynvml.nvmlInit()
        first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0]
        handle = pynvml.nvmlDeviceGetHandleByIndex(int(first))
        return int(pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2).used)
    except Exception:  # no driver: its errors share no base that can be named
        return 0


def _forget() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.synchronize()


def _workbench(*words: str) -> list[str]:
    done = subprocess.run([sys.executable, "-m", "workbench.cli", *words], capture_output=True, text=True)
    told = done.stdout.splitlines()
    return told if not done.returncode else [*told, f"exit {done.returncode}", *done.stderr.splitlines()[-6:]]


def _run_part(name: str, options: argparse.Namespace) -> _Found:
    """In a process group of its own, which is ended as a whole."""
    command = [sys.executable, __file__, "--part", name, *options.passed_on]
    began_s = time.perf_counter()
    row: _Found = {"part": name, "found": {}}
    with tempfile.TemporaryFile("w+") as told, tempfile.TemporaryFile("w+", errors="replace") as log:
        child = subprocess.Popen(command, stdout=told, stderr=log, text=True, start_new_session=True)
        try:
            if child.wait(min(_PARTS[name][1], max(5.0, options.ends_s - time.monotonic()))):
                row["failed"] = "it ended with an error"
        except subprocess.TimeoutExpired:
            row["failed"] = "it outlasted its time"
        finally:
            _end(child)
        told.seek(0)
        for line in told.read().splitlines():
            if line.startswith("{"):
                row["found"] |= json.loads(line)
        log.seek(0)
        if "failed" in row:
            row["errors"] = log.read().splitlines()[-12:]
    row["seconds"] = round(time.perf_counter() - began_s, 1)
    print(json.dumps(_rounded(row)), flush=True)
    if options.json:
        with open(options.json, "a") as file:
            file.write(json.dumps(row) + "\n")
    return row


def _end(child: subprocess.Popen[str]) -> None:
    try:
        os.killpg(child.pid, 9)
    except ProcessLookupError:
        pass
    child.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", type=_names, default=list(_PARTS))
    parser.add_argument("--beside", type=_names, default=[], help="parts that run beside those: times say little then")
    parser.add_argument("--model", default="random:llama-3.2-1b")
    parser.add_argument("--large", default="random:llama-3.1-8b")
    parser.add_argument("--small", default="default")
    parser.add_argument("--offload-layers", type=int, default=8)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--scratch", help="folder for large files")
    parser.add_argument("--limit", type=float, default=600, help="seconds for all of it")
    parser.add_argument("--json", help="a file that takes a line for each part")
    parser.add_argument("--part", choices=list(_PARTS), help=argparse.SUPPRESS)
    parser.add_argument("--execute", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.torch_device = "cuda:0" if options.device == "cuda" else "cpu"
    if options.execute:
        print(json.dumps(execute(options.execute)))
        return
    if options.part:
        told = _PARTS[options.part][0](options)
        for found in (told,) if isinstance(told, dict) else told:
            print(json.dumps(found, default=str), flush=True)
        return
    names = ("model", "large", "small", "offload_layers", "device", "scratch")
    options.passed_on = [f"--{name.replace('_', '-')}={value}" for name in names if (value := getattr(options, name))]
    options.ends_s = time.monotonic() + options.limit
    with ThreadPoolExecutor(2) as pool:
        lanes = pool.map(lambda names: [_run_part(name, options) for name in names], (options.parts, options.beside))
        rows = [row for lane in lanes for row in lane]
    print()
    for row in rows:
        print(f"{row['part']:<10} {row['seconds']:>6} s  {'FAILED' if 'failed' in row else 'ran'}")


def _names(text: str) -> list[str]:
    return text.split(",")


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return value


if __name__ == "__main__":
    main()
