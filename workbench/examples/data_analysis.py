"""Has a model write about a table, over figures that pandas has computed: numbers come from the data, words from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from workbench.errors import RequestError
from workbench.examples.answers import Speed, ask_all, user_message
from workbench.examples.sample_data import DATA_TYPES, sample_data

if TYPE_CHECKING:
    import pandas as pd

    from workbench.llm import LlamaGPU

__all__ = ["ANALYSIS_TYPES", "DATA_TYPES", "DataAnalyzer", "generate_sample_data", "load_data_from_file"]

ANALYSIS_TYPES = MappingProxyType(
    {
        "trend": "Describe how the figures change over time.",
        "correlation": "Describe which figures go together and which do not.",
        "insights": "Name the three most notable facts.",
        "comprehensive": "Describe the data, the changes over time and what goes together.",
    }
)
_MAX_TOKENS = 200


def generate_sample_data(data_type: str = "sales", size: int = 100, seed: int = 0) -> pd.DataFrame:
    """A made-up table of `size` rows: see DATA_TYPES. The same seed gives the same table."""
    return sample_data(data_type, size, seed)


def load_data_from_file(path: str | Path) -> pd.DataFrame:
    """The table in a CSV file. Raises RequestError for one that is missing, empty or no CSV."""
    import pandas as pd

    try:
        data = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise RequestError(f"{path}: {error}") from None
    if data.empty:
        raise RequestError(f"{path}: the table has no rows")
    return data


class DataAnalyzer:
    """Analyses tables."""

    def __init__(self, llm: LlamaGPU, max_tokens: int = _MAX_TOKENS) -> None:
        self._llm = llm
        self._max_tokens = max_tokens

    def analyze_data(self, data: pd.DataFrame, analysis_type: str = "insights", **sampling: Any) -> dict[str, Any]:
        """{analysis_type, data_points, data_summary, analysis_result, token_count, analysis_time, tokens_per_second,
        backend, gpu_used}. `data_summary` are pandas' figures, which the model is given; time in seconds."""
        return self.batch_analyze([data], analysis_type, **sampling)[0]

    def batch_analyze(
        self,
        tables: Sequence[pd.DataFrame],
        analysis_type: str = "insights",
        batch_size: int | None = None,
        **sampling: Any,
    ) -> list[dict[str, Any]]:
        """The same for several tables in one batch; time and tokens/s are each request's own."""
        if analysis_type not in ANALYSIS_TYPES:
            raise RequestError(f"analysis_type={analysis_type!r}: use one of {', '.join(ANALYSIS_TYPES)}")
        summaries = [_summary(table) for table in tables]
        requests = [
            {
                "messages": user_message(f"{ANALYSIS_TYPES[analysis_type]}\n\n{_as_text(summary)}"),
                "max_tokens": self._max_tokens,
                **sampling,
            }
            for summary in summaries
        ]
        completions = ask_all(self._llm, requests, batch_size)
        results = []
        for table, summary, completion in zip(tables, summaries, completions, strict=True):
            speed = Speed.of(completion, self._llm)
            results.append(
                {
                    "analysis_type": analysis_type,
                    "data_points": len(table),
                    "data_summary": summary,
                    "analysis_result": completion.text.strip(),
                    "token_count": speed.num_tokens,
                    "analysis_time": round(speed.seconds, 3),
                    "tokens_per_second": speed.tokens_per_second,
                    "backend": speed.backend,
                    "gpu_used": speed.gpu_used,
                }
            )
        return results


def _summary(table: pd.DataFrame) -> dict[str, Any]:
    """Per numeric column mean, least, largest, and the change from the first tenth to the last; correlations."""
    # What is no number has no share in any figure, as pandas has it of what is missing; JSON has neither.
    numbers = table.select_dtypes("number").replace([math.inf, -math.inf], math.nan).dropna(axis="columns", how="all")
    if table.empty or numbers.empty:
        raise RequestError("the table needs rows and at least one column of numbers")
    columns = {}
    for name, column in numbers.items():
        known = column.dropna()
        tenth = max(1, len(known) // 10)
        first, last = known.head(tenth).mean(), known.tail(tenth).mean()
        columns[str(name)] = {
            "mean": round(float(column.mean()), 3),
            "min": round(float(column.min()), 3),
            "max": round(float(column.max()), 3),
            "change_percent": round(float((last - first) / abs(first) * 100), 1) if first else None,
        }
    pairs = numbers.corr().to_numpy()
    names = list(numbers.columns)
    correlations = {
        f"{names[a]} / {names[b]}": round(float(pairs[a, b]), 2)
        for a in range(len(names))
        for b in range(a + 1, len(names))
        if not math.isnan(pairs[a, b])
    }
    return {"rows": len(table), "columns": columns, "correlations": correlations}


def _as_text(summary: dict[str, Any]) -> str:
    lines = [f"The table has {summary['rows']} rows."]
    for name, figures in summary["columns"].items():
        lines.append(f"{name}: " + ", ".join(f"{what.replace('_', ' ')} {value}" for what, value in figures.items()))
    lines += [f"correlation of {pair}: {value}" for pair, value in summary["correlations"].items()]
    return "\n".join(lines)
