"""Checks and times the engine on this machine: ceilings first, then decode and prefill over a grid.

    python benchmarks/engine.py --model random:llama-3.1-8b --batches 1,8,32,64,128,256 --json out.json

Every figure goes through the scheduler, end to end. The floor is bytes read per step over the read bandwidth that is
measured in the same run. `--check` first compares greedy text with transformers on small random models.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import sys
import tempfile
import time

import torch

from workbench import EngineConfig, LlamaGPU
from workbench.engine.step_packer import StepKind, batch_buckets


def main() -> None:
    options = _options()
    report: dict[str, object] = {"versions": _versions(), "command": " ".join(sys.argv)}
    if options.check:
        report["checks"] = check(options.device)
        print(json.dumps(report["checks"], indent=1), flush=True)
    report["ceilings"] = ceilings(options.device)
    if options.device == "cuda":
        torch.cuda.empty_cache()
    print("ceilings", report["ceilings"], flush=True)
    started = time.perf_counter()
    llm = LlamaGPU(
        options.model,
        backend="cuda" if options.device == "cuda" else "cpu",
        quant_type=options.dtype,
        engine=EngineConfig(
            context_length=options.context,
            enable_prefix_caching=False,
            kv_dtype=options.kv_dtype,
            cpu_offload_layers=options.offload_layers,
            isolation=options.isolation,
            native_kernels=not options.torch_operators,
            max_num_batched_tokens=options.chunk,
            serve_at_once=False,
        ),
        check_plan=False,
    )
    report["load_s"] = round(time.perf_counter() - started, 2)
    print("loaded", llm, llm.runner_reason, llm.limits, report["load_s"], "s", flush=True)
    first = time.perf_counter()
    llm.infer([1, 2, 3], max_tokens=1)
    report["first_token_s"] = round(time.perf_counter() - first, 3)
    report["decode"], report["host"] = [], []
    for batch in options.batches:
        row = decode_row(llm, batch, options.prompt, options.new, report["ceilings"], options.repeats)
        report["decode"].append(row)
        if options.host_share:
            report["host"].append(host_share(llm, row))
    report["ttft_ms"] = time_to_first_token(llm, options.prompt)
    report["prefill"] = [prefill_row(llm, n, length) for n, length in ((64, 512), (256, 512)) if options.prefill]
    if options.profile:
        profile(llm, options)
    llm.unload()
    if options.json:
        with open(options.json, "w") as file:
            json.dump(report, file, indent=1)


def ceilings(device: str) -> dict[str, float]:
    """Read bandwidth in GB/s (a sum over 4 GiB on a GPU, 1 GiB on a CPU) and bf16 matmul rate in TFLOP/s."""
    gpu = device == "cuda"
    data = torch.ones((4 if gpu else 1) * 2**28, dtype=torch.float32, device=device)
    read_s = _median_s(lambda: data.sum(), device)
    size = 8192 if gpu else 1024
    a, b = (torch.randn(size, size, device=device).to(torch.bfloat16) for _ in range(2))
    matmul_s = _median_s(lambda: a @ b, device)
    return {"read_gb_s": data.numel() * 4 / read_s / 1e9, "bf16_tflop_s": 2 * size**3 / matmul_s / 1e12}


def decode_row(llm: LlamaGPU, batch: int, prompt: int, new: int, ceiling: dict, repeats: int) -> dict[str, object]:
    """Greedy decoding of `batch` requests at once. `end_to_end` counts all tokens over all the time, prefill included;
    `decode` counts the steps from the last first token to the first last one, in which all of them decode."""
    rows = []
    for repeat in range(repeats + 1):
        started = time.monotonic()
        running = [
            llm.submit(_prompt(llm, prompt, repeat * 1000 + i), max_tokens=new, ignore_eos=True) for i in range(batch)
        ]
        # The first request's tokens count the steps; one is of the step that gives the last request its first token.
        arrivals: list[float] = []
        usages = [_usage(generation, arrivals if i == 0 else None) for i, generation in enumerate(running)]
        ended = time.monotonic()
        begin = max(u.first_token_s for u in usages)
        end = min(u.finished_s for u in usages)
        steps_s = (end - begin) / (sum(begin < arrived for arrived in arrivals) - 1)
        if repeat:  # the first one warms up
            rows.append((batch * new / (ended - started), batch / steps_s, steps_s))
    end_to_end, decode, step_s = (statistics.median(column) for column in zip(*rows, strict=True))
    read_bytes = llm.weight_bytes - _embedding_bytes(llm) + batch * (prompt + new / 2) * _kv_bytes_per_token(llm)
    floor_s = read_bytes / (ceiling["read_gb_s"] * 1e9)
    row = {
        "batch": batch,
        "end_to_end_tokens_s": round(end_to_end, 1),
        "decode_tokens_s": round(decode, 1),
        "ms_per_step": round(step_s * 1e3, 3),
        "share_of_floor": round(floor_s / step_s, 3),
    }
    print(row, flush=True)
    return row


def prefill_row(llm: LlamaGPU, count: int, length: int) -> dict[str, object]:
    """Prompts only: tokens of all prompts over the time until the last one's first token."""
    times = []
    for repeat in range(3):
        started = time.monotonic()
        running = [llm.submit(_prompt(llm, length, repeat * 7919 + i), max_tokens=1) for i in range(count)]
        for generation in running:
            generation.result()
        times.append(time.monotonic() - started)
    row = {"prompts": count, "length": length, "tokens_s": round(count * length / min(times), 1)}
    print("prefill", row, flush=True)
    return row


