"""Holds every quantisation of a GPU against the unquantised model, in one run: does it work, how fast, how far off.

    python benchmarks/quantization_gpu.py [--model default] [--device cuda:0]

First each method's layer on a matrix of 4096 x 4096 with one row and with 512, against float32 of its own rounded
weights; then each as a whole model: bytes against the arithmetic, perplexity, mean KL, and the file format there and
back. Exit status 1 if a result is off.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import torch

from workbench.errors import WorkbenchError
from workbench.models import Catalogue, load_model
from workbench.quantize import QuantizationCache, QuantizationConfig, probe_capabilities
from workbench.quantize.methods import METHODS, weight_from_file
from workbench.quantize.quality import compare, token_logits
from workbench.quantize.samples import sample_ids
from workbench.quantize.weight_bytes import weight_bytes
from workbench.quantize.weight_use import WeightUse

_SIZE = 4096
_CONFIGS = (
    QuantizationConfig("int8", dynamic=False, preserve_accuracy=False),
    QuantizationConfig("int4", preserve_accuracy=False),
    QuantizationConfig("int4", group_size=128, preserve_accuracy=False),
    QuantizationConfig("dynamic", preserve_accuracy=False),
    QuantizationConfig("nf4", preserve_accuracy=False),
    QuantizationConfig("fp8", preserve_accuracy=False),
    QuantizationConfig("fp8", dynamic=False, preserve_accuracy=False),
)
_MOST_ERROR = {"int8": 0.02, "int4": 0.13, "dynamic": 0.03, "nf4": 0.12, "fp8": 0.06}


def check_layers(device: str, configs: list[QuantizationConfig]) -> int:
    """Every packed layer against the product with the original weight. Gives the number that is off."""
    weight = torch.randn(_SIZE, _SIZE, device=device, dtype=torch.bfloat16)
    num_wrong = 0
    for config in configs:
        kind = config.quantization_type.value
        packed = METHODS[config.quantization_type].pack(weight, config, WeightUse())
        held = sum(tensor.nbytes for tensor in packed.linear(None).buffers())
        expected = weight_bytes(config, _SIZE, _SIZE, device_type="cuda")
        again = weight_from_file(packed.kind, {k: v.cpu() for k, v in packed.tensors().items()}, packed.facts(), device)
        for num_rows in (1, 17, 512):
            rows = torch.randn(num_rows, _SIZE, device=device, dtype=torch.bfloat16)
            exact = rows.float() @ weight.float().T
            out = packed.linear(None)(rows)
            error = float((out.float() - exact).norm() / exact.norm())
            same = torch.equal(out, again.linear(None)(rows))
            is_wrong = error > _MOST_ERROR[kind] or not same or abs(held / expected - 1) > 0.03
            num_wrong += is_wrong
            words = "OFF" if is_wrong else "ok"
            print(
                f"layer {kind:8} {num_rows:4} rows: error {error:.4f}, {held / 2 / weight.numel():.4f} of bf16, {words}"
            )
    return num_wrong


def check_model(name: str, device: str, configs: list[QuantizationConfig]) -> int:
    """Every method on a whole model, and once more from the cache."""
    files = Catalogue().resolve(name)
    plain = load_model(files, device=device, dtype="bf16")
    samples = sample_ids(plain.module, plain.tokenizer, None)
    reference, num_bytes = token_logits(plain.module, samples), plain.weight_bytes
    del plain
    num_wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        cache = QuantizationCache(Path(folder))
        for config in (*configs, QuantizationConfig("static")):
            kind = config.quantization_type.value
            try:
                first = load_model(files, device=device, dtype="bf16", quantization=config, cache=cache)
                logits = token_logits(first.module, samples)
                second = load_model(files, device=device, dtype="bf16", quantization=config, cache=cache)
                same = all(
                    torch.equal(one, two) for one, two in zip(logits, token_logits(second.module, samples), strict=True)
                )
            except (WorkbenchError, RuntimeError) as error:
                print(f"model {kind}: {type(error).__name__}: {error}")
                num_wrong += 1
                continue
            quality = compare(reference, logits, samples)
            num_wrong += not same
            print(
                f"model {kind:8} {first.weight_bytes / num_bytes:.4f} of bf16, perplexity "
                f"{quality.perplexity_change:+.2%}, KL {quality.mean_kl:.4f}, top-1 {quality.top1_agreement:.1%}, "
                f"quantised in {first.quantized.elapsed_s:.1f} s, from the cache {second.quantized.elapsed_s:.1f} s, "
                f"{'the same' if same else 'OTHER LOGITS'}"
            )
    return num_wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="default")
    parser.add_argument("--device", default="cuda:0")
    arguments = parser.parse_args()
    print(torch.__version__, torch.cuda.get_device_name(arguments.device))
    torch.manual_seed(0)
    with torch.inference_mode():
        capabilities = {capability.name: capability for capability in probe_capabilities(arguments.device)}
        for capability in capabilities.values():
            print(f"probe {capability.name:8} {capability.in_words}")
        configs = [config for config in _CONFIGS if capabilities[config.quantization_type.value].is_usable]
        num_wrong = check_layers(arguments.device, configs) + check_model(arguments.model, arguments.device, configs)
    print("all as they should be" if not num_wrong else f"{num_wrong} are off")
    return int(bool(num_wrong))


if __name__ == "__main__":
    sys.exit(main())
