"""What was predicted beside what was measured, of one loaded model: for people, and for the next prediction."""

from __future__ import annotations

import statistics
import threading
from dataclasses import asdict, dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from workbench.number_text import three_digits
from workbench.planner.calibration import Observation, count_while_it_runs, remember
from workbench.planner.report import byte_text
from workbench.planner.result import Plan
from workbench.telemetry import RequestRow

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ComparedRow", "Comparison", "LoadRecord"]

# Shorter answers and prompts say little of a rate.
_LEAST_ANSWER_TOKENS, _LEAST_PROMPT_TOKENS = 16, 16
# A batch counts as whole where its mean is this near to a whole number.
_WHOLE = 0.15
_MOST_RUNS = 200


@dataclass(frozen=True)
class ComparedRow:
    """One quantity. `unit` is "bytes", "tokens/s" or "s"; `ratio` is measured over predicted."""

    what: str
    predicted: float
    measured: float
    unit: str

    @property
    def ratio(self) -> float:
        """1.0 where the prediction was right."""
        return self.measured / self.predicted if self.predicted else float("inf")


@dataclass(frozen=True)
class Comparison:
    """Rows of predicted and measured quantities."""

    model: str
    rows: tuple[ComparedRow, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"model": self.model, "rows": [{**asdict(row), "ratio": row.ratio} for row in self.rows]}

    def to_dataframe(self) -> pd.DataFrame:
        """One row a quantity."""
        import pandas as pd

        return pd.DataFrame(self.to_dict()["rows"], columns=["what", "predicted", "measured", "unit", "ratio"])

    def __str__(self) -> str:
        lines = [f"{'':<34}{'predicted':>12}{'measured':>12}{'ratio':>8}"]
        for row in self.rows:
            cells = [_text(row.predicted, row.unit), _text(row.measured, row.unit)]
            lines.append(f"{row.what:<34}{cells[0]:>12}{cells[1]:>12}{row.ratio:>8.2f}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<tr><th scope="row">{escape(row.what)}</th><td>{_text(row.predicted, row.unit)}</td>'
            f"<td>{_text(row.measured, row.unit)}</td><td>{row.ratio:.2f}</td></tr>"
            for row in self.rows
        )
        head = "".join(f'<th scope="col">{name}</th>' for name in ("", "predicted", "measured", "ratio"))
        return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


