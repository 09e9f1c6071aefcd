"""`workbench bench`: how fast a model is here, beside other engines; or how an endpoint does under load."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from workbench.backends import BACKEND_NAMES, detect, require_backend, select_backend
from workbench.benchmark import (
    ENGINE_NAMES,
    EngineChoice,
    Load,
    Workload,
    load_page,
    report_page,
    run_benchmark,
    run_load,
)
from workbench.benchmark.engine_choice import OURS
from workbench.benchmark.formats import as_csv, as_text
from workbench.cli.given_options import refuse_given
from workbench.cli.output_file import can_be_written
from workbench.errors import ConfigError
from workbench.progress_display import ProgressDisplay

__all__ = ["OutputFormat", "command"]

_PEERS = tuple(name for name in ENGINE_NAMES if name != OURS)
# Of transformers' ways the one that people use: compiling takes minutes for every shape.
_USUAL_PEERS = ("transformers", "llama.cpp", "vllm")
# Options of one kind of benchmark that the other has no use for.
_OF_A_MODEL = (
    "backend",
    "quant",
    "batch_size",
    "runs",
    "warmup_runs",
    "threads",
    "draft_model",
    "peer",
    "peer_python",
)
_OF_AN_ENDPOINT = ("rate", "requests", "api_key", "ignore_eos", "seed")


class OutputFormat(StrEnum):
    """How figures are printed."""

    HUMAN = "human"
    CSV = "csv"
    JSON = "json"


def command(
    ctx: typer.Context,
    model: Annotated[
        str | None,
        typer.Argument(help="As `workbench plan` takes it; with --url, the served name.", show_default="default"),
    ] = None,
    *,
    backend: Annotated[
        str | None, typer.Option(help="cpu, cuda, rocm, or all that can be used.", show_default="the best one")
    ] = None,
    quant: Annotated[
        list[str] | None, typer.Option(help="Precision of the weights; more than once for several.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Requests at the same time.")] = 1,
    prompt_tokens: Annotated[int, typer.Option(help="Tokens of each prompt.")] = 128,
    new_tokens: Annotated[int, typer.Option(help="Tokens of each answer.")] = 64,
    runs: Annotated[int, typer.Option(help="Runs that count.")] = 3,
    warmup_runs: Annotated[int, typer.Option(help="Runs before them.")] = 1,
    threads: Annotated[
        int | None, typer.Option(help="Threads of each engine on a CPU.", show_default="physical cores")
    ] = None,
    draft_model: Annotated[
        str | None, typer.Option(help="Also measure with this smaller model guessing ahead.")
    ] = None,
    peer: Annotated[
        list[str] | None,
        typer.Option(help=f"Also measure {', '.join(_PEERS)}; all is {', '.join(_USUAL_PEERS)}. May be repeated."),
    ] = None,
    peer_python: Annotated[
        list[str] | None, typer.Option(metavar="NAME=PYTHON", help="The interpreter that has a peer's packages.")
    ] = None,
    url: Annotated[str | None, typer.Option(help="Measure this endpoint under load, in place of a model here.")] = None,
    rate: Annotated[float, typer.Option(help="Requests a second, at random moments, with --url.")] = 1.0,
    requests: Annotated[int, typer.Option(help="Requests in all, with --url.")] = 50,
    api_key: Annotated[
        str | None, typer.Option(envvar="WORKBENCH_API_KEY", help="Key of the endpoint, with --url.")
    ] = None,
    ignore_eos: Annotated[
        bool, typer.Option(help="Ask for answers of full length, with --url. Endpoints other than ours may refuse it.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the moments and the prompts, with --url.")] = 0,
    output_format: Annotated[OutputFormat, typer.Option(help="How the figures are printed.")] = OutputFormat.HUMAN,
    page: Annotated[
        Path | None,
        typer.Option(help="Also write a page with plots here; it needs no network.", callback=can_be_written),
    ] = None,
) -> None:
    refuse_given(ctx, _OF_A_MODEL if url else _OF_AN_ENDPOINT, "with --url" if url else "without --url")
    if url:
        load = Load(rate, requests, prompt_tokens, new_tokens, ignore_eos=ignore_eos, seed=seed)
        found = run_load(url, load, model=model, api_key=api_key, say=_say)
        _print(output_format, found.as_text(), found.as_csv(), found.to_dict())
        if page is not None:
            _write(page, load_page(found))
        if found.totals()["failed"] == len(found.answers):
            raise typer.Exit(1)
        return
    workload = Workload(batch_size, prompt_tokens, new_tokens, runs, warmup_runs)
    pythons = _pythons(peer_python or [])
    precisions: list[str | None] = [*quant] if quant else [None]
    drafts = [None] if draft_model is None else [None, draft_model]
    choices = [
        choice
        for name in _backends(backend)
        for choice in (
            *(EngineChoice(OURS, name, precision, draft_model=draft) for precision in precisions for draft in drafts),
            *(EngineChoice(one, name, python=pythons.get(one, sys.executable)) for one in _peers(peer or [])),
        )
    ]
    with ProgressDisplay() as display:
        report = run_benchmark(model or "default", choices, workload, threads=threads, say=_say, progress=display)
    _print(output_format, as_text(report), as_csv(report), report.to_dict())
    if page is not None:
        _write(page, report_page(report))
    if not report.has_figures:
        raise typer.Exit(1)


def _backends(name: str | None) -> list[str]:
    if name is None:
        return [select_backend().backend.name]
    if name.strip().lower() != "all":
        return [require_backend(name).name]
    for status in detect():
        if not status.available:
            _say(f"{status.name} is left out: {status.reason}")
    # The engine's own order of preference would put a GPU first; people read from the plain to the fast.
    return [status.name for status in reversed(detect()) if status.available and status.name in BACKEND_NAMES]


def _peers(names: list[str]) -> list[str]:
    for name in names:
        if name not in (*_PEERS, "all"):
            raise ConfigError(f"peer={name!r}: is not known; use one of: {', '.join(_PEERS)}, all")
    if "all" in names:
        return list(dict.fromkeys([*_USUAL_PEERS, *(name for name in names if name != "all")]))
    return list(dict.fromkeys(names))


def _pythons(pairs: list[str]) -> dict[str, str]:
    found = {}
    for pair in pairs:
        name, _, python = pair.partition("=")
        if name not in _PEERS or not python:
            raise ConfigError(f"peer_python={pair!r}: must be NAME=PYTHON, NAME one of: {', '.join(_PEERS)}")
        found[name] = python
    return found


def _print(output_format: OutputFormat, text: str, rows: str, values: dict[str, object]) -> None:
    if output_format is OutputFormat.JSON:
        print(json.dumps(values, indent=2))
    else:
        print((rows if output_format is OutputFormat.CSV else text).rstrip("\n"))


def _write(page: Path, html: str) -> None:
    try:
        page.write_text(html, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"page={str(page)!r}: {error.strerror}") from None
    _say(f"wrote {page}")


def _say(line: str) -> None:
    typer.echo(line, err=True)
