"""Prices from the table, from a price list over HTTP, and from spot history as moto has it."""

from __future__ import annotations

from datetime import UTC, datetime

import boto3
import pytest
from aws.price_server import product, serve_prices

from workbench.aws import InstanceCatalogue
from workbench.aws.prices import LivePrices, TablePrices


class _SpotHistory:
    """An EC2 client that knows spot prices; `calls` are the arguments it got."""

    def __init__(self, *entries: tuple[str, str, str, int]) -> None:
        self.entries = entries
        self.calls: list[dict] = []

    def get_paginator(self, name: str):
        assert name == "describe_spot_price_history"
        return self

    def paginate(self, **arguments: object):
        self.calls.append(arguments)
        yield {
            "SpotPriceHistory": [
                {
                    "InstanceType": name,
                    "AvailabilityZone": zone,
                    "SpotPrice": usd,
                    "Timestamp": datetime(2026, 11, day, tzinfo=UTC),
                }
                for name, zone, usd, day in self.entries
            ]
        }


def _pricing_client(endpoint: str):
    return boto3.client("pricing", "us-east-1", endpoint_url=endpoint)


def test_the_table_prices_every_type_it_can_and_says_when():
    names = [row.name for row in InstanceCatalogue.shipped().list() if row.gpu]
    prices = TablePrices.shipped().find(names, None, spot=False)
    assert set(names) - set(prices.prices) == {"p5e.48xlarge", "p6e-gb200.36xlarge"}
    price = prices.prices["g5.xlarge"]
    assert (price.usd_per_hour, price.region, price.date, price.note) == (1.006, "us-east-1", "2026-07-20", "")
    assert "2026-07-20" in prices.notes[0]


def test_the_table_says_what_its_prices_are_not():
    price = TablePrices.shipped().find(["g5.xlarge"], "eu-west-1", spot=True).prices["g5.xlarge"]
    assert not price.is_spot
    assert "not of eu-west-1" in price.note and "on-demand" in price.note


def test_the_price_list_is_read_page_by_page():
    pages = [product("g5.xlarge", "1.123"), product("m7i.large", "0.1")], [product("g6.xlarge", "0.9")]
    with serve_prices(*pages) as server:
        found = LivePrices(pricing_client=_pricing_client(server.endpoint)).find(
            ["g5.xlarge", "g6.xlarge"], "eu-west-1", spot=False
        )
    assert {name: price.usd_per_hour for name, price in found.prices.items()} == {"g5.xlarge": 1.123, "g6.xlarge": 0.9}
    assert found.prices["g5.xlarge"].date == "2026-11-02"
    assert found.prices["g5.xlarge"].region == "eu-west-1"
    filters = {entry["Field"]: entry["Value"] for entry in server.requests[0]["Filters"]}
    assert filters["regionCode"] == "eu-west-1" and filters["tenancy"] == "Shared"
    assert len(server.requests) == 2


def test_entries_that_are_no_price_an_hour_are_passed_over():
    page = [
        product("g5.xlarge", "0.0000000000"),
        product("g5.xlarge", "1.2"),
        product("g6.xlarge", "5", unit="Quantity"),
    ]
    with serve_prices(page) as server:
        found = LivePrices(pricing_client=_pricing_client(server.endpoint)).find(
            ["g5.xlarge", "g6.xlarge"], "us-east-1", spot=False
        )
    assert found.prices["g5.xlarge"].usd_per_hour == 1.2
    assert "Karpenter" in found.prices["g6.xlarge"].source


def test_a_refusal_falls_back_to_the_table_and_is_said():
    with serve_prices([], status=400) as server:
        found = LivePrices(pricing_client=_pricing_client(server.endpoint)).find(["g5.xlarge"], None, spot=False)
    assert found.prices["g5.xlarge"].usd_per_hour == 1.006
    assert "pricing:GetProducts" in found.notes[0]
    assert "2026-07-20" in found.notes[1]


@pytest.mark.usefixtures("no_credentials")
def test_absent_credentials_fall_back_to_the_table():
    for spot in (False, True):
        found = LivePrices().find(["g5.xlarge"], "eu-west-1", spot=spot)
        assert "credentials" in found.notes[0]
        assert "not of eu-west-1" in found.prices["g5.xlarge"].note


def test_spot_takes_the_newest_price_of_the_cheapest_zone():
    history = _SpotHistory(
        ("g5.xlarge", "eu-west-1a", "0.50", 3),
        ("g5.xlarge", "eu-west-1b", "0.10", 1),
        ("g5.xlarge", "eu-west-1b", "0.40", 2),
        ("g6.xlarge", "eu-west-1a", "0.30", 2),
    )
    found = LivePrices(ec2_client=history).find(["g5.xlarge", "g6.xlarge"], "eu-west-1", spot=True)
    price = found.prices["g5.xlarge"]
    assert (price.usd_per_hour, price.is_spot, price.date) == (0.40, True, "2026-11-02")
    assert "eu-west-1b" in price.source
    assert history.calls[0]["ProductDescriptions"] == ["Linux/UNIX"]


def test_spot_prices_come_from_ec2(aws: None):
    found = LivePrices(ec2_client=boto3.client("ec2", "us-east-1")).find(["g5.xlarge"], "us-east-1", spot=True)
    assert found.prices["g5.xlarge"].is_spot
    assert found.prices["g5.xlarge"].usd_per_hour == 0.00001
