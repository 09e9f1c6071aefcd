"""`workbench chat`: a conversation on the terminal, or line by line through a pipe."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from workbench.cli.chat_session import ChatSession
from workbench.cli.model_settings import ModelSettings
from workbench.cli.settings_options import takes_settings
from workbench.engine import EngineConfig, SamplingParams

__all__ = ["command"]


# A reply that never ends by itself should still end.
@takes_settings({"max_tokens": 1024}, settings=ModelSettings, sampling=SamplingParams, engine=EngineConfig)
def command(
    ctx: typer.Context,
    *,
    system: Annotated[str | None, typer.Option("--system", help="The system message to begin with.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object per reply instead of text as it comes.")
    ] = False,
    settings: ModelSettings,
    sampling: SamplingParams,
    engine: EngineConfig,
) -> None:
    if sampling.n != 1:
        raise typer.BadParameter(f"a chat has one reply at a time, not --n {sampling.n}.")
    with settings.open(ctx.obj, engine) as llm:
        session = ChatSession(llm, sampling, system=system, as_json=as_json)
        if sys.stdin.isatty():
            session.run_terminal()
        elif not session.run_lines(sys.stdin):
            raise typer.Exit(1)
