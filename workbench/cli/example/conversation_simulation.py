"""`workbench example conversation_simulation`: let a model talk with itself."""

from __future__ import annotations

from typing import Annotated

import typer

from workbench.cli.example.running import Benchmark, OutputFile, must_be_one_of, opened, write_result
from workbench.cli.model_settings import ModelSettings
from workbench.cli.settings_options import takes_settings

__all__ = ["command"]


@takes_settings(settings=ModelSettings)
def command(
    ctx: typer.Context,
    *,
    scenario: Annotated[
        str, typer.Option("--scenario", help="customer_support, interview, therapy, teaching or negotiation.")
    ] = "customer_support",
    turns: Annotated[int, typer.Option("--turns", min=1, help="How many turns, the opening included.")] = 10,
    context: Annotated[str, typer.Option("--context", help="What both sides know.")] = "",
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="How many conversations, at once.")] = 1,
    benchmark: Benchmark = False,
    output_file: OutputFile = None,
    settings: ModelSettings,
) -> None:
    from workbench.examples.conversation_simulation import SCENARIOS, ConversationSimulator

    must_be_one_of("--scenario", scenario, SCENARIOS)
    with opened(ctx, settings) as llm:
        example = ConversationSimulator(llm)
        runs = [example.batch_simulate([scenario] * batch_size, turns, context) for _ in range(3 if benchmark else 1)]
    write_result(runs if benchmark else runs[0], output_file)
