"""A recording of an engine's steps: where each one's time went, torch's operations by time, and their nesting.

Values only; the engine's side records them.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import ConfigError
from workbench.telemetry.flame_graph import flame_graph_html

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["PHASES", "OperationRow", "StepProfile", "StepSplit"]

PHASES = ("schedule", "prepare", "forward", "sample", "detokenise", "other")


@dataclass(frozen=True)
class StepSplit:
    """One step, in seconds. `schedule` chooses the batch, `prepare` makes its tensors, `forward` is the model (on a
    GPU with captured graphs all that the device does, choosing tokens included), `sample` chooses tokens, `detokenise`
    makes text and looks for stops; `other` is the rest."""

    schedule: float
    prepare: float
    forward: float
    sample: float
    detokenise: float
    other: float
    num_tokens: int
    num_decodes: int

    @property
    def total(self) -> float:
        """The whole step."""
        return float(sum(getattr(self, phase) for phase in PHASES))


@dataclass(frozen=True)
class OperationRow:
    """One of torch's operations, or of a GPU's kernels: times in seconds, nested operations not counted in `self_s`."""

    name: str
    num_calls: int
    self_s: float
    total_s: float
    device: str


@dataclass(frozen=True)
class StepProfile:
    """`steps` in order. The rest is there only where operations were recorded: `operations` by their own time, `stacks`
    maps a path of nested names to its own time in seconds, `trace` is in Chrome's format (gzip)."""

    steps: tuple[StepSplit, ...]
    operations: tuple[OperationRow, ...] = ()
    stacks: Mapping[tuple[str, ...], float] = field(default_factory=dict)
    trace: bytes = field(default=b"", repr=False)

    def totals(self) -> dict[str, float]:
        """Seconds by phase, over all steps."""
        return {phase: sum(getattr(step, phase) for step in self.steps) for phase in PHASES}

    def to_dataframe(self) -> pd.DataFrame:
        """One row a step."""
        import pandas as pd

        names = [field.name for field in fields(StepSplit)]
        return pd.DataFrame([asdict(step) for step in self.steps], columns=names)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: the split and the operations, without trace and stacks."""
        return {
            "num_steps": len(self.steps),
            "seconds": self.totals(),
            "steps": [asdict(step) for step in self.steps],
            "operations": [asdict(row) for row in self.operations],
        }

    def save_trace(self, path: str | Path) -> Path:
        """Write the trace for chrome://tracing or Perfetto; compressed where `path` ends in .gz.

        Raises ConfigError where no operations were recorded.
        """
        if not self.trace:
            raise ConfigError("the profile holds no trace: record it with operations=True")
        path = Path(path)
        path.write_bytes(self.trace if path.suffix == ".gz" else gzip.decompress(self.trace))
        return path

    def save_flame_graph(self, path: str | Path) -> Path:
        """Write a page that shows the nested operations by time; it needs no network. The same error."""
        if not self.stacks:
            raise ConfigError("the profile holds no operations: record it with operations=True")
        path = Path(path)
        path.write_text(flame_graph_html(self.stacks, title="Where the time went"), "utf-8")
        return path

    def __str__(self) -> str:
        lines = [f"{len(self.steps)} steps, {_ms(self._mean())} each", *self._phase_lines()]
        if self.operations:
            lines += ["", f"{'operation':<48}{'calls':>8}{'own time':>12}{'share':>8}"]
            whole = sum(row.self_s for row in self.operations) or 1.0
            for row in self.operations[:12]:
                share = f"{row.self_s / whole:.0%}"
                lines.append(f"{row.name[:47]:<48}{row.num_calls:>8}{_ms(row.self_s):>12}{share:>8}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        totals = self.totals()
        whole = sum(totals.values()) or 1.0
        rows = [[phase, _ms(seconds / max(1, len(self.steps))), f"{seconds / whole:.0%}"]
                for phase, seconds in totals.items()]  # fmt: skip
        page = _table(("phase", "a step", "share"), rows)
        if self.operations:
            operations = [[row.name, str(row.num_calls), _ms(row.self_s)] for row in self.operations[:12]]
            page += _table(("operation", "calls", "own time"), operations)
        return page

    def _mean(self) -> float:
        return sum(step.total for step in self.steps) / max(1, len(self.steps))

    def _phase_lines(self) -> list[str]:
        totals = self.totals()
        whole = sum(totals.values()) or 1.0
        each = max(1, len(self.steps))
        return [f"  {phase:<12}{_ms(s / each):>12}{f'{s / whole:.0%}':>8}" for phase, s in totals.items()]


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:,.3f} ms"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>"