class LoadRecord:
    """Collects what one load and its runs measure. Plans of this process count it at once, `save` keeps it for others.

    `finished` may be called from any thread, and is quick: it does no arithmetic and writes no file.
    """

    def __init__(self, plan: Plan) -> None:
        assert plan.predictor is not None
        self.plan = plan
        self._predictor = plan.predictor
        self._memory: tuple[int, int] | None = None
        self._weights: int | None = None
        self._runs: list[RequestRow] = []
        self._num_saved = 0
        self._lock = threading.Lock()
        count_while_it_runs(self)

    def loaded(self, *, weight_bytes: int, measured_bytes: int) -> None:
        """The model is loaded: `measured_bytes` is what that took, the cache not counted."""
        parts = self.plan.devices[0].parts
        on_gpu = self._predictor.on_gpu
        predicted = parts.total - parts.kv - (0 if on_gpu else parts.activations + parts.workspace)
        self._weights, self._memory = weight_bytes, (predicted, measured_bytes)

    def finished(self, row: RequestRow) -> None:
        """An answer ended."""
        if row.finish_reason in ("stop", "length"):
            with self._lock:
                self._runs.append(row)
                del self._runs[:-_MOST_RUNS]

    def comparison(self) -> Comparison:
        """Predicted beside measured, so far. Runs of one batch size count together, by their median."""
        rows = []
        if self._memory is not None:
            parts = self.plan.devices[0].parts
            rows.append(ComparedRow("weights", parts.weights, self._weights or 0, "bytes"))
            rows.append(ComparedRow("memory without the cache", *self._memory, "bytes"))
        for batch, runs in sorted(self._by_batch().items()):
            predicted = statistics.median(batch / self._predictor.decode_s(batch, _mean_context(r)) for r in runs)
            measured = statistics.median(batch * _tokens_per_s(r) for r in runs)
            name = "tokens/s of one request" if batch == 1 else f"tokens/s of {batch} requests"
            rows.append(ComparedRow(name, predicted, measured, "tokens/s"))
        prompts = self._prompts()
        if prompts:
            predicted = statistics.median(self._predictor.prefill_s(r.num_prompt_tokens) for r in prompts)
            measured = statistics.median(_ttft_s(r) for r in prompts)
            rows.append(ComparedRow("time to the first token", predicted, measured, "s"))
        return Comparison(self.plan.model, tuple(rows))

    def observations(self) -> list[Observation]:
        """What was measured and not yet saved, beside the arithmetic's prediction."""
        found = []
        if self._memory is not None and not self._num_saved:
            # The plan's figure holds the correction that was known before; the arithmetic's does not.
            learnt = self._predictor.calibration.memory_offset(self._predictor.device_key, self._predictor.model_class)
            found.append(self._observation("memory", 1, self._memory[0] - learnt, self._memory[1]))
        for batch, runs in self._by_batch().items():
            predicted = statistics.median(self._predictor.decode(batch, _mean_context(r)).total_s for r in runs)
            measured = statistics.median(1 / _tokens_per_s(r) for r in runs)
            found.append(self._observation("decode", batch, predicted, measured))
        by_length: dict[int, list[RequestRow]] = {}
        for row in self._prompts():
            by_length.setdefault(row.num_prompt_tokens.bit_length(), []).append(row)
        for runs in by_length.values():
            middle = sorted(runs, key=_ttft_s)[len(runs) // 2]
            predicted = self._predictor.prefill(middle.num_prompt_tokens).total_s
            found.append(self._observation("prefill", middle.num_prompt_tokens, predicted, _ttft_s(middle)))
        return found

    def save(self) -> None:
        """Keep what was measured since the last time; never fails."""
        remember(self.observations())
        with self._lock:
            self._num_saved += 1
            self._runs.clear()

    def _observation(self, kind: str, size: int, predicted: float, measured: float) -> Observation:
        key, model_class = self._predictor.device_key, self._predictor.model_class
        return Observation(kind, key, model_class, self.plan.model, size, predicted, measured)

    def _by_batch(self) -> dict[int, list[RequestRow]]:
        """Runs whose neighbours stayed the same in number, by that number."""
        found: dict[int, list[RequestRow]] = {}
        with self._lock:
            runs = tuple(self._runs)
        for row in runs:
            batch = max(1, round(row.mean_in_flight))
            is_whole = abs(row.mean_in_flight - batch) <= _WHOLE * batch
            if is_whole and row.decode_tokens_per_s and row.num_generated_tokens >= _LEAST_ANSWER_TOKENS:
                found.setdefault(batch, []).append(row)
        return found

    def _prompts(self) -> list[RequestRow]:
        """Runs that had the engine to themselves and computed their whole prompt."""
        with self._lock:
            runs = tuple(self._runs)
        return [
            row
            for row in runs
            if row.ttft_s
            and row.mean_in_flight <= 1 + _WHOLE
            and not row.num_cached_tokens
            and row.num_prompt_tokens >= _LEAST_PROMPT_TOKENS
        ]


def _mean_context(row: RequestRow) -> float:
    return row.num_prompt_tokens + row.num_generated_tokens / 2


# `_by_batch` and `_prompts` give only rows that have these figures.
def _tokens_per_s(row: RequestRow) -> float:
    assert row.decode_tokens_per_s is not None
    return row.decode_tokens_per_s


def _ttft_s(row: RequestRow) -> float:
    assert row.ttft_s is not None
    return row.ttft_s


def _text(value: float, unit: str) -> str:
    return byte_text(value) if unit == "bytes" else three_digits(value) + (" s" if unit == "s" else "")
