"""The figures of several engines as those of one."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from workbench.engine.messages import EngineStats
from workbench.telemetry import HistogramView

__all__ = ["added_up"]


def added_up(stats: list[EngineStats]) -> EngineStats:
    """Counts and histograms of all, as of one engine."""
    if not stats:
        return EngineStats()
    totals: dict[str, Any] = {}
    for field in fields(EngineStats):
        values = [getattr(one, field.name) for one in stats]
        if isinstance(values[0], int) and field.name != "block_size":
            totals[field.name] = sum(values)
    reasons: dict[str, int] = {}
    for one in stats:
        for reason, count in one.finished_by_reason.items():
            reasons[reason] = reasons.get(reason, 0) + count
    return EngineStats(
        **totals,
        block_size=stats[0].block_size,
        finished_by_reason=reasons,
        inter_token_s=_merged([one.inter_token_s for one in stats]),
        batch_size=_merged([one.batch_size for one in stats]),
        step_tokens=_merged([one.step_tokens for one in stats]),
    )


def _merged(views: list[HistogramView | None]) -> HistogramView | None:
    """One histogram of all; every engine counts into the same buckets."""
    found = [view for view in views if view is not None]
    if not found:
        return None
    counts = tuple(map(sum, zip(*(view.counts for view in found), strict=True)))
    return HistogramView(found[0].bounds, counts, sum(view.total for view in found))