def time_to_first_token(llm: LlamaGPU, prompt: int) -> float:
    """Median of 20, in ms, for one request on an idle engine."""
    times = []
    for i in range(23):
        generation = llm.submit(_prompt(llm, prompt, 31 * i), max_tokens=2, ignore_eos=True)
        times.append(generation.result().timings.ttft_s * 1e3)
    value = round(statistics.median(times[3:]), 2)
    print("ttft_ms", value, flush=True)
    return value


def host_share(llm: LlamaGPU, row: dict[str, object]) -> dict[str, float]:
    """What the host adds to a step of `row`, the last that ran: its time through the engine beside that of its graph
    alone, replayed back to back at the context that its requests ended with. Needs the engine in this process."""
    steps = llm._client._core._engine._runner.steps
    size = min(size for size in batch_buckets(llm.limits.max_num_seqs) if size >= row["batch"])
    graph = steps.graph(StepKind.DECODES, size)
    replays = 50

    def replay() -> None:
        for _ in range(replays):
            graph.replay()

    device_ms = _median_s(replay, "cuda", repeats=3) / replays * 1e3
    found = {"batch": row["batch"], "device_ms": device_ms, "host_share": 1 - device_ms / row["ms_per_step"]}
    print("host", found, flush=True)
    return found


def profile(llm: LlamaGPU, options: argparse.Namespace) -> None:
    """Kernel times of some decode steps at each batch size, and of prompts (0). Needs the engine in this process."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as torch_profile

    for batch in options.profile:
        length, new, count = (options.prompt, 65, batch) if batch else (512, 1, 32)
        running = [llm.submit(_prompt(llm, length, i), max_tokens=new, ignore_eos=True) for i in range(count)]
        chunks = [iter(generation) for generation in running]
        if batch:
            for each in chunks:  # until every prompt is computed
                next(each)
        with torch_profile(activities=[ProfilerActivity.CUDA]) as record:
            for each in chunks:
                for _ in each:
                    pass
        print(f"profile of batch {batch}" if batch else "profile of 32 prompts of 512")
        rows = sorted(record.key_averages(), key=lambda row: -row.self_device_time_total)
        for row in rows[:16]:
            print(f"{row.self_device_time_total / 1e3:9.2f} ms {row.count:6} x  {row.key[:110]}", flush=True)


def check(device: str) -> dict[str, object]:
    """Greedy tokens of small models with random weights against transformers' generate in float32 on the CPU."""
    found = {}
    small = EngineConfig(max_num_seqs=16, kv_cache_tokens=8192, isolation="thread", serve_at_once=False)
    for preset in ("tiny", "tiny-qwen3", "tiny-mistral", "tiny-gemma2"):
        with tempfile.TemporaryDirectory() as folder:
            reference = _save_random(preset, folder)
            prompts = [random.Random(n).choices(range(5, 250), k=n) for n in (3, 17, 40, 100, 64, 33, 5, 90)]
            expected = [_generate(reference, prompt) for prompt in prompts]
            with LlamaGPU(folder, backend=device, quant_type="fp32", engine=small) as llm:
                alone = [list(llm.submit(p, max_tokens=40, ignore_eos=True).result().token_ids) for p in prompts]
                running = [llm.submit(p, max_tokens=40, ignore_eos=True) for p in prompts]
                together = [list(generation.result().token_ids) for generation in running]
                drawn = _draws(llm, prompts)
                reason = llm.runner_reason
            with LlamaGPU(folder, backend="cpu", quant_type="fp32") as llm:
                expected_draws = _draws(llm, prompts)
        found[preset] = {
            "runner": reason,
            "alone_equal": sum(a == b for a, b in zip(alone, expected, strict=True)),
            "together_equal": sum(a == b for a, b in zip(together, expected, strict=True)),
            "drawn_equal": sum(a == b for a, b in zip(drawn, expected_draws, strict=True)),
            "of": len(prompts),
        }
    return found


