"""Tokens per second and cost of a model on 1, 8, 64 and 1,024 GPUs, simulated; and how far such sums are off, measured.

    python -m benchmarks.scaling_sim                      # the simulation; loads no model
    python -m benchmarks.scaling_sim --check              # its rules against two processes on this machine's CPU

A step of one GPU comes from the planner's roofline: weights and cache read once, products computed, whichever takes
longer. Ranks of a layer add a sum twice a layer, whose time is a latency and the bytes over the link; stages of a
pipeline work on different batches at once, so the slowest sets the pace; replicas add up. What is assumed is printed.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.pinning import pin
from workbench.aws import InstanceCatalogue
from workbench.aws.prices import TablePrices
from workbench.parallel import ParallelShape
from workbench.planner.layout import DeviceShare, lay_out
from workbench.planner.memory import Workload, kv_bytes_per_token
from workbench.planner.model_shape import ModelShape, read_model_shape
from workbench.planner.rates import DeviceRates, assumed_rates
from workbench.planner.speed import decode_step
from workbench.quantize import parse_quant_type

# Share of a GPU's memory for weights and cache, and the lanes that keep a stage from waiting for the host.
_MEMORY_SHARE = 0.85
_LANES_PER_STAGE = 2
_LARGEST_BATCH = 512


@dataclass(frozen=True)
class Link:
    """How ranks add up: `reduce_s` for a small vector, and bytes per second of a large one."""

    reduce_s: float
    bytes_per_s: float

    def sum_s(self, num_bytes: float, size: int) -> float:
        """One sum over `size` ranks; a ring moves almost twice the vector out of each."""
        return self.reduce_s + 2 * num_bytes * (size - 1) / size / self.bytes_per_s if size > 1 else 0.0


@dataclass(frozen=True)
class Point:
    """One layout at its best batch. `user_tokens_per_s` is what one request sees."""

    sizes: ParallelShape
    batch: int
    tokens_per_s: float
    user_tokens_per_s: float


def stage_s(
    shape: ModelShape, share: DeviceShare, work: Workload, rates: DeviceRates, link: Link, batch: int, context: int
) -> float:
    """Seconds that a stage takes for one token of `batch` requests."""
    on_gpu = "core" not in rates.origin
    step = decode_step(shape, [share], work, rates, batch=batch, mean_context=context, on_gpu=on_gpu)
    sums = 2 * len(share.layers) * link.sum_s(batch * shape.spec.hidden_size * 2, share.tensor)
    return step.total_s - step.communication_s + sums


def simulate(
    shape: ModelShape, sizes: ParallelShape, rates: DeviceRates, link: Link, *, memory_bytes: float, context: int,
    least_user_rate: float,
) -> Point | None:  # fmt: skip
    """The most tokens per second of a layout whose users still get `least_user_rate`; None where it does not fit."""
    one = ParallelShape(sizes.tensor, sizes.pipeline, 1)
    shares = lay_out(shape, one, 1)[:: sizes.tensor]
    work = Workload(context, 1, parse_quant_type("bf16"), "bf16", "bf16")
    weights = shape.num_parameters * 2 / (sizes.tensor * sizes.pipeline)
    kv = max(kv_bytes_per_token(shape, "bf16", share.kv_heads, len(share.layers)) for share in shares) * context
    room = int((memory_bytes * _MEMORY_SHARE - weights) // kv)
    lanes = _LANES_PER_STAGE * sizes.pipeline if sizes.pipeline > 1 else 1
    best = None
    for batch in (2**power for power in range(0, int(math.log2(_LARGEST_BATCH)) + 1)):
        if batch > room or batch < lanes:
            continue
        slowest_s = max(stage_s(shape, share, work, rates, link, batch // lanes, context // 2) for share in shares)
        # A lane comes round when all lanes have passed the slowest stage.
        round_s = lanes * slowest_s
        point = Point(sizes, batch * sizes.data, batch * sizes.data / round_s, 1 / round_s)
        if point.user_tokens_per_s >= least_user_rate and (best is None or point.tokens_per_s > best.tokens_per_s):
            best = point
    return best


def layouts(shape: ModelShape, num_gpus: int, gpus_per_machine: int) -> Iterator[ParallelShape]:
    """Ranks within a machine, stages over machines, replicas of those."""
    for tensor in (2**power for power in range(0, int(math.log2(gpus_per_machine)) + 1)):
        if tensor > num_gpus or shape.spec.num_heads % tensor:
            continue
        for pipeline in (1, 2, 4, 8):
            if num_gpus % (tensor * pipeline) == 0 and pipeline <= shape.spec.num_layers:
                yield ParallelShape(tensor, pipeline, num_gpus // (tensor * pipeline))


def run_simulation(options: argparse.Namespace) -> None:
    row = InstanceCatalogue.shipped().get(options.instance)
    price = TablePrices.shipped().find([row.name], None, spot=False)
    hourly = price.prices[row.name].usd_per_hour
    rates = assumed_rates("cuda", row.gpu.name, 132)
    if options.read_gb_s:
        rates = DeviceRates(options.read_gb_s * 1e9, {"bf16": options.tflops * 1e12}, rates.launch_s, "as given")
    link = Link(options.reduce_us * 1e-6, (row.gpu.nvlink_gb_s or 32) / 2 * 1e9)
    shape = read_model_shape(options.model)
    print(f"{shape.name}, {shape.num_parameters / 1e9:.1f} billion parameters in bf16, {options.context} tokens each")
    print(f"{row.name}: {row.accelerator_count} {row.gpu.name}, {hourly} USD an hour; {'; '.join(price.notes)}")
    print(f"reads {rates.read_bytes_per_s / 1e9:.0f} GB/s, {rates.flops_of('bf16') / 1e12:.0f} TFLOP/s: {rates.origin}")
    print(f"a sum of ranks: {options.reduce_us:g} us and {link.bytes_per_s / 1e9:.0f} GB/s, assumed")
    print(
        f"users get at least {options.user_rate:g} tokens/s; a process in front passes on {options.front:g} tokens/s\n"
    )
    print("| GPUs | replicas x stages x ranks | requests at once | tokens/s | a user's | USD a million | fronts |")
    print("|---|---|---|---|---|---|---|")
    for num_gpus in options.gpus:
        points = [
            simulate(shape, sizes, rates, link, memory_bytes=row.gpu.memory_mib * 2**20, context=options.context,
                     least_user_rate=options.user_rate)
            for sizes in layouts(shape, num_gpus, row.accelerator_count)
        ]  # fmt: skip
        found = [point for point in points if point is not None]
        if not found:
            print(f"| {num_gpus} | does not fit, or is too slow for a user | | | | | |")
            continue
        best = max(found, key=lambda point: point.tokens_per_s)
        cost = hourly * num_gpus / row.accelerator_count / (best.tokens_per_s * 3600) * 1e6
        sizes = best.sizes
        print(
            f"| {num_gpus:,} | {sizes.data} x {sizes.pipeline} x {sizes.tensor} | {best.batch:,} | "
            f"{best.tokens_per_s:,.0f} | {best.user_tokens_per_s:.0f} | {cost:.2f} | "
            f"{math.ceil(best.tokens_per_s / options.front)} |"
        )


def check(num_tokens: int) -> None:
    """One process with one thread is measured; what two of them do is predicted by the rules above, and measured."""
    from workbench import EngineConfig, LlamaGPU
    from workbench.parallel import GPUConfig

    streams = 32
    with tempfile.TemporaryDirectory() as folder:
        model = _save_model(Path(folder) / "model")
        engine = EngineConfig(kv_cache_tokens=8192, max_num_seqs=streams, num_threads=1, native_kernels=False)

        def rate(config: GPUConfig, num_requests: int) -> float:
            with LlamaGPU(model, prefer_gpu=False, quant_type="fp32", engine=engine, parallel=config) as llm:
                for core, replica in enumerate(llm.replicas()):
                    for number, rank in enumerate(replica.ranks):
                        pin(rank.process_id, (core + number) % os.cpu_count())
                _generate(llm, num_requests, 2)
                return _generate(llm, num_requests, num_tokens)

        one, eighth = rate(GPUConfig(num_gpus=1), streams), rate(GPUConfig(num_gpus=1), streams // 4)
        reduce_s = _measure_sum_s(streams)
        print(f"one process: {one:.1f} tokens/s with {streams} requests, {eighth:.1f} with {streams // 4}")
        print(f"a sum over two ranks by gloo, {streams} rows of {_HIDDEN} numbers: {reduce_s * 1e6:.0f} us")
        step_s = streams / one
        predicted = {
            "tensor": streams / (step_s / 2 + (2 * _LAYERS + 1) * reduce_s),
            # Four lanes of a quarter of the batch, each of which takes a stage half of its step.
            "pipeline": 2 * eighth,
            "data": 2 * one,
        }
        for strategy, wanted in predicted.items():
            found = rate(GPUConfig(num_gpus=2, strategy=strategy), streams * (2 if strategy == "data" else 1))
            print(
                f"{strategy}: predicted {wanted:.1f}, measured {found:.1f} tokens/s: off by {wanted / found - 1:+.0%}"
            )


_HIDDEN, _LAYERS = 768, 12


def _save_model(folder: Path) -> str:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from workbench.models.byte_tokenizer import make_byte_tokenizer

    config = AutoConfig.for_model(
        "llama", vocab_size=8192, hidden_size=_HIDDEN, intermediate_size=2048, num_hidden_layers=_LAYERS,
        num_attention_heads=12, num_key_value_heads=4, max_position_embeddings=1024, tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    make_byte_tokenizer(8192).hf.save_pretrained(folder)
    return str(folder)


def _generate(llm, num_requests: int, num_tokens: int) -> float:
    """Tokens per second after every prompt's own step."""
    prompt = list(range(10, 18))
    started_s = time.perf_counter()
    running = [llm.submit([*prompt, i], max_tokens=num_tokens, ignore_eos=True) for i in range(num_requests)]
    tokens = sum(len(generation.result().token_ids) for generation in running)
    return tokens / (time.perf_counter() - started_s)


