"""`workbench example language_detection`: say in which language a text is written."""

from __future__ import annotations

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
from workbench.cli.model_settings import ModelSettings
from workbench.cli.settings_options import takes_settings

__all__ = ["command"]

_TEXT = "Où se trouve la bibliothèque, s'il vous plaît ?"


@takes_settings(settings=ModelSettings)
def command(
    ctx: typer.Context,
    *,
    text: Input = None,
    input_file: InputFile = None,
    output_file: OutputFile = None,
    batch_size: BatchSize = None,
    auto_detect_aws: DetectAws = True,
    log_level: LogLevel = "WARNING",
    settings: ModelSettings,
) -> None:
    from workbench.examples.language_detection import LanguageDetector

    texts = texts_of(text, input_file, _TEXT)
    with opened(ctx, settings, log_level=log_level, auto_detect_aws=auto_detect_aws) as llm:
        example = LanguageDetector(llm)
        found = example.detect_languages_batch(texts, batch_size)
        statistics = example.get_detection_statistics(found)
    write_result({"results": found, "statistics": statistics}, output_file)
