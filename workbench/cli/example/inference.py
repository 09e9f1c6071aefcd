"""`workbench example inference`: ask one model in every way there is."""

from __future__ import annotations

from typing import Annotated

import typer

from workbench.cli.example.running import (
    BatchSize,
    DetectAws,
    Input,
    InputFile,
    LogLevel,
    OutputFile,
    opened,
    texts_of,
    write_result,
)
from workbench.cli.given_options import refuse_given
from workbench.cli.model_settings import ModelSettings
from workbench.cli.settings_options import takes_settings

__all__ = ["command"]


@takes_settings(settings=ModelSettings)
def command(
    ctx: typer.Context,
    *,
    text: Input = None,
    input_file: InputFile = None,
    output_file: OutputFile = None,
    batch_size: BatchSize = None,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="Most tokens of an answer.")] = 64,
    auto_detect_aws: DetectAws = True,
    log_level: LogLevel = "WARNING",
    benchmark: Annotated[bool, typer.Option("--benchmark", help="Measure the speed too.")] = False,
    iterations: Annotated[int, typer.Option("--iterations", min=1, help="How often, with --benchmark.")] = 3,
    settings: ModelSettings,
) -> None:
    from workbench.examples.inference import InferenceDemo

    if not benchmark:
        refuse_given(ctx, ("iterations",), "without --benchmark")
    prompts = texts_of(text, input_file, "The three primary colours are")
    with opened(ctx, settings, log_level=log_level, auto_detect_aws=auto_detect_aws) as llm:
        demo = InferenceDemo(llm, max_tokens)
        result = {
            "single": demo.single(prompts[0]),
            "batch": demo.batch(prompts, batch_size),
            "stream": list(demo.stream(prompts[0])),
            "backend": demo.backend_info(),
            "errors": demo.errors(),
        }
        if benchmark:
            result["benchmark"] = demo.benchmark(prompts[0], iterations)
    write_result(result, output_file)
