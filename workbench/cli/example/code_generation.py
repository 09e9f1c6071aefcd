"""`workbench example code_generation`: write code for a task."""

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
    task: Annotated[str, typer.Option("--task", help="What the code should do.")] = "add two numbers",
    language: Annotated[str, typer.Option("--language", help="python, javascript, java, cpp or rust.")] = "python",
    complexity: Annotated[
        str, typer.Option("--complexity", help="simple (300 tokens), medium (600) or high (1200).")
    ] = "simple",
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="How often the same, at once.")] = 1,
    benchmark: Benchmark = False,
    output_file: OutputFile = None,
    settings: ModelSettings,
) -> None:
    from workbench.examples.code_generation import COMPLEXITIES, LANGUAGES, CodeGenerator

    must_be_one_of("--language", language, LANGUAGES)
    must_be_one_of("--complexity", complexity, COMPLEXITIES)
    with opened(ctx, settings) as llm:
        example = CodeGenerator(llm)
        runs = [example.batch_generate([task] * batch_size, language, complexity) for _ in range(3 if benchmark else 1)]
    write_result(runs if benchmark else runs[0], output_file)
