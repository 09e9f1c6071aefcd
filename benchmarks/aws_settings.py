"""What the settings that `workbench aws instance TYPE` recommends do, on a machine that has that type's GPU.

    python benchmarks/aws_settings.py --instance p5.4xlarge --model random:llama-3.1-8b --json out.json

The recommended settings first, then each of them turned the other way, then the recommended ones again; each
variant answers the same requests. Beside them stands what the data sheet predicted. It need not be an EC2 instance: the
settings follow from the GPU.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, replace

from workbench import EngineConfig, LlamaGPU, plan
from workbench.aws import InstanceCatalogue, InstanceSettings, ServingPlan, recommend_settings
from workbench.aws.roofline import estimate_decode
from workbench.errors import WorkbenchError

_PROMPT_TOKENS = 128


@dataclass(frozen=True)
class Variant:
    """One way to load the model."""

    name: str
    quant_type: str
    engine: EngineConfig


def main() -> None:
    options = _options()
    row = InstanceCatalogue.shipped().get(options.instance)
    wanted = _serving_plan(options)
    settings = recommend_settings(row, wanted)
    print(settings, flush=True)
    report: dict[str, object] = {"instance": row.name, "model": options.model, "requests": options.requests}
    for requests in (1, options.requests):
        estimate = estimate_decode(row, wanted, tensor_parallel_size=1, num_requests=requests)
        report[f"predicted_tokens_per_s_of_{requests}"] = round(requests / estimate.step_s, 1)
    print(report, flush=True)
    rows = report["variants"] = []
    for variant in _variants(settings, options):
        found = _measured(variant, options)
        rows.append({"variant": variant.name, **found})
        print(rows[-1], flush=True)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(report, file, indent=1)


def _serving_plan(options: argparse.Namespace) -> ServingPlan:
    """The model's sizes at 16 bits, from its config alone."""
    context = _PROMPT_TOKENS + options.new
    shape = plan(options.model, backend=options.backend, quant="bf16", context=context, batch=options.requests)
    parts = shape.devices[0].parts
    return ServingPlan(
        weight_bytes=parts.weights,
        kv_bytes_per_token=max(1, parts.kv // (context * options.requests)),
        context_tokens=context,
        batch_size=options.requests,
        num_parameters=parts.weights // 2,
    )


def _variants(settings: InstanceSettings, options: argparse.Namespace) -> list[Variant]:
    dtype = str(settings.quant_type.value or settings.dtype.value)
    engine = EngineConfig(
        context_length=1024,
        enable_prefix_caching=False,
        memory_fraction=float(settings.memory_fraction.value or 0.9),
        max_num_seqs=settings.max_num_seqs.value,
    )
    other = {"bf16": "fp16", "fp16": "fp32"}.get(dtype, "bf16")
    # The weights and a pool that holds about a fifth of the requests.
    small = options.small_fraction
    return [
        Variant("recommended", dtype, engine),
        Variant("no settings at all", "bf16", EngineConfig(context_length=1024, enable_prefix_caching=False)),
        Variant(f"dtype {other}", other, engine),
        Variant("dtype fp32, torch's operators", "fp32", engine),
        Variant("max_num_seqs 16", dtype, replace(engine, max_num_seqs=16)),
        Variant(f"memory_fraction {small}", dtype, replace(engine, memory_fraction=small)),
        Variant("recommended, again", dtype, engine),
    ]


def _measured(variant: Variant, options: argparse.Namespace) -> dict[str, object]:
    """Tokens/s alone and of all requests, prompts included. A variant that cannot be loaded is told."""
    try:
        llm = LlamaGPU(options.model, backend=options.backend, quant_type=variant.quant_type, engine=variant.engine,
                       check_plan=False)  # fmt: skip
    except WorkbenchError as error:
        return {"failed": str(error)[:200]}
    with llm:
        alone, together = (min(_seconds(llm, count, options.new) for _ in range(2)) for count in (1, options.requests))
        return {
            "alone_tokens_per_s": round(options.new / alone, 1),
            "together_tokens_per_s": round(options.requests * options.new / together, 1),
            "kv_tokens": llm.limits.num_blocks * llm.limits.block_size,
            "max_num_seqs": llm.limits.max_num_seqs,
            "runner": llm.runner_reason,
        }


def _seconds(llm: LlamaGPU, count: int, new: int) -> float:
    vocabulary = llm.spec.vocab_size
    prompts = [[(17 * i + 31 * k + 7) % (vocabulary - 1) for k in range(_PROMPT_TOKENS)] for i in range(count)]
    started = time.perf_counter()
    running = [llm.submit(prompt, max_tokens=new, ignore_eos=True) for prompt in prompts]
    for generation in running:
        generation.result()
    return time.perf_counter() - started


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instance", default="p5.4xlarge", help="an EC2 type with this machine's GPU")
    parser.add_argument("--model", default="random:llama-3.1-8b")
    parser.add_argument("--backend", default="cuda")
    parser.add_argument("--requests", type=int, default=256)
    parser.add_argument("--new", type=int, default=64, help="tokens")
    parser.add_argument("--small-fraction", type=float, default=0.15)
    parser.add_argument("--json")
    return parser.parse_args()


if __name__ == "__main__":
    main()
