"""`workbench example document_classification`: say which kind of document a text is."""

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

_TEXT = "The court ruled that the contract was void and ordered both parties to bear their own costs."


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
    from workbench.examples.document_classification import DocumentClassifier

    texts = texts_of(text, input_file, _TEXT)
    with opened(ctx, settings, log_level=log_level, auto_detect_aws=auto_detect_aws) as llm:
        example = DocumentClassifier(llm)
        found = example.classify_documents_batch(texts, batch_size)
        statistics = example.get_classification_statistics(found)
    write_result({"results": found, "statistics": statistics}, output_file)
