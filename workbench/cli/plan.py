"""`workbench plan`: what a model would take here, before anything is downloaded or loaded. Exit status 2: no fit."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from workbench.errors import ConfigError
from workbench.planner import measure, plan

__all__ = ["command"]

_DOES_NOT_FIT = 2


def command(
    ctx: typer.Context,
    model: Annotated[
        str, typer.Argument(help="A folder, a .gguf file, a hub id, random:<preset>, or default.")
    ] = "default",
    *,
    backend: Annotated[str | None, typer.Option(help="rocm, cuda or cpu; the best available one otherwise.")] = None,
    gpus: Annotated[str | None, typer.Option(help="How many GPUs, or which: 0,2 or UUIDs.")] = None,
    quant: Annotated[str | None, typer.Option(help="Precision or quantisation of the weights.")] = None,
    context: Annotated[int | None, typer.Option(help="Most tokens of one request.", show_default="what fits")] = None,
    batch: Annotated[int, typer.Option(help="Requests at the same time.")] = 1,
    kv_dtype: Annotated[str | None, typer.Option(help="Precision of keys and values.")] = None,
    cpu_offload_layers: Annotated[int | None, typer.Option(help="Layers kept in the host's memory.")] = None,
    draft_model: Annotated[str | None, typer.Option(help="A model that guesses ahead.")] = None,
    parallel: Annotated[
        str | None, typer.Option(help="tensor, pipeline, data or hybrid; or sizes: tensor=2,data=2.")
    ] = None,
    prompt_tokens: Annotated[int, typer.Option(help="Prompt length for the time to the first token.")] = 512,
    instance: Annotated[str | None, typer.Option(help="Plan for this EC2 instance type, not this machine.")] = None,
    measured: Annotated[bool, typer.Option("--measure", help="Measure the devices first: 3 s each, once.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    if measured:
        measure(backend, _gpus(gpus))
    made = plan(
        model,
        backend=backend,
        gpus=_gpus(gpus),
        quant=quant,
        context=context,
        batch=batch,
        kv_dtype=kv_dtype,
        cpu_offload_layers=cpu_offload_layers,
        draft_model=draft_model,
        parallel=_parallel(parallel),
        prompt_tokens=prompt_tokens,
        instance=instance,
    )
    print(json.dumps(made.to_dict(), indent=2) if as_json else made)
    if not made.fits:
        raise typer.Exit(_DOES_NOT_FIT)


def _gpus(text: str | None) -> int | list[int | str] | None:
    """ "2" is how many; "0,2" and "GPU-..." are which."""
    if text is None:
        return None
    if text.strip().isdigit():
        return int(text)
    return [int(part) if part.strip().isdigit() else part.strip() for part in text.split(",") if part.strip()]


def _parallel(text: str | None) -> str | dict[str, int] | None:
    if text is None or "=" not in text:
        return text
    pairs = [part.partition("=") for part in text.split(",")]
    wrong = next((part for name, _, part in pairs if not part.strip().isdigit()), None)
    if wrong is not None:
        raise ConfigError(f"parallel={text!r}: {wrong!r} is not a whole number; write sizes as tensor=2,data=2")
    return {name.strip(): int(size) for name, _, size in pairs}
