"""`workbench example named_entity_recognition`: find names, places, dates and the like in a text."""

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
from workbench.cli.model_settings import ModelSettings
from workbench.cli.settings_options import takes_settings

__all__ = ["command"]

_TEXT = "Ada Lovelace met Charles Babbage in London on 5 June 1833."


@takes_settings(settings=ModelSettings)
def command(
    ctx: typer.Context,
    *,
    text: Input = None,
    input_file: InputFile = None,
    output_file: OutputFile = None,
    entity_types: Annotated[
        str | None, typer.Option("--entity-types", help="Which types, separated by commas; all otherwise.")
    ] = None,
    batch_size: BatchSize = None,
    auto_detect_aws: DetectAws = True,
    log_level: LogLevel = "WARNING",
    settings: ModelSettings,
) -> None:
    from workbench.examples.named_entity_recognition import ENTITY_TYPES, NERProcessor

    texts = texts_of(text, input_file, _TEXT)
    types = ENTITY_TYPES if entity_types is None else [t.strip().upper() for t in entity_types.split(",")]
    with opened(ctx, settings, log_level=log_level, auto_detect_aws=auto_detect_aws) as llm:
        example = NERProcessor(llm, types)
        found = example.extract_entities_batch(texts, batch_size)
        results = [{"text": text, "entities": entities} for text, entities in zip(texts, found, strict=True)]
        statistics = example.get_entity_statistics([entity for entities in found for entity in entities])
    write_result({"results": results, "statistics": statistics}, output_file)
