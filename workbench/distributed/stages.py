"""Which decoder layers each stage of a pipeline has, and by which costs they were dealt out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from workbench.distributed.rank_group import RankGroup
from workbench.distributed.rank_messages import Measure
from workbench.distributed.stage_costs import StageCosts

__all__ = ["Stages"]


@dataclass(frozen=True)
class Stages:
    """`spans` are the layers of each stage, `costs` what they were dealt out by, None where nothing was measured."""

    spans: tuple[range, ...]
    costs: StageCosts | None = None

    @classmethod
    def choose(
        cls,
        group: RankGroup,
        wanted: Measure,
        num_layers: int,
        num_stages: int,
        known: Sequence[range] | None,
        while_waiting: Callable[[], object],
    ) -> Stages:
        """As `known`, else by what the group's first rank measures. Raises what that and `while_waiting` raise."""
        if num_stages == 1:
            return cls((range(num_layers),))
        if known is not None:
            return cls(tuple(known))
        group.send(0, wanted)
        costs: StageCosts = group.receive_one(while_waiting)
        return cls(tuple(costs.spans(num_stages)), costs)

    def __str__(self) -> str:
        layers = ", ".join(f"{span.start} to {span.stop - 1}" for span in self.spans)
        return f"layers {layers}" + (f" ({self.costs})" if self.costs is not None else "")
