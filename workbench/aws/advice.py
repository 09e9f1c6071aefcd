"""Which instances a plan fits on, how fast and at what cost, cheapest token first. Estimates; nothing is started."""

from __future__ import annotations

from dataclasses import dataclass, field

from workbench.aws.catalogue import InstanceCatalogue, InstanceType
from workbench.aws.prices import Price, PriceSource, TablePrices
from workbench.aws.roofline import Assumptions, Layout, NoLayout, choose_layout
from workbench.aws.serving_plan import ServingPlan
from workbench.aws.table import Table
from workbench.number_text import three_digits

__all__ = ["Advice", "AdviceRow", "Rejection", "advise"]

_GIB = 1024**3


@dataclass(frozen=True)
class AdviceRow:
    """An instance type that serves the plan. Speeds are predicted; money is US dollars.

    `tokens_per_second` is of all requests together. `price` and what follows from it are None where no price is known.
    """

    instance: InstanceType
    layout: Layout
    tokens_per_second: float
    price: Price | None

    @property
    def tokens_per_second_per_request(self) -> float:
        """How fast one reader sees text."""
        return 1 / self.layout.estimate.step_s

    @property
    def usd_per_million_tokens(self) -> float | None:
        """Cost of a million generated tokens while the instance is busy all the time."""
        return None if self.price is None else self.price.usd_per_hour / (self.tokens_per_second * 3600) * 1e6

    def as_row(self) -> dict[str, str]:
        """The row in words, ready to show."""
        row, layout = self.instance, self.layout
        split = f"{layout.num_replicas} x TP{layout.tensor_parallel_size}"
        return {
            "instance": row.name,
            "GPUs": f"{row.gpu_count} x {row.accelerator}"
            + (f" ({row.gpu_fraction:g})" if row.gpu_fraction < 1 else ""),
            "GPU memory": f"{row.gpu_memory_bytes / _GIB:.0f} GiB",
            "layout": split,
            "tokens/s": _three_digits(self.tokens_per_second),
            "tokens/s a request": _three_digits(self.tokens_per_second_per_request),
            "limited by": layout.estimate.limited_by,
            "requests held": str(layout.max_requests),
            "USD/h": "unknown" if self.price is None else f"{self.price.usd_per_hour:.3f}",
            "USD per million tokens": _three_digits(self.usd_per_million_tokens),
        }


@dataclass(frozen=True)
class Rejection:
    """An instance type that does not serve the plan, and why."""

    instance: InstanceType
    reason: str


@dataclass(frozen=True)
class Advice:
    """Rows sorted by cost per token, unknown prices last; the refused types; and what the figures rest on."""

    plan: ServingPlan
    rows: tuple[AdviceRow, ...]
    rejections: tuple[Rejection, ...]
    notes: tuple[str, ...] = field(default=())

    @property
    def best(self) -> AdviceRow | None:
        """The first row, or None when nothing serves the plan."""
        return self.rows[0] if self.rows else None

    def as_table(self) -> Table:
        """The rows for a terminal or a notebook."""
        return Table([row.as_row() for row in self.rows], self.notes)

    def rejections_table(self) -> Table:
        """The refused types for a terminal or a notebook."""
        return Table([{"instance": each.instance.name, "why not": each.reason} for each in self.rejections])

    def __str__(self) -> str:
        return str(self.as_table())

    def _repr_html_(self) -> str:
        return self.as_table()._repr_html_()


def advise(
    plan: ServingPlan,
    *,
    catalogue: InstanceCatalogue | None = None,
    prices: PriceSource | None = None,
    assumptions: Assumptions | None = None,
) -> Advice:
    """Hold every instance type of the catalogue against the plan.

    `prices` is where prices come from: by default the shipped table, and `LivePrices()` asks AWS. A type is refused
    when the model does not fit, the predicted speed is below the plan's, or the price is above its budget or, with a
    budget, unknown.
    """
    assumptions = assumptions or Assumptions()
    fitting: list[tuple[InstanceType, Layout]] = []
    rejections: list[Rejection] = []
    for instance in (catalogue or InstanceCatalogue.shipped()).list():
        layout = choose_layout(instance, plan, assumptions)
        if isinstance(layout, NoLayout):
            rejections.append(Rejection(instance, layout.reason))
        else:
            fitting.append((instance, layout))
    names = [instance.name for instance, _ in fitting]
    price_list = (prices or TablePrices.shipped()).find(names, plan.region, spot=plan.spot)
    rows: list[AdviceRow] = []
    for instance, layout in fitting:
        speed = plan.batch_size / layout.estimate.step_s
        row = AdviceRow(instance, layout, speed, price_list.prices.get(instance.name))
        reason = _refusal(row, plan)
        if reason:
            rejections.append(Rejection(instance, reason))
        else:
            rows.append(row)
    notes = (*_basis(assumptions), *price_list.notes)
    return Advice(plan, tuple(sorted(rows, key=_cost_key)), tuple(rejections), notes)


def _refusal(row: AdviceRow, plan: ServingPlan) -> str | None:
    if not row.instance.is_listed:
        return "EC2 no longer offers this type"
    if plan.tokens_per_second and row.tokens_per_second < plan.tokens_per_second:
        return f"predicted {row.tokens_per_second:.0f} tokens/s of the {plan.tokens_per_second:g} wanted"
    if plan.budget_usd_per_hour is None:
        return None
    if row.price is None:
        return "no price is known, so it cannot be held against the budget"
    if row.price.usd_per_hour > plan.budget_usd_per_hour:
        return f"costs {row.price.usd_per_hour:.3f} USD/h of the {plan.budget_usd_per_hour:g} allowed"
    return None


def _cost_key(row: AdviceRow) -> tuple[bool, float, float]:
    cost = row.usd_per_million_tokens
    return (cost is None, cost or 0.0, -row.tokens_per_second)


def _basis(assumptions: Assumptions) -> tuple[str, ...]:
    return (
        f"tokens/s are predicted from peak bandwidth times {assumptions.bandwidth_efficiency:g}, at full context and "
        "without prompts to compute; measure before you commit",
    )


def _three_digits(value: float | None) -> str:
    """More would pretend."""
    return "unknown" if value is None else three_digits(value)
