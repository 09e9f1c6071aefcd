"""A report as text for people and as CSV."""

from __future__ import annotations

import csv
import io

from workbench.benchmark.figures import FIGURES, EngineFigures, Report
from workbench.benchmark.spread import Spread

__all__ = ["as_csv", "as_text", "in_words"]

_COLUMNS = ("engine", "backend", "quant", "draft_model", "version", "figure", "unit", "median", "minimum", "maximum",
            "ours_better_by", "error")  # fmt: skip


def as_csv(report: Report) -> str:
    """One line for every figure of every engine; an engine that could not be measured has one with its error."""
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(report.rows())
    return text.getvalue()


def as_text(report: Report) -> str:
    """A paragraph an engine: each figure's median, least and most, and how many times better ours is."""
    asked = report.workload
    lines = [
        f"{report.model}: {asked.batch_size} at once, {asked.prompt_tokens} tokens of prompt, "
        f"{asked.new_tokens} new; {asked.runs} runs after {asked.warmup_runs} to warm up",
        ", ".join(f"{name} {value}" for name, value in report.machine.items()),
    ]
    for engine in report.engines:
        lines += ["", f"{engine.choice.label}" + (f": {engine.version}" if engine.version else "")]
        if engine.error:
            lines.append(f"  unavailable: {engine.error}")
        lines += [_line(report, engine, key, spread) for key, spread in engine.figures.items()]
    return "\n".join(lines)


def in_words(value: float) -> str:
    """Three digits that count, more where a number is longer."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _line(report: Report, engine: EngineFigures, key: str, spread: Spread) -> str:
    figure, ratio = FIGURES[key], report.ratio(engine, key)
    value = f"{in_words(spread.median)} {figure.unit}"
    around = f"({in_words(spread.minimum)} to {in_words(spread.maximum)})" if spread.minimum < spread.maximum else ""
    beside = f"ours {ratio:.2f} times better" if ratio is not None else ""
    return f"  {figure.title:34}{value:>18}  {around:24}{beside}".rstrip()
