"""What an instance costs an hour: the shipped, dated table, or AWS's own price and spot APIs when they may be asked."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from typing import Any, Protocol

from workbench.aws.clients import make_client

__all__ = ["LivePrices", "Price", "PriceList", "PriceSource", "TablePrices"]

DEFAULT_REGION = "us-east-1"
# The price API lives in three regions only, and answers for all of them.
_PRICE_API_REGION = "us-east-1"
_SPOT_PRODUCT = "Linux/UNIX"


@dataclass(frozen=True)
class Price:
    """US dollars an hour for Linux, shared tenancy. `note` says what the figure is not, empty when it is exact."""

    usd_per_hour: float
    region: str
    is_spot: bool
    source: str
    date: str
    note: str = ""


@dataclass(frozen=True)
class PriceList:
    """Prices by instance type; types without a known price are absent. `notes` says where they come from and why."""

    prices: Mapping[str, Price]
    notes: tuple[str, ...] = ()


class PriceSource(Protocol):
    """Whoever can price instance types."""

    def find(self, names: Sequence[str], region: str | None, *, spot: bool) -> PriceList:
        """Prices of the types in a region; never raises for a service that does not answer."""
        ...


class TablePrices:
    """The table in the package: on demand, one region, one day."""

    def __init__(self, table: Mapping[str, Any]) -> None:
        self._usd_per_hour: Mapping[str, float] = table["usd_per_hour"]
        self.region: str = table["region"]
        self.date: str = table["date"]
        self.source: str = table["source"]

    @classmethod
    @functools.cache
    def shipped(cls) -> TablePrices:
        """The table that comes with the package, read once."""
        return cls(json.loads(resources.files("workbench.aws").joinpath("prices.json").read_text("utf-8")))

    def find(self, names: Sequence[str], region: str | None, *, spot: bool) -> PriceList:
        """The table's prices; for other regions and for spot they are marked as what they are not."""
        remarks = []
        if region not in (None, self.region):
            remarks.append(f"the price of {self.region}, not of {region}")
        if spot:
            remarks.append("the on-demand price, which a spot price does not exceed")
        note = "; ".join(remarks)
        prices = {
            name: Price(self._usd_per_hour[name], self.region, False, self.source, self.date, note)
            for name in names
            if name in self._usd_per_hour
        }
        return PriceList(prices, (f"prices: {self.source}, {self.date}" + (f"; {note}" if note else ""),))


class LivePrices:
    """AWS's price list and spot price history. What they do not answer comes from `fallback`, and is marked.

    Needs pricing:GetProducts for on-demand and ec2:DescribeSpotPriceHistory for spot prices. Clients are made from the
    credentials at hand unless given.
    """

    def __init__(
        self, *, pricing_client: Any = None, ec2_client: Any = None, fallback: PriceSource | None = None
    ) -> None:
        self._pricing_client = pricing_client
        self._ec2_client = ec2_client
        self._fallback = fallback or TablePrices.shipped()

    def find(self, names: Sequence[str], region: str | None, *, spot: bool) -> PriceList:
        """Today's prices where AWS gives them."""
        from botocore.exceptions import BotoCoreError, ClientError

        region = region or DEFAULT_REGION
        api = "spot price history" if spot else "price list"
        try:
            live = self._spot_prices(names, region) if spot else self._on_demand_prices(names, region)
            notes = (f"prices: AWS {api} for {region}, today",) if live else (f"AWS's {api} has none for {region}",)
        except (BotoCoreError, ClientError) as error:
            live, notes = {}, (f"AWS's {api} was not asked or refused ({error})",)
        missing = [name for name in names if name not in live]
        if not missing:
            return PriceList(live, notes)
        rest = self._fallback.find(missing, region, spot=spot)
        return PriceList({**rest.prices, **live}, (*notes, *(rest.notes if rest.prices else ())))

    def _on_demand_prices(self, names: Sequence[str], region: str) -> dict[str, Price]:
        client = self._pricing_client or make_client("pricing", _PRICE_API_REGION)
        filters = {
            "regionCode": region,
            "instanceFamily": "GPU instance",
            "operatingSystem": "Linux",
            "tenancy": "Shared",
            "preInstalledSw": "NA",
            "capacitystatus": "Used",
        }
        pages = client.get_paginator("get_products").paginate(
            ServiceCode="AmazonEC2",
            Filters=[{"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in filters.items()],
        )
        prices = {}
        for product in _products(pages):
            name = product["product"]["attributes"].get("instanceType")
            usd_per_hour = _on_demand_usd(product)
            if name in names and usd_per_hour:
                date = product.get("publicationDate", "")[:10]
                prices[name] = Price(usd_per_hour, region, False, "AWS price list", date)
        return prices

    def _spot_prices(self, names: Sequence[str], region: str) -> dict[str, Price]:
        client = self._ec2_client or make_client("ec2", region)
        pages = client.get_paginator("describe_spot_price_history").paginate(
            InstanceTypes=[*names], ProductDescriptions=[_SPOT_PRODUCT], StartTime=datetime.now(UTC)
        )
        latest: dict[tuple[str, str], Mapping[str, Any]] = {}
        for entry in (entry for page in pages for entry in page["SpotPriceHistory"]):
            key = (entry["InstanceType"], entry["AvailabilityZone"])
            if key not in latest or entry["Timestamp"] > latest[key]["Timestamp"]:
                latest[key] = entry
        prices: dict[str, Price] = {}
        # A type costs what its cheapest zone asks.
        for (name, zone), entry in sorted(latest.items(), key=lambda item: -float(item[1]["SpotPrice"])):
            date = f"{entry['Timestamp']:%Y-%m-%d}"
            source = f"AWS spot price history ({zone})"
            prices[name] = Price(float(entry["SpotPrice"]), region, True, source, date)
        return prices


def _products(pages: Any) -> Iterator[Mapping[str, Any]]:
    for page in pages:
        for text in page["PriceList"]:
            yield json.loads(text)


def _on_demand_usd(product: Mapping[str, Any]) -> float | None:
    """Dollars an hour in the product's on-demand term; None where there is none above 0 (reservations say 0)."""
    for term in product.get("terms", {}).get("OnDemand", {}).values():
        for dimension in term["priceDimensions"].values():
            usd = float(dimension["pricePerUnit"].get("USD", 0))
            if dimension.get("unit") == "Hrs" and usd > 0:
                return usd
    return None
