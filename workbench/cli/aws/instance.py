"""`workbench aws instance`: what this instance is, by the table and by torch, and the settings that suit it."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from workbench.aws import InstanceCatalogue, get_aws_instance_metadata, recommend_settings, report_instance

__all__ = ["command"]


def command(
    ctx: typer.Context,
    instance_type: Annotated[
        str | None, typer.Argument(help="Settings for this type, wherever you are; this machine if left out.")
    ] = None,
    *,
    gpu: Annotated[bool, typer.Option("--gpu/--no-gpu", help="Use the GPUs of a GPU instance.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    if instance_type is not None:
        settings = recommend_settings(InstanceCatalogue.shipped().get(instance_type), prefer_gpu=gpu)
        print(json.dumps(asdict(settings), indent=2, default=str) if as_json else settings)
        return
    if as_json:
        print(json.dumps(get_aws_instance_metadata(), indent=2))
    else:
        print(report_instance())
