"""The command of an example that says something of each text: its options, and the way of a result to where it goes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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
from workbench.errors import ConfigError

if TYPE_CHECKING:
    from workbench.llm import LlamaGPU

__all__ = ["NoChoice", "TextsJob", "check_threshold", "sure_enough", "texts_command"]


@dataclass(frozen=True)
class NoChoice:
    """For examples without options of their own."""


@dataclass(frozen=True)
class TextsJob:
    """What to work on: at most `batch_size` texts at once (None: all), and the example's own options as `choice`."""

    texts: list[str]
    batch_size: int | None
    choice: Any


def texts_command(
    default_text: str, work: Callable[[LlamaGPU, TextsJob], dict[str, Any]], choice: type = NoChoice
) -> Callable[..., None]:
    """A command that writes what `work` gives. The fields of the dataclass `choice` are options of this command only.

    `default_text` is worked on when no text is given.
    """

    @takes_settings(choice=choice, settings=ModelSettings)
    def command(
        ctx: typer.Context,
        *,
        text: Input = None,
        input_file: InputFile = None,
        output_file: OutputFile = None,
        batch_size: BatchSize = None,
        auto_detect_aws: DetectAws = True,
        log_level: LogLevel = "WARNING",
        choice: Any,
        settings: ModelSettings,
    ) -> None:
        job = TextsJob(texts_of(text, input_file, default_text), batch_size, choice)
        with opened(ctx, settings, log_level=log_level, auto_detect_aws=auto_detect_aws) as llm:
            result = work(llm, job)
        write_result(result, output_file)

    return command


def check_threshold(confidence_threshold: float) -> None:
    """Raises ConfigError for no share of 1."""
    if not 0.0 <= confidence_threshold <= 1.0:
        raise ConfigError(f"confidence_threshold={confidence_threshold!r}: must be 0 to 1")


def sure_enough(results: Sequence[dict[str, Any]], threshold: float) -> list[dict[str, Any]]:
    """The results whose measured `confidence` is `threshold` or more."""
    return [result for result in results if result["confidence"] >= threshold]
