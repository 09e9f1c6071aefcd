"""The table checked against EC2's own description of its instance types. EC2 wins; without it the table stands."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from workbench.aws.catalogue import InstanceCatalogue, InstanceType
from workbench.aws.clients import make_client
from workbench.aws.observed import Difference

__all__ = ["CatalogueCheck", "check_catalogue", "read_description"]

_MIB = 1024**2
_FAMILIES = ("p*", "g*", "inf*", "trn*")
_NETWORK = re.compile(r"(?:(?P<count>\d+)x )?(?P<burst>Up to )?(?P<gbit>[\d.]+) Gigabit")


@dataclass(frozen=True)
class CatalogueCheck:
    """The catalogue to use from now on, and how it differs from the shipped one.

    `is_live` says whether EC2 answered; if not, `reason` tells why and the catalogue is the shipped one. `differences`
    maps type names to what was corrected. `unknown` are accelerated types EC2 offers that the table has no row for.
    """

    catalogue: InstanceCatalogue
    is_live: bool
    reason: str
    differences: Mapping[str, tuple[Difference, ...]]
    unknown: tuple[str, ...] = ()

    def as_rows(self) -> list[dict[str, str]]:
        """One row per corrected value: type, what, table, EC2."""
        return [
            {"type": name, "what": difference.what, "table": difference.table, "EC2": difference.observed}
            for name, differences in self.differences.items()
            for difference in differences
        ]


def check_catalogue(
    catalogue: InstanceCatalogue | None = None, *, client: Any = None, region: str | None = None
) -> CatalogueCheck:
    """Ask DescribeInstanceTypes for all accelerated types of a region; needs ec2:DescribeInstanceTypes.

    `client` is an EC2 client; by default one is made from the credentials at hand. Nothing is raised for absent
    credentials, refused permission or a network that fails: the shipped table is the answer then.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    catalogue = catalogue or InstanceCatalogue.shipped()
    try:
        descriptions = list(_describe(client or make_client("ec2", region)))
    except (BotoCoreError, ClientError) as error:
        return CatalogueCheck(catalogue, False, f"EC2 was not asked or refused ({error})", {})
    return _apply(catalogue, descriptions)


def read_description(row: InstanceType, description: Mapping[str, Any]) -> InstanceType:
    """`row` with every number that EC2's description states."""
    changes: dict[str, Any] = {
        "num_vcpus": description["VCpuInfo"]["DefaultVCpus"],
        "host_memory_bytes": description["MemoryInfo"]["SizeInMiB"] * _MIB,
        "processor": description["ProcessorInfo"]["SupportedArchitectures"][0],
        "is_listed": True,
        **_network(description["NetworkInfo"]["NetworkPerformance"]),
    }
    devices = description.get("GpuInfo", {}).get("Gpus", [])
    if devices and row.gpu:
        # A shared GPU counts as 0 devices; the logical ones are what a driver shows.
        changes["accelerator_count"] = devices[0]["Count"] or devices[0].get("LogicalGpuCount", row.gpu_count)
        memory_mib = devices[0]["MemoryInfo"]["SizeInMiB"]
        if memory_mib * _MIB != row.memory_bytes_per_gpu:
            changes["gpu"] = dataclasses.replace(row.gpu, memory_mib=round(memory_mib / row.gpu_fraction))
    return dataclasses.replace(row, **changes)


def _describe(client: Any) -> Iterator[Mapping[str, Any]]:
    pages = client.get_paginator("describe_instance_types").paginate(
        Filters=[{"Name": "instance-type", "Values": [f"{family}.*" for family in _FAMILIES]}]
    )
    for page in pages:
        yield from page["InstanceTypes"]


def _apply(catalogue: InstanceCatalogue, descriptions: list[Mapping[str, Any]]) -> CatalogueCheck:
    by_name = {description["InstanceType"]: description for description in descriptions}
    rows: list[InstanceType] = []
    differences: dict[str, tuple[Difference, ...]] = {}
    for row in catalogue.list():
        live = read_description(row, by_name[row.name]) if row.name in by_name else row
        rows.append(live)
        found = _differences(row, live)
        if found:
            differences[row.name] = found
    unknown = [
        name for name, description in by_name.items() if _is_accelerated(description) and not catalogue.find(name)
    ]
    return CatalogueCheck(
        InstanceCatalogue(rows, catalogue.sources), True, "EC2 answered", differences, tuple(sorted(unknown))
    )


def _differences(table: InstanceType, live: InstanceType) -> tuple[Difference, ...]:
    views: dict[str, Callable[[InstanceType], str]] = {
        "accelerators": lambda row: f"{row.accelerator_count}",
        "memory per GPU": lambda row: f"{row.memory_bytes_per_gpu // _MIB} MiB",
        "processors": lambda row: f"{row.num_vcpus}",
        "host memory": lambda row: f"{row.host_memory_bytes // _MIB} MiB",
        "network": lambda row: f"{'up to ' if row.is_network_burst else ''}{row.network_gbit_s:g} Gbit/s",
        "architecture": lambda row: row.processor,
        "listed": lambda row: "yes" if row.is_listed else "no",
    }
    return tuple(Difference(what, view(table), view(live)) for what, view in views.items() if view(table) != view(live))


def _network(performance: str) -> dict[str, Any]:
    match = _NETWORK.fullmatch(performance)
    if match is None:
        return {}
    gbit_s = float(match["gbit"]) * int(match["count"] or 1)
    return {"network_gbit_s": gbit_s, "is_network_burst": match["burst"] is not None}


def _is_accelerated(description: Mapping[str, Any]) -> bool:
    return any(key in description for key in ("GpuInfo", "NeuronInfo", "InferenceAcceleratorInfo"))