def _measure_sum_s(rows: int) -> float:
    import multiprocessing

    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        queue = context.Queue()
        ranks = [context.Process(target=_sum_rank, args=(i, rows, f"{folder}/meeting", queue)) for i in range(2)]
        for rank in ranks:
            rank.start()
        seconds = max(queue.get(timeout=60) for _ in ranks)
        for rank in ranks:
            rank.join()
        return seconds


def _sum_rank(rank: int, rows: int, meeting: str, queue) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    os.sched_setaffinity(0, {rank % os.cpu_count()})
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    x = torch.ones(rows, _HIDDEN)
    for repeats in (20, 300):
        started_s = time.perf_counter()
        for _ in range(repeats):
            dist.all_reduce(x)
    queue.put((time.perf_counter() - started_s) / repeats)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="measure on this machine instead")
    parser.add_argument("--tokens", type=int, default=24, help="of each request in the check")
    parser.add_argument("--model", default="random:llama-3.1-8b")
    parser.add_argument("--instance", default="p5.48xlarge", help="an EC2 type, for its GPUs, links and price")
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 8, 64, 1024])
    parser.add_argument("--context", type=int, default=2048, help="tokens of a request, prompt and answer")
    parser.add_argument("--user-rate", type=float, default=20, help="tokens per second that a user must get")
    parser.add_argument("--read-gb-s", type=float, help="measured, in place of the data sheet's")
    parser.add_argument("--tflops", type=float, help="beside --read-gb-s")
    parser.add_argument("--reduce-us", type=float, default=20)
    parser.add_argument("--front", type=float, default=2200, help="tokens per second of one process in front")
    options = parser.parse_args()
    if bool(options.read_gb_s) != bool(options.tflops):
        sys.exit("--read-gb-s and --tflops go together")
    check(options.tokens) if options.check else run_simulation(options)


if __name__ == "__main__":
    main()
