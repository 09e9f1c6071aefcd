"""`workbench quantize`: write a model with smaller weights, or compare what each way costs and saves."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from workbench.byte_size import byte_size
from workbench.cli.output_file import can_be_written
from workbench.errors import ConfigError
from workbench.progress_display import ProgressDisplay

__all__ = ["command"]


def command(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(help="A folder, a .gguf file, a hub id, or default.")] = "default",
    *,
    kind: Annotated[
        list[str] | None,
        typer.Option("--type", help="int8, int4, dynamic, static, nf4 or fp8; with --compare also bf16, gguf, ..."),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(help="Folder or s3:// address to write, which then loads as a model.", show_default="the cache"),
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Measure memory, speed and quality of each type instead of writing one.")
    ] = False,
    prompt: Annotated[
        list[str] | None, typer.Option(help="With --compare: a text to measure quality on.", show_default="built in")
    ] = None,
    figure: Annotated[
        Path | None, typer.Option(help="With --compare: an HTML file for the figure.", callback=can_be_written)
    ] = None,
    backend: Annotated[str | None, typer.Option(help="With --compare: rocm, cuda or cpu.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    if compare:
        if out is not None:
            raise typer.BadParameter("--compare writes no weights; leave --out away.")
        _compare(model, kind, prompt, figure, backend, as_json)
        return
    if prompt or figure or backend:
        raise typer.BadParameter("--prompt, --figure and --backend belong to --compare.")
    if kind is None or len(kind) != 1:
        raise typer.BadParameter("name one --type, as in --type int4; several go with --compare.")
    _write(model, kind[0], out, as_json)


def _write(model: str, kind: str, out: str | None, as_json: bool) -> None:
    from workbench.models.quantized_folder import quantize_to_folder
    from workbench.quantize import parse_quant_type
    from workbench.quantize.quant_type import QUANTIZED_NAMES

    asked = parse_quant_type(kind)
    if asked.config is None or asked.name == "gguf":
        reason = "a .gguf file is packed already" if asked.name == "gguf" else "a precision is chosen when loading"
        writable = ", ".join(name for name in QUANTIZED_NAMES if name != "gguf")
        raise ConfigError(f"--type {kind}: {reason}; use one of {writable}")
    asked.require_on("cpu")
    with ProgressDisplay() as progress:
        made = quantize_to_folder(model, asked.config, out, progress=progress)
    share = made.quantized_bytes / made.original_bytes
    if as_json:
        config = {**asdict(made.config), "quantization_type": made.config.quantization_type.value}
        print(json.dumps({**asdict(made), "path": str(made.path), "config": config}, indent=2))
        return
    how = "read from the cache" if made.from_cache else "quantised"
    print(
        f"{byte_size(made.original_bytes)} in bf16 became {byte_size(made.quantized_bytes)} ({share:.3f}), {how} in "
        f"{made.elapsed_s:.1f} s; {len(made.kept_layers)} layers kept more precision"
    )
    print(made.path)


def _compare(
    model: str,
    kinds: list[str] | None,
    prompts: list[str] | None,
    figure: Path | None,
    backend: str | None,
    as_json: bool,
) -> None:
    from workbench.tradeoff import tradeoff

    with ProgressDisplay() as progress:
        result = tradeoff(model, kinds, prompts, backend=backend, progress=progress)
    if figure is not None:
        result.figure.write_html(figure)
    if as_json:
        print(result.frame.reset_index().to_json(orient="records", indent=2))
        return
    frame = result.frame.rename(columns={"weight_bytes": "weights"})
    frame["weights"] = [None if one.problem else byte_size(one.weight_bytes) for one in result.methods]
    print(frame.to_string(float_format=lambda number: f"{number:.4g}"))
