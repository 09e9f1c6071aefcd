"""What the example commands share: the texts they work on, and where their result goes."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workbench.cli.output_file import can_be_written
from workbench.engine import EngineConfig
from workbench.errors import RequestError

if TYPE_CHECKING:
    from workbench.cli.model_settings import ModelSettings
    from workbench.llm import LlamaGPU

__all__ = [
    "BatchSize",
    "Benchmark",
    "DetectAws",
    "Input",
    "InputFile",
    "LogLevel",
    "OutputFile",
    "must_be_one_of",
    "opened",
    "texts_of",
    "write_result",
]

Input = Annotated[str | None, typer.Option("--input", help="The text.")]
InputFile = Annotated[Path | None, typer.Option("--input-file", help="A file with one text a line.")]
OutputFile = Annotated[
    Path | None,
    typer.Option("--output-file", help="Write the JSON here instead of printing it.", callback=can_be_written),
]
BatchSize = Annotated[int | None, typer.Option("--batch-size", min=1, help="Requests at once; 32 otherwise.")]
LogLevel = Annotated[str, typer.Option("--log-level", help="DEBUG, INFO, WARNING or ERROR.")]
Benchmark = Annotated[bool, typer.Option("--benchmark", help="Run it three times and give the figures of each.")]
DetectAws = Annotated[
    bool, typer.Option("--auto-detect-aws/--no-auto-detect-aws", help="Look whether this is an EC2 instance.")
]

_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


@contextmanager
def opened(
    ctx: typer.Context, settings: ModelSettings, *, log_level: str = "WARNING", auto_detect_aws: bool = True
) -> Iterator[LlamaGPU]:
    """The model, for the time of the example."""
    if log_level.upper() not in _LEVELS:
        raise typer.BadParameter(f"--log-level {log_level}: use one of {', '.join(_LEVELS)}")
    logging.basicConfig(level=log_level.upper(), stream=sys.stderr)
    with settings.open(ctx.obj, EngineConfig(), auto_detect_aws=auto_detect_aws) as llm:
        yield llm


def must_be_one_of(option: str, value: str, allowed: Collection[str]) -> None:
    """Raises typer.BadParameter with the valid words for any other: a command asks before it loads a model."""
    if value not in allowed:
        raise typer.BadParameter(f"{option} {value}: use one of {', '.join(allowed)}")


def texts_of(text: str | None, file: Path | None, default: str) -> list[str]:
    """The texts to work on: one, or a file's lines, or the example's own."""
    if text is not None and file is not None:
        raise typer.BadParameter("--input and --input-file are both given: give one")
    if file is None:
        return [default if text is None else text]
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"{file}: {error}") from None
    found = [line for line in lines if line]
    if not found:
        raise RequestError(f"{file}: it has no lines with text")
    return found


def write_result(result: Any, file: Path | None) -> None:
    """As JSON, to stdout or to a file."""
    text = json.dumps(result, indent=2, ensure_ascii=False, default=str)
    if file is None:
        print(text)
        return
    try:
        file.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise RequestError(f"--output-file {file}: {error.strerror}") from None
