"""`workbench generate`: complete one prompt, print the completion and nothing else."""

from __future__ import annotations

import json
import sys
from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workbench.cli.answer import answer_json
from workbench.cli.model_settings import ModelSettings
from workbench.cli.settings_options import takes_settings
from workbench.engine import EngineConfig, SamplingParams
from workbench.errors import RequestError

if TYPE_CHECKING:
    from workbench.engine import Generation
    from workbench.llm import LlamaGPU

__all__ = ["command"]


@takes_settings(settings=ModelSettings, sampling=SamplingParams, engine=EngineConfig)
def command(
    ctx: typer.Context,
    prompt: Annotated[str, typer.Argument(help="The text to go on from; - reads it from stdin.")],
    *,
    chat: Annotated[
        bool, typer.Option("--chat", help="Send the prompt as a user's message, in the model's chat template.")
    ] = False,
    stream: Annotated[
        bool | None,
        typer.Option("--stream/--no-stream", help="Print text as it comes.", show_default="on a terminal"),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object a line: an answer, or with --stream each piece too.")
    ] = False,
    settings: ModelSettings,
    sampling: SamplingParams,
    engine: EngineConfig,
) -> None:
    text = sys.stdin.read() if prompt == "-" else prompt
    if not text:
        # Before a model is loaded for it.
        raise RequestError("the prompt is empty: give some text")
    if stream is None:
        stream = sys.stdout.isatty() and not as_json and sampling.n == 1
    if stream and sampling.n > 1 and not as_json:
        raise typer.BadParameter(f"--stream prints one answer, not --n {sampling.n}; add --json to tell them apart.")
    with settings.open(ctx.obj, engine) as llm:
        generation = _submit(llm, text, chat, sampling)
        try:
            if stream:
                _print_pieces(generation, as_json)
            _print_answers(generation, as_json, streamed=stream)
        except KeyboardInterrupt:
            generation.abort()
            raise


def _submit(llm: LlamaGPU, text: str, chat: bool, sampling: SamplingParams) -> Generation:
    options: dict[str, Any] = {field.name: getattr(sampling, field.name) for field in fields(sampling)}
    if chat:
        return llm.submit(messages=[{"role": "user", "content": text}], **options)
    return llm.submit(text, **options)


def _print_pieces(generation: Generation, as_json: bool) -> None:
    for chunk in generation:
        if chunk.text:
            piece = json.dumps({"index": chunk.index, "delta": chunk.text}) + "\n" if as_json else chunk.text
            sys.stdout.write(piece)
            sys.stdout.flush()


def _print_answers(generation: Generation, as_json: bool, streamed: bool) -> None:
    for completion in generation.results():
        if as_json:
            print(json.dumps(answer_json(completion)))
        else:
            print("" if streamed else completion.text)
