"""What the ranks of a group hold, and how its stages were used."""

from __future__ import annotations

from dataclasses import dataclass

from workbench.distributed.place import Place

__all__ = ["GroupFigures", "GroupReport", "RankFigures"]


@dataclass(frozen=True)
class RankFigures:
    """What one rank holds: decoder layers, and bytes; `process_id` is the system's."""

    place: Place
    process_id: int
    layers: range
    weight_bytes: int
    kv_bytes: int


@dataclass(frozen=True)
class GroupFigures:
    """How the stages were used while at least one step was in flight: seconds, per stage and altogether."""

    busy_s: tuple[float, ...]
    wall_s: float

    @property
    def bubble_share(self) -> float:
        """Share of the stages' time, 0 to 1, in which they had nothing to do; 0 before the first step."""
        total_s = self.wall_s * len(self.busy_s)
        return max(0.0, 1.0 - sum(self.busy_s) / total_s) if total_s else 0.0

    def since(self, earlier: GroupFigures) -> GroupFigures:
        """What was added after `earlier`."""
        busy_s = tuple(now - then for now, then in zip(self.busy_s, earlier.busy_s, strict=True))
        return GroupFigures(busy_s, self.wall_s - earlier.wall_s)


@dataclass(frozen=True)
class GroupReport:
    """What each rank holds, the layers of each stage, and how these were used so far."""

    ranks: tuple[RankFigures, ...]
    spans: tuple[range, ...]
    pipeline: GroupFigures
