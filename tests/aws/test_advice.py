"""Advice for plans of several sizes."""

from __future__ import annotations

import dataclasses

import pytest
from aws.price_server import product, serve_prices

from workbench.aws import InstanceCatalogue
from workbench.aws.advice import advise
from workbench.aws.prices import LivePrices, PriceList
from workbench.aws.serving_plan import ServingPlan

_8B = ServingPlan(
    weight_bytes=16_060_000_000,
    kv_bytes_per_token=131_072,
    context_tokens=4096,
    batch_size=16,
    num_parameters=8_030_000_000,
    num_layers=32,
    hidden_size=4096,
    num_kv_heads=8,
)


class _NoPrices:
    def find(self, names, region, *, spot):
        return PriceList({}, ("no prices today",))


def _reasons(advice) -> dict[str, str]:
    return {each.instance.name: each.reason for each in advice.rejections}


def test_every_type_is_a_row_or_a_reason():
    advice = advise(_8B)
    names = [row.instance.name for row in advice.rows] + [each.instance.name for each in advice.rejections]
    assert sorted(names) == sorted(row.name for row in InstanceCatalogue.shipped().list())


def test_rows_are_sorted_by_cost_with_unknown_prices_last():
    costs = [row.usd_per_million_tokens for row in advise(_8B).rows]
    known = [cost for cost in costs if cost is not None]
    assert known == sorted(known)
    assert costs[: len(known)] == known and len(known) < len(costs)


def test_the_cost_is_price_over_speed():
    row = advise(_8B).best
    tokens_per_hour = row.tokens_per_second * 3600
    assert row.usd_per_million_tokens == pytest.approx(row.price.usd_per_hour / tokens_per_hour * 1e6)
    assert row.tokens_per_second == pytest.approx(16 * row.tokens_per_second_per_request)


def test_the_budget_and_the_speed_refuse_with_the_figures():
    reasons = _reasons(advise(dataclasses.replace(_8B, budget_usd_per_hour=2, tokens_per_second=300)))
    assert "55.040 USD/h of the 2 allowed" in reasons["p5.48xlarge"]
    assert "tokens/s of the 300 wanted" in reasons["g5g.16xlarge"]
    assert "no price is known" in reasons["p5e.48xlarge"]
    assert "16 requests" not in reasons.get("g6e.xlarge", "")


def test_what_cannot_run_or_is_gone_is_refused():
    reasons = _reasons(advise(_8B))
    assert "Neuron" in reasons["inf2.48xlarge"] and "Neuron" in reasons["trn1.32xlarge"]
    assert "gfx1011" in reasons["g4ad.16xlarge"]
    assert "no longer offers" in reasons["p3.8xlarge"]


def test_a_plan_too_big_for_everything_gives_only_reasons():
    advice = advise(dataclasses.replace(_8B, weight_bytes=10**13))
    assert advice.rows == () and advice.best is None
    assert str(advice.as_table())


def test_without_prices_the_speed_still_shows():
    advice = advise(_8B, prices=_NoPrices())
    assert {row.as_row()["USD per million tokens"] for row in advice.rows} == {"unknown"}
    speeds = [row.tokens_per_second for row in advice.rows]
    assert speeds == sorted(speeds, reverse=True)


def test_live_prices_of_a_region_change_the_order():
    with serve_prices([product("g4dn.12xlarge", "0.01")]) as server:
        import boto3

        client = boto3.client("pricing", "us-east-1", endpoint_url=server.endpoint)
        advice = advise(dataclasses.replace(_8B, region="eu-north-1"), prices=LivePrices(pricing_client=client))
    assert advice.best.instance.name == "g4dn.12xlarge"
    assert advice.best.price.region == "eu-north-1"


def test_the_table_has_rounded_figures_and_says_what_they_rest_on():
    advice = advise(_8B)
    text, html = str(advice), advice._repr_html_()
    assert "USD per million tokens" in text and "<table>" in html
    assert "predicted" in text and "2026-07-20" in text
    assert {"instance", "why not"} == set(advice.rejections_table().rows[0])
    big = next(row for row in advice.rows if row.tokens_per_second > 1000)
    assert big.as_row()["tokens/s"].replace(",", "").endswith("0")
