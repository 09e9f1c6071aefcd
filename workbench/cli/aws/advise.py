"""`workbench aws advise`: which EC2 instances would serve a model, how fast, and at what cost. Starts nothing."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Any

import typer

from workbench.aws import Advice, AdviceRow, LivePrices, advise
from workbench.planner.serving import serving_plan

__all__ = ["command"]

_NOTHING_FITS = 2


def command(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(help="Any model name; only its config and headers are read.")] = "default",
    *,
    tokens_per_second: Annotated[
        float | None, typer.Option("--tokens-per-second", help="Wanted from all requests together.")
    ] = None,
    context: Annotated[int | None, typer.Option("--context", help="Tokens of one request.")] = None,
    batch: Annotated[int, typer.Option("--batch", help="Requests at the same time.")] = 1,
    budget: Annotated[float | None, typer.Option("--budget", help="Most to pay, in US dollars an hour.")] = None,
    region: Annotated[str | None, typer.Option("--region", help="Like eu-west-1.")] = None,
    spot: Annotated[bool, typer.Option("--spot", help="Price by spot instances.")] = False,
    quant: Annotated[str | None, typer.Option("--quant", help="Precision or quantisation of the weights.")] = None,
    live_prices: Annotated[
        bool, typer.Option("--live-prices", help="Ask AWS for today's prices; the shipped table otherwise.")
    ] = False,
    all_types: Annotated[bool, typer.Option("--all", help="Also say why every other type was left out.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    plan = serving_plan(
        model,
        context=context,
        batch=batch,
        quant=quant,
        tokens_per_second=tokens_per_second,
        budget_usd_per_hour=budget,
        region=region,
        spot=spot,
    )
    advice = advise(plan, prices=LivePrices() if live_prices else None)
    if as_json:
        print(json.dumps(_as_json(advice), indent=2))
    else:
        print(advice)
        if all_types or not advice.rows:
            print(f"\n{advice.rejections_table()}")
    if not advice.rows:
        raise typer.Exit(_NOTHING_FITS)


def _as_json(advice: Advice) -> dict[str, Any]:
    return {
        "plan": asdict(advice.plan),
        "instances": [_row(row) for row in advice.rows],
        "rejected": {each.instance.name: each.reason for each in advice.rejections},
        "notes": list(advice.notes),
    }


def _row(row: AdviceRow) -> dict[str, Any]:
    return {
        "instance": row.instance.name,
        "gpu": row.instance.accelerator,
        "num_gpus": row.instance.gpu_count,
        "tensor_parallel_size": row.layout.tensor_parallel_size,
        "num_replicas": row.layout.num_replicas,
        "tokens_per_second": row.tokens_per_second,
        "tokens_per_second_per_request": row.tokens_per_second_per_request,
        "limited_by": row.layout.estimate.limited_by,
        "max_requests": row.layout.max_requests,
        "price": asdict(row.price) if row.price else None,
        "usd_per_million_tokens": row.usd_per_million_tokens,
    }
