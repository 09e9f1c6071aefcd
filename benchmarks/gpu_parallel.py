"""Models over GPUs: the same text as on one, tokens/s beside one, and what a rank's death does to its requests.

    python benchmarks/gpu_parallel.py cost                  # a rank, and an engine's process, beside neither; one GPU
    python benchmarks/gpu_parallel.py text rates kill --gpus 2
    python benchmarks/gpu_parallel.py places serve --gpus 2  # which GPUs are used, and the documented route over HTTP

Rates are decode rates (from the last first token to that answer's end), prompts of 128 random tokens.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from workbench import EngineConfig, LlamaGPU
from workbench.errors import WorkbenchError
from workbench.parallel import GPUConfig

_NEW = 128


@contextmanager
def opened(
    model: str, parallel: GPUConfig | None, quant_type: str | None = None, isolation: str | None = None
) -> Iterator[LlamaGPU]:
    """A model with room for 64 requests of 512 tokens in each replica; one alone has its loop in this process."""
    engine = EngineConfig(
        context_length=1024, kv_cache_tokens=64 * 512, enable_prefix_caching=False,
        isolation="thread" if parallel is None else isolation,
    )  # fmt: skip
    began_s = time.perf_counter()
    with LlamaGPU(model, quant_type=quant_type, engine=engine, parallel=parallel, check_plan=False) as llm:
        llm.wait_until_compiled()
        print(f"  {model}: {llm.runner_reason}, loaded in {time.perf_counter() - began_s:.1f} s", flush=True)
        yield llm


def prompts(llm: LlamaGPU, count: int, length: int, seed: int = 0) -> list[list[int]]:
    draw = random.Random(seed)
    return [draw.choices(range(5, llm.spec.vocab_size - 5), k=length) for _ in range(count)]


def rate(llm: LlamaGPU, batch: int, seed: int, new: int = _NEW) -> float:
    """Tokens/s of `batch` greedy answers at once."""
    running = [llm.submit(p, max_tokens=new, ignore_eos=True) for p in prompts(llm, batch, 128, seed)]
    usages = []
    for generation in running:
        *_, end = generation
        usages.append(end.usage)
    # Of the one that began last: beside it nobody's prompt is computed any more.
    last = max(usages, key=lambda usage: usage.first_token_s)
    return batch * (new - 1) / (last.finished_s - last.first_token_s)


def rates(llm: LlamaGPU, batches: tuple[int, ...], new: int = _NEW) -> dict[int, float]:
    return {b: round(statistics.median([rate(llm, b, seed, new) for seed in range(3)][1:]), 1) for b in batches}


def cost(options: argparse.Namespace) -> None:
    """One rank, and an engine in a process of its own, against an engine in a thread; all loaded, turn by turn."""
    alone = GPUConfig(num_gpus=1, strategy="tensor")
    with (
        opened(options.model, None) as one,
        opened(options.model, alone, isolation="thread") as rank,
        opened(options.model, alone, isolation="process") as process,
    ):
        for batch in (1, 8, 64):
            rounds = [[rate(llm, batch, seed) for llm in (one, rank, process)] for seed in range(4)][1:]
            for name, column in (("a rank", 1), ("a process", 2)):
                share = statistics.median(found[column] / found[0] for found in rounds)
                words = ", ".join(f"{found[0]:.0f} and {found[column]:.0f}" for found in rounds)
                print(f"batch {batch}, {name}: {words} tokens/s, its share {share:.3f}", flush=True)


def text(options: argparse.Namespace) -> None:
    """Greedy text of 20 prompts at once, each strategy against one GPU."""
    for model, quant_type in (("random:tiny", "fp32"), ("random:llama-3.2-1b", None)):
        with opened(model, None, quant_type) as llm:
            asked = prompts(llm, 20, 40)
            expected = [llm.submit(p, max_tokens=32, ignore_eos=True) for p in asked]
            expected = [generation.result().token_ids for generation in expected]
        for strategy in options.strategies:
            with opened(model, GPUConfig(num_gpus=options.gpus, strategy=strategy), quant_type) as llm:
                found = [llm.submit(p, max_tokens=32, ignore_eos=True) for p in asked]
                found = [generation.result().token_ids for generation in found]
                share = [rank.weight_bytes / 1e6 for replica in llm.replicas() for rank in replica.ranks]
            equal = sum(a == b for a, b in zip(expected, found, strict=True))
            first = [
                next((i for i, (a, b) in enumerate(zip(one, other, strict=True)) if a != b), 32)
                for one, other in zip(expected, found, strict=True)
            ]
            print(
                f"{model} {quant_type or 'bf16'} {strategy}: {equal} of 20 equal, tokens until the first other one "
                f"{min(first)} at least, {statistics.mean(first):.0f} on average; weights per rank "
                f"{', '.join(f'{mb:.0f}' for mb in share)} MB",
                flush=True,
            )


def run_rates(options: argparse.Namespace) -> None:
    """Tokens/s of one GPU and of each strategy."""
    with opened(options.model, None) as llm:
        print("one GPU", rates(llm, (1, 8, 64)), flush=True)
    for strategy in options.strategies:
        with opened(options.model, GPUConfig(num_gpus=options.gpus, strategy=strategy)) as llm:
            for batch in (1, 8, 64, 128):
                before = llm.replicas()[0].pipeline
                found = rates(llm, (batch,))
                idle = llm.replicas()[0].pipeline.since(before).bubble_share
                print(f"{strategy} {found}" + (f", {idle:.1%} idle" if strategy == "pipeline" else ""), flush=True)


def kill(options: argparse.Namespace) -> None:
    """SIGKILL one rank under load; every request must end within 10 s."""
    for strategy in options.strategies:
        with opened("random:llama-3.2-1b", GPUConfig(num_gpus=options.gpus, strategy=strategy)) as llm:
            running = [llm.submit(p, max_tokens=800, ignore_eos=True) for p in prompts(llm, 24, 64)]
            begun = [iter(generation) for generation in running]  # dropping one would abort its request
            for chunks in begun:
                next(chunks)
            ends: list[str] = []

            def follow(generation, ends=ends) -> None:
                try:
                    ends.append(f"{len(generation.result(timeout_s=60).token_ids)} tokens")
                except WorkbenchError as error:
                    ends.append(f"{type(error).__name__}: {error}")

            threads = [threading.Thread(target=follow, args=(generation,)) for generation in running]
            for thread in threads:
                thread.start()
            began_s = time.perf_counter()
            os.kill(llm.replicas()[-1].ranks[-1].process_id, signal.SIGKILL)
            for thread in threads:
                thread.join()
            ended_s = time.perf_counter() - began_s
            counts = {end[:160]: ends.count(end) for end in ends}
            print(f"{strategy}: all 24 ended {ended_s:.1f} s after the kill: {counts}", flush=True)


def held_mb(llm: LlamaGPU) -> list[int]:
    """What the ranks of a model have on each GPU, by its driver."""
    import pynvml

    from workbench.telemetry.gpu_topology import read_driver_gpus

    pynvml.nvmlInit()
    ids = {rank.process_id for replica in llm.replicas() for rank in replica.ranks}
    processes = [gpu.processes or () for gpu in read_driver_gpus(pynvml)]
    return [sum((p.used_bytes or 0) // 10**6 for p in found if p.process_id in ids) for found in processes]


def places(options: argparse.Namespace) -> None:
    """GPUs by index and by UUID after torch was imported, fewer than asked, a share of the memory, hybrid groups."""
    from widgets import GPUMap
    from workbench.backends import get_backend
    from workbench.telemetry.gpu_inventory import read_gpu_inventory

    inventory = read_gpu_inventory()
    print([(gpu.name, gpu.model, gpu.uuid) for gpu in inventory.gpus], [str(link) for link in inventory.links])
    gpus = GPUMap()
    print(gpus.twin().as_text(), gpus.links, flush=True)
    gpus.close()
    last = get_backend("cuda").devices()[-1]
    rows: list[tuple[str, GPUConfig, bool]] = [
        (f"gpu_ids=[{last.index}]", GPUConfig([last.index], "data"), False),
        (f"gpu_ids=[{last.uuid!r}]", GPUConfig([str(last.uuid)], "data"), False),
        ("four ids", GPUConfig([0, 1, 2, 3], "data"), False),
        ("four ids, degrade=True", GPUConfig([0, 1, 2, 3], "data"), True),
        ("memory_fraction=0.3", GPUConfig(num_gpus=options.gpus, strategy="tensor", memory_fraction=0.3), False),
        ("hybrid", GPUConfig(num_gpus=options.gpus, strategy="hybrid", tensor_parallel_size=1), False),
    ]
    expected: list[object] = []
    for words, config, degrade in rows:
        try:
            tokens = None if config.memory_fraction < 0.5 else 4096
            engine = EngineConfig(context_length=1024, kv_cache_tokens=tokens)
            with LlamaGPU("random:tiny", quant_type="fp32", engine=engine, parallel=config, degrade=degrade) as llm:
                text = llm.submit([5, 6, 7], max_tokens=16, ignore_eos=True).result().token_ids
                expected = expected or [text]
                shape = llm.parallel.shape if llm.parallel else None
                print(f"{words}: {held_mb(llm)} MB on each GPU, {shape}, {llm.degraded_reason}, {llm.runner_reason}, "
                      f"{'the same text' if [text] == expected else 'OTHER TEXT'}", flush=True)  # fmt: skip
        except WorkbenchError as error:
            print(f"{words}: {type(error).__name__}: {error}", flush=True)


def serve(options: argparse.Namespace) -> None:
    """`POST /v1/multi-gpu/config` on a served model, its figures under load, and a replica killed under it."""
    import httpx

    from workbench.server.access import Access
    from workbench.server.endpoint import Endpoint
    from workbench.server.keys import KeyRing, Scope, static_key
    from workbench.server.model_host import ModelHost
    from workbench.server.settings import ServerSettings
    from workbench.session import LoadChoice, Session

    use, admin = static_key("use", Scope.USE, "use-" * 8), static_key("admin", Scope.ADMIN, "admin-" * 8)
    body = {"prompt": "one two", "max_tokens": 600, "temperature": 0, "ignore_eos": True}
    with Session() as session:
        session.load(LoadChoice(options.served, options.device, "bf16", 2048))
        session.wait()
        host = ModelHost.factory(session, may_change=True)
        with Endpoint(host, ServerSettings(), Access(KeyRing([use.key, admin.key]), use)).start() as endpoint:
            headers = {"authorization": "Bearer " + "admin-" * 8}
            url = endpoint.url.removesuffix("/v1")
            with httpx.Client(base_url=url, timeout=240, trust_env=False, headers=headers) as client:
                for strategy in options.strategies:
                    config = {"num_gpus": options.gpus, "strategy": strategy, "memory_fraction": 0.3,
                              "on_cpu": options.device == "cpu"}  # fmt: skip
                    if strategy == "hybrid":
                        config |= {
                            "tensor_parallel_size": options.tensor_size,
                            "pipeline_parallel_size": options.stages,
                        }
                    began_s = time.perf_counter()
                    reply = client.post("/v1/multi-gpu/config", json=config)
                    print(f"{strategy}: {reply.status_code} after {time.perf_counter() - began_s:.1f} s, {reply.text}")
                    ends: list[int] = []

                    def ask(ends: list[int] = ends) -> None:
                        ends.append(client.post("/v1/completions", json=body).status_code)

                    threads = [threading.Thread(target=ask) for _ in range(12)]
                    for thread in threads:
                        thread.start()
                    time.sleep(0.6)
                    stats = client.get("/v1/multi-gpu/stats").json()["multi_gpu_stats"]
                    print(f"{strategy} under load:", stats, flush=True)
                    os.kill(stats["replicas"][0]["ranks"][-1]["process_id"], signal.SIGKILL)
                    began_s = time.perf_counter()
                    for thread in threads:
                        thread.join()
                    ended_s = time.perf_counter() - began_s
                    health = client.get("/health")
                    counts = {status: ends.count(status) for status in ends}
                    print(f"{strategy}: one killed, all ended {ended_s:.1f} s later as {counts}; health {health.text}")
                    began_s = time.perf_counter()
                    reply = client.post("/v1/multi-gpu/config", json=config)
                    answer = client.post("/v1/completions", json={**body, "max_tokens": 4})
                    print(f"{strategy}: again {reply.status_code}, {answer.status_code} after "
                          f"{time.perf_counter() - began_s:.1f} s", flush=True)  # fmt: skip


_PARTS = {"cost": cost, "text": text, "rates": run_rates, "kill": kill, "places": places, "serve": serve}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="+", choices=tuple(_PARTS))
    parser.add_argument("--model", default="random:llama-3.1-8b")
    parser.add_argument("--gpus", type=int, default=2)
    parser.add_argument("--tensor-size", type=int, default=1, help="of the groups of `serve`'s hybrid")
    parser.add_argument("--stages", type=int, default=1, help="of the same")
    parser.add_argument("--served", default="random:llama-3.2-1b", help="what `serve` serves")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"), help="of `serve`; cpu is a rehearsal")
    parser.add_argument("--strategies", type=lambda words: words.split(","), default=["tensor", "pipeline", "data"])
    options = parser.parse_args()
    for what in options.what:
        print(what, flush=True)
        _PARTS[what](options)


if __name__ == "__main__":
    main()
