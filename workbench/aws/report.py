"""What this machine is as an EC2 instance: identity, the table's row, what torch shows, and settings that suit it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from workbench.aws.catalogue import InstanceCatalogue, InstanceType
from workbench.aws.instance import Instance, InstanceIdentity, default_instance
from workbench.aws.observed import Difference, ObservedGPUs, compare_with_table, observe_gpus
from workbench.aws.serving_plan import ServingPlan
from workbench.aws.settings import InstanceSettings, recommend_settings
from workbench.aws.table import Table

__all__ = ["InstanceReport", "report_instance"]

_GIB = 1024**3


@dataclass(frozen=True)
class InstanceReport:
    """All that is known. `identity` is None off EC2 (then `reason` says why), `row` for types without accelerators.

    `differences` are where the devices torch shows are not the table's; `settings` are None without a row.
    """

    identity: InstanceIdentity | None
    reason: str | None
    row: InstanceType | None
    observed: ObservedGPUs | None
    differences: tuple[Difference, ...]
    settings: InstanceSettings | None

    def as_table(self) -> Table:
        """Fact and value, then one row per difference."""
        if self.identity is None:
            return Table([{"fact": "EC2 instance", "value": f"no: {self.reason}"}])
        facts = {
            "instance type": self.identity.instance_type,
            "instance": self.identity.instance_id,
            "zone": self.identity.availability_zone or self.identity.region,
            "lifecycle": self.identity.lifecycle or "unknown",
        }
        if self.row is not None:
            facts["accelerators"] = f"{self.row.accelerator_count} x {self.row.accelerator}"
            facts["interconnect"] = self.row.interconnect.value
        if self.row is not None and self.row.not_runnable_reason:
            facts["usable"] = f"no: {self.row.not_runnable_reason}"
        if self.observed is not None:
            facts["torch shows"] = _devices(self.observed)
        for difference in self.differences:
            facts[f"difference: {difference.what}"] = f"table {difference.table}, torch {difference.observed}"
        return Table([{"fact": name, "value": value} for name, value in facts.items()])

    def __str__(self) -> str:
        return str(self.as_table())

    def _repr_html_(self) -> str:
        return self.as_table()._repr_html_()


def report_instance(
    instance: Instance | None = None,
    plan: ServingPlan | None = None,
    *,
    prefer_gpu: bool = True,
    catalogue: InstanceCatalogue | None = None,
    observe: Callable[[], ObservedGPUs] = observe_gpus,
) -> InstanceReport:
    """Look at this machine. Imports torch when it is an instance with accelerators in the table."""
    instance = instance or default_instance()
    identity = instance.identity()
    if identity is None:
        return InstanceReport(None, instance.unavailable_reason(), None, None, (), None)
    row = (catalogue or InstanceCatalogue.shipped()).find(identity.instance_type)
    if row is None:
        return InstanceReport(identity, None, None, None, (), None)
    observed = observe()
    settings = recommend_settings(row, plan, prefer_gpu=prefer_gpu)
    return InstanceReport(identity, None, row, observed, compare_with_table(row, observed), settings)


def _devices(observed: ObservedGPUs) -> str:
    if not observed.devices:
        return f"no GPU ({observed.reason})"
    return ", ".join(f"{device.name} ({device.total_bytes / _GIB:.1f} GiB)" for device in observed.devices)
