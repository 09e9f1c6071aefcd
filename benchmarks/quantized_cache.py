"""Loading quantised weights from the cache against quantising again, of a checkpoint on disk.

    python benchmarks/quantized_cache.py --model random:llama-3.2-1b --device cpu --types "int8;int4"
    python benchmarks/quantized_cache.py --model random:llama-3.1-8b --device cuda:0 --cold

A model with random weights is first written as bf16 safetensors (`--folder`: one that is there). Both ways take turns,
and each time is that of `load_model` as a whole, tokenizer and checksum included. With `--cold` the files leave the
system's page cache before each load, as far as it lets them.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from workbench.engine.low_bit_method import LowBitMethod
from workbench.engine.low_bit_weight import LowBitKind
from workbench.models import Catalogue, ModelFiles, load_model
from workbench.quantize import QuantizationCache, QuantizationConfig

_CONFIGS = {
    "int8": QuantizationConfig("int8", dynamic=False, preserve_accuracy=False),
    "int8, looking": QuantizationConfig("int8", dynamic=False),
    "int4": QuantizationConfig("int4"),
    "int4, quickly": QuantizationConfig("int4", preserve_accuracy=False),
    "dynamic": QuantizationConfig("dynamic", preserve_accuracy=False),
    "static": QuantizationConfig("static"),
    "nf4": QuantizationConfig("nf4", preserve_accuracy=False),
    "fp8": QuantizationConfig("fp8", preserve_accuracy=False),
}

# Of these a GPU's engine packs the weights for kernels of its own.
_ENGINE = ("engine int8", "engine int4", "engine fp8")


def main() -> None:
    options = _options()
    with _checkpoint(options) as folder, tempfile.TemporaryDirectory(dir=options.scratch) as kept:
        files = Catalogue().resolve(str(folder))
        bf16_bytes = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        print(f"{options.model} on {options.device}: {bf16_bytes / 1e6:,.0f} MB of safetensors", flush=True)
        plain_s = [_timed(files, options, None, None, folder)[0] for _ in range(2)]
        print(f"bf16 as it is: {plain_s[0]:.2f}, {plain_s[1]:.2f} s", flush=True)
        rows = []
        for name in options.types:
            cache = QuantizationCache(Path(kept))
            _timed(files, options, name, cache, folder)
            (entry,) = cache.entries()
            pairs = []
            for _ in range(options.rounds):
                quantised_s, _ = _timed(files, options, name, None, folder)
                cached_s, from_cache = _timed(files, options, name, cache, entry.folder)
                assert from_cache
                pairs.append((quantised_s, cached_s))
            ratio = min(one for one, _ in pairs) / min(other for _, other in pairs)
            row = {"type": name, "kept_mb": entry.num_bytes / 1e6, "quantised_s": [a for a, _ in pairs],
                   "cached_s": [b for _, b in pairs], "times": ratio}  # fmt: skip
            rows.append(row)
            print(json.dumps({key: _short(value) for key, value in row.items()}), flush=True)
            cache.clear()
    print(f"\n| type | kept, MB | quantised, s | from the cache, s | times |{os.linesep}|---|---|---|---|---|")
    for row in rows:
        ways = (", ".join(f"{value:.2f}" for value in row[way]) for way in ("quantised_s", "cached_s"))
        print(f"| {row['type']} | {row['kept_mb']:,.0f} | {' | '.join(ways)} | {row['times']:.1f} |")


@contextlib.contextmanager
def _checkpoint(options: argparse.Namespace) -> Iterator[Path]:
    if options.folder:
        yield Path(options.folder)
        return
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        made = load_model(Catalogue().resolve(options.model), device=options.device, dtype="bf16")
        made.module.save_pretrained(folder)
        made.tokenizer.hf.save_pretrained(folder)
        del made
        _forget()
        yield Path(folder)


def _timed(
    files: ModelFiles,
    options: argparse.Namespace,
    name: str | None,
    cache: QuantizationCache | None,
    read: Path,
) -> tuple[float, bool]:
    """Seconds of one load, and whether it came from the cache; `read` is the folder that it will read."""
    _forget()
    method = LowBitMethod(LowBitKind(name.removeprefix("engine "))) if name in _ENGINE else None
    config = method.config if method else _CONFIGS.get(name)
    if options.cold:
        for path in read.glob("*.safetensors"):
            with path.open("rb") as file:
                os.fdatasync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    began_s = time.perf_counter()
    loaded = load_model(files, device=options.device, dtype="bf16", quantization=config, cache=cache, method=method)
    if options.device != "cpu":
        torch.cuda.synchronize()
    elapsed_s = time.perf_counter() - began_s
    return elapsed_s, loaded.quantized is not None and loaded.quantized.from_cache


def _forget() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _short(value: Any) -> Any:
    if isinstance(value, list):
        return [_short(one) for one in value]
    return round(value, 3) if isinstance(value, float) else value


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="random:llama-3.2-1b")
    parser.add_argument("--folder", help="a checkpoint that is there")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--types", type=lambda text: text.split(";"), default=None, help="by semicolons")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--scratch", help="folder for large files")
    options = parser.parse_args()
    options.types = options.types or [*(() if options.device == "cpu" else _ENGINE), *_CONFIGS]
    return options


if __name__ == "__main__":
    main()
