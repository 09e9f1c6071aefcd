"""`workbench example data_analysis`: have a model write about a table."""

from __future__ import annotations

from pathlib import Path
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
    data: Annotated[Path | None, typer.Option("--data", help="A CSV file; a made-up table otherwise.")] = None,
    data_type: Annotated[
        str, typer.Option("--data-type", help="Of a made-up table: sales, user_behavior, financial or generic.")
    ] = "sales",
    data_size: Annotated[int, typer.Option("--data-size", min=2, help="Its rows.")] = 100,
    analysis_type: Annotated[
        str, typer.Option("--analysis-type", help="trend, correlation, insights or comprehensive.")
    ] = "insights",
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="How often the same, at once.")] = 1,
    benchmark: Benchmark = False,
    output_file: OutputFile = None,
    settings: ModelSettings,
) -> None:
    from workbench.examples.data_analysis import (
        ANALYSIS_TYPES,
        DATA_TYPES,
        DataAnalyzer,
        generate_sample_data,
        load_data_from_file,
    )

    if data is not None:
        refuse_given(ctx, ("data_type", "data_size"), "with --data")
    must_be_one_of("--analysis-type", analysis_type, ANALYSIS_TYPES)
    must_be_one_of("--data-type", data_type, DATA_TYPES)
    table = generate_sample_data(data_type, data_size) if data is None else load_data_from_file(data)
    with opened(ctx, settings) as llm:
        example = DataAnalyzer(llm)
        runs = [example.batch_analyze([table] * batch_size, analysis_type) for _ in range(3 if benchmark else 1)]
    write_result(runs if benchmark else runs[0], output_file)
