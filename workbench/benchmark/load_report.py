"""What a load on an endpoint gave: every answer, and their percentiles."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from workbench.benchmark.spread import percentile

__all__ = ["LoadAnswer", "LoadReport"]

_PERCENTS = (50.0, 90.0, 99.0, 100.0)


@dataclass(frozen=True)
class LoadAnswer:
    """One request, in seconds.

    `arrived_s` is when it was sent, `late_s` how much later than planned: this program's own fault, not the server's.
    `ttft_s` is None where no text came. `gaps_s` are between pieces of text. Tokens are as the server counted them.
    """

    arrived_s: float
    late_s: float
    ttft_s: float | None
    total_s: float
    gaps_s: tuple[float, ...]
    prompt_tokens: int
    new_tokens: int
    error: str | None = None


@dataclass(frozen=True)
class LoadReport:
    """All answers of one load, in order of arrival."""

    url: str
    model: str
    asked: Mapping[str, float]
    machine: Mapping[str, str]
    duration_s: float
    answers: Sequence[LoadAnswer]

    def errors(self) -> dict[str, int]:
        """Each error, and how often."""
        return dict(Counter(one.error for one in self.answers if one.error is not None))

    def percentiles(self) -> dict[str, dict[str, float | None]]:
        """In ms: `p50`, `p90`, `p99` and `p100` of what good answers took, and of how late requests were sent."""
        good = [one for one in self.answers if one.error is None]
        measured: dict[str, list[float]] = {
            "ttft_ms": [one.ttft_s for one in good if one.ttft_s is not None],
            "gap_ms": [gap_s for one in good for gap_s in one.gaps_s],
            "total_ms": [one.total_s for one in good],
            "late_ms": [one.late_s for one in self.answers],
        }
        return {
            key: {f"p{percent:.0f}": _ms(percentile(values, percent)) for percent in _PERCENTS}
            for key, values in measured.items()
        }

    def totals(self) -> dict[str, float]:
        """Counts and rates over the whole duration; `requests_per_s` are answered ones."""
        good = [one for one in self.answers if one.error is None]
        new = sum(one.new_tokens for one in good)
        return {
            "requests": len(self.answers),
            "failed": len(self.answers) - len(good),
            "duration_s": self.duration_s,
            "requests_per_s": len(good) / self.duration_s,
            "prompt_tokens": sum(one.prompt_tokens for one in good),
            "new_tokens": new,
            "new_tokens_per_s": new / self.duration_s,
        }

    def to_dict(self, *, with_answers: bool = True) -> dict[str, Any]:
        """Plain values, for JSON."""
        values: dict[str, Any] = {
            "url": self.url,
            "model": self.model,
            "asked": dict(self.asked),
            "machine": dict(self.machine),
            "totals": self.totals(),
            "percentiles": self.percentiles(),
            "errors": self.errors(),
        }
        return values | ({"answers": [asdict(one) for one in self.answers]} if with_answers else {})

    def as_csv(self) -> str:
        """One line a request."""
        text = io.StringIO()
        columns = ["arrived_s", "late_s", "ttft_s", "total_s", "prompt_tokens", "new_tokens", "error"]
        writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(one) for one in self.answers)
        return text.getvalue()

    def said(self) -> str:
        """The totals in a sentence."""
        totals = self.totals()
        return (
            f"{self.url}: {totals['requests']:.0f} requests, {self.asked['rate']:g} a second on average, in "
            f"{totals['duration_s']:.1f} s; {totals['failed']:.0f} failed; {totals['requests_per_s']:.2f} answered a "
            f"second, {totals['new_tokens_per_s']:.1f} new tokens/s"
        )

    def table(self) -> list[tuple[str, list[str]]]:
        """What, and its percentiles in ms, in words."""
        titles = {"ttft_ms": "first token, ms", "gap_ms": "between pieces, ms", "total_ms": "whole answer, ms",
                  "late_ms": "sent later than planned, ms"}  # fmt: skip
        return [
            (titles[key], ["-" if value is None else f"{value:,.1f}" for value in row.values()])
            for key, row in self.percentiles().items()
        ]

    def as_text(self) -> str:
        """The totals and a table of percentiles."""
        lines = [self.said(), "", f"{'':30}{'50 %':>10}{'90 %':>10}{'99 %':>10}{'most':>10}"]
        lines += [f"{title:30}" + "".join(f"{cell:>10}" for cell in cells) for title, cells in self.table()]
        lines += [f"{count} times: {error}" for error, count in self.errors().items()]
        return "\n".join(lines)


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1e3
