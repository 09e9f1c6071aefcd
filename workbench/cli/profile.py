"""`workbench profile`: where the time of a model's steps goes, on this machine."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from workbench.cli.model_settings import ModelSettings
from workbench.cli.output_file import can_be_written
from workbench.cli.settings_options import takes_settings
from workbench.engine import EngineConfig

__all__ = ["command"]


@takes_settings(settings=ModelSettings, engine=EngineConfig)
def command(
    ctx: typer.Context,
    name: Annotated[str | None, typer.Argument(metavar="MODEL", help="The same as --model.")] = None,
    *,
    prompt: Annotated[str | None, typer.Option(help="Text to answer.", show_default="128 tokens")] = None,
    batch: Annotated[int, typer.Option(help="Requests at the same time.")] = 1,
    max_tokens: Annotated[int, typer.Option(help="Tokens of each answer.")] = 32,
    operations: Annotated[
        bool, typer.Option("--operations/--no-operations", help="Record torch's operations as well.")
    ] = True,
    trace: Annotated[
        Path | None, typer.Option(help="Write a trace for chrome://tracing or Perfetto.", callback=can_be_written)
    ] = None,
    flame_graph: Annotated[
        Path | None, typer.Option(help="Write a flame graph as an HTML page.", callback=can_be_written)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    settings: ModelSettings,
    engine: EngineConfig,
) -> None:
    if not operations and (trace or flame_graph):
        raise typer.BadParameter("--trace and --flame-graph are made of operations: leave --no-operations out.")
    if name is not None:
        settings = replace(settings, model=name)
    with settings.open(ctx.obj, engine) as llm:
        profile = llm.profile(prompt, batch=batch, max_tokens=max_tokens, operations=operations)
    print(json.dumps(profile.to_dict(), indent=2) if as_json else profile)
    for path, save in ((trace, profile.save_trace), (flame_graph, profile.save_flame_graph)):
        if path is not None:
            typer.echo(f"wrote {save(path)}", err=True)
