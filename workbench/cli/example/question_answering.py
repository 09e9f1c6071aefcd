"""`workbench example question_answering`: answer questions about a text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from workbench.cli.example.running import BatchSize, DetectAws, LogLevel, OutputFile, opened, write_result
from workbench.cli.model_settings import ModelSettings
from workbench.cli.settings_options import takes_settings
from workbench.errors import RequestError

__all__ = ["command"]

_CONTEXT = "The Eiffel Tower was finished in 1889. It is 330 metres tall and stands in Paris."
_QUESTION = "When was the tower finished?"


@takes_settings(settings=ModelSettings)
def command(
    ctx: typer.Context,
    *,
    context: Annotated[str | None, typer.Option("--context", help="The text to answer from.")] = None,
    question: Annotated[str | None, typer.Option("--question", help="What to find in it.")] = None,
    input_file: Annotated[
        Path | None, typer.Option("--input-file", help='A JSON list of {"context": ..., "question": ...}.')
    ] = None,
    output_file: OutputFile = None,
    validate_answer: Annotated[
        bool,
        typer.Option("--validate-answer/--no-validate-answer", help="Say whether each answer stands in its context."),
    ] = True,
    batch_size: BatchSize = None,
    auto_detect_aws: DetectAws = True,
    log_level: LogLevel = "WARNING",
    settings: ModelSettings,
) -> None:
    from workbench.examples.question_answering import QuestionAnswering

    pairs = _pairs(context, question, input_file)
    with opened(ctx, settings, log_level=log_level, auto_detect_aws=auto_detect_aws) as llm:
        example = QuestionAnswering(llm)
        results = example.answer_questions_batch(pairs, batch_size)
    for result in results if validate_answer else ():
        result["found_in_context"] = example.validate_answer(result["answer"], result["context"])
    write_result({"results": results, "statistics": example.get_qa_statistics(results)}, output_file)


def _pairs(context: str | None, question: str | None, file: Path | None) -> list[dict[str, str]]:
    if file is None:
        if (context is None) != (question is None):
            raise typer.BadParameter("--context and --question go together")
        return [{"context": _CONTEXT, "question": _QUESTION} if context is None else _pair(context, question)]
    if context is not None or question is not None:
        raise typer.BadParameter("--input-file is given beside --context or --question: give one")
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return [_pair(each["context"], each["question"]) for each in found]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RequestError(f'{file}: not a JSON list of {{"context": ..., "question": ...}} ({error})') from None


def _pair(context: str, question: str | None) -> dict[str, str]:
    return {"context": str(context), "question": str(question)}
