"""`workbench example text_generation`: write a text in a style and of a length."""

from __future__ import annotations

from typing import Annotated

import typer

from workbench.cli.example.running import Benchmark, OutputFile, must_be_one_of, opened, write_result
from workbench.cli.given_options import refuse_given
from workbench.cli.model_settings import ModelSettings
from workbench.cli.settings_options import takes_settings

__all__ = ["command"]


@takes_settings(settings=ModelSettings)
def command(
    ctx: typer.Context,
    *,
    prompt: Annotated[str, typer.Option("--prompt", help="What to write.")] = "Write about a lighthouse.",
    style: Annotated[str | None, typer.Option("--style", help="creative, technical, business or academic.")] = None,
    length: Annotated[
        str, typer.Option("--length", help="short (100 tokens), medium (300), long (800) or extended (1500).")
    ] = "short",
    max_tokens: Annotated[
        int | None, typer.Option("--max-tokens", min=1, help="Most tokens, in place of a length.")
    ] = None,
    temperature: Annotated[float, typer.Option("--temperature", help="0 is the likeliest text.")] = 0.7,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="How many texts, at once.")] = 1,
    benchmark: Benchmark = False,
    output_file: OutputFile = None,
    settings: ModelSettings,
) -> None:
    from workbench.examples.text_generation import LENGTHS, STYLES, TextGenerator

    if max_tokens is not None:
        refuse_given(ctx, ("length",), "with --max-tokens")
    must_be_one_of("--length", length, LENGTHS)
    if style is not None:
        must_be_one_of("--style", style, STYLES)
    tokens = max_tokens or LENGTHS[length]
    with opened(ctx, settings) as llm:
        example = TextGenerator(llm, style)
        runs = [
            example.batch_generate([prompt] * batch_size, tokens, temperature) for _ in range(3 if benchmark else 1)
        ]
    write_result(runs if benchmark else runs[0], output_file)