def _draws(llm: LlamaGPU, prompts: list[list[int]]) -> list[list[int]]:
    """Sampled tokens, each prompt with its own seed; device and host invert the same distribution."""
    running = [llm.submit(p, max_tokens=20, temperature=0.9, seed=n, ignore_eos=True) for n, p in enumerate(prompts)]
    return [list(generation.result().token_ids) for generation in running]


def _save_random(preset: str, folder: str):
    """Save a random model with its tokenizer, and give the model itself in float32 on the CPU."""
    from workbench.models import Catalogue, load_model

    loaded = load_model(
        Catalogue().resolve(f"random:{preset}"), device="cpu", dtype="fp32", attn_implementation="eager"
    )
    loaded.module.save_pretrained(folder)
    loaded.tokenizer.hf.save_pretrained(folder)
    return loaded.module


def _generate(module, prompt: list[int]) -> list[int]:
    ids = torch.tensor([prompt])
    # Generation runs to its full length: the engine is told to ignore the end of the text too.
    out = module.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=40,
        min_new_tokens=40,
        do_sample=False,
        eos_token_id=None,
    )
    return out[0, len(prompt) :].tolist()


def _usage(generation, arrivals: list[float] | None = None):
    """Its times and counts once it has ended; `arrivals` takes when each of its tokens came."""
    last = None
    for chunk in generation:
        last = chunk
        if arrivals is not None:
            arrivals.append(time.monotonic())
    return last.usage


def _prompt(llm: LlamaGPU, length: int, seed: int) -> list[int]:
    return random.Random(seed).choices(range(5, llm.spec.vocab_size - 5), k=length)


def _embedding_bytes(llm: LlamaGPU) -> int:
    if llm.spec.tied_embeddings:
        return 0
    return llm.spec.vocab_size * llm.spec.hidden_size * (4 if llm.dtype == "fp32" else 2)


def _kv_bytes_per_token(llm: LlamaGPU) -> float:
    return llm.limits.kv_bytes / (llm.limits.num_blocks * llm.limits.block_size)


def _median_s(run, device: str, repeats: int = 10) -> float:
    """Median seconds of `run`, by device events on a GPU, after three runs that do not count."""
    times = []
    for repeat in range(repeats + 3):
        if device == "cuda":
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            run()
            end.record()
            end.synchronize()
            elapsed_s = begin.elapsed_time(end) / 1e3
        else:
            started = time.perf_counter()
            run()
            elapsed_s = time.perf_counter() - started
        if repeat >= 3:
            times.append(elapsed_s)
    return statistics.median(times)


def _versions() -> dict[str, str]:
    import transformers

    name = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor()
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "device": name,
        "date": time.strftime("%Y-%m-%d"),
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="default")
    parser.add_argument("--dtype", default=None)
    parser.add_argument("--kv-dtype", default=None, choices=("fp8",))
    parser.add_argument("--offload-layers", type=int, default=None, help="layers that stay in the host's memory")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batches", type=_counts, default=[1, 8])
    parser.add_argument("--prompt", type=int, default=128, help="tokens")
    parser.add_argument("--new", type=int, default=256, help="tokens")
    parser.add_argument("--context", type=int, default=None)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--prefill", action="store_true")
    parser.add_argument("--chunk", type=int, help="max_num_batched_tokens")
    parser.add_argument("--isolation", choices=("thread", "process"))
    parser.add_argument("--torch-operators", action="store_true", help="on a CPU, without the package's own kernels")
    parser.add_argument("--host-share", action="store_true", help="with --isolation thread")
    parser.add_argument("--profile", type=_counts, default=[], help="batch sizes whose kernels are timed; 0 is prompts")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--json")
    return parser.parse_args()


def _counts(text: str) -> list[int]:
    return [int(n) for n in text.split(",")]


if __name__ == "__main__":
    main()
