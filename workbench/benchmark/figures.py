"""What a benchmark found, as values: each engine's figures with their spread, and ours over those of the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from workbench.benchmark.engine_choice import EngineChoice
from workbench.benchmark.spread import Spread
from workbench.benchmark.workload import Workload

__all__ = ["FIGURES", "EngineFigures", "Figure", "Report"]


@dataclass(frozen=True)
class Figure:
    """What is measured, in which unit; and whether less is better."""

    title: str
    unit: str
    less_is_better: bool


FIGURES: Mapping[str, Figure] = {
    "ttft_ms": Figure("time to first token", "ms", True),
    "inter_token_ms": Figure("between tokens", "ms", True),
    "inter_token_p95_ms": Figure("between tokens, 95th percentile", "ms", True),
    "prefill_tokens_per_s": Figure("prefill", "tokens/s", False),
    "decode_tokens_per_s": Figure("decode", "tokens/s", False),
    "tokens_per_s": Figure("generated, prompts included", "tokens/s", False),
    "memory_mb": Figure("peak memory of its processes", "MB", True),
    "gpu_memory_mb": Figure("GPU memory", "MB", True),
    "energy_j_per_token": Figure("energy of the GPU", "J/token", True),
}


@dataclass(frozen=True)
class EngineFigures:
    """One engine on one backend: figures by their key in `FIGURES`, or the `error` that kept it from being measured."""

    choice: EngineChoice
    version: str = ""
    figures: Mapping[str, Spread] = field(default_factory=dict)
    error: str | None = None

    def ratio(self, key: str, ours: EngineFigures | None) -> float | None:
        """How many times better ours is in that figure: above 1 where ours is; None where either is not known."""
        theirs, own = self.figures.get(key), None if ours is None else ours.figures.get(key)
        if theirs is None or own is None or ours is self or not theirs.median or not own.median:
            return None
        return theirs.median / own.median if FIGURES[key].less_is_better else own.median / theirs.median


@dataclass(frozen=True)
class Report:
    """All engines of one run, with the machine and what was asked of them."""

    model: str
    workload: Workload
    machine: Mapping[str, str]
    engines: Sequence[EngineFigures]

    def ours_on(self, backend: str) -> EngineFigures | None:
        """The first of our own engines on that backend: what the others there are compared with."""
        return next((one for one in self.engines if one.choice.is_ours and one.choice.backend == backend), None)

    def ratio(self, engine: EngineFigures, key: str) -> float | None:
        """Ours over `engine`, on the same backend (`EngineFigures.ratio`)."""
        return engine.ratio(key, self.ours_on(engine.choice.backend))

    @property
    def has_figures(self) -> bool:
        """Whether any engine could be measured."""
        return any(engine.figures for engine in self.engines)

    def rows(self) -> list[dict[str, Any]]:
        """One row for every figure of every engine, and one for each that could not be measured."""
        rows: list[dict[str, Any]] = []
        for engine in self.engines:
            choice = engine.choice
            own = {"engine": choice.name, "backend": choice.backend, "quant": choice.quant or ""}
            own |= {"draft_model": choice.draft_model or "", "version": engine.version}
            rows += [
                {**own, "figure": key, "unit": FIGURES[key].unit, **asdict(spread), "ours_better_by":
                 self.ratio(engine, key), "error": ""}
                for key, spread in engine.figures.items()
            ]  # fmt: skip
            if engine.error:
                rows.append({**own, "figure": "", "unit": "", "median": None, "minimum": None, "maximum": None,
                             "ours_better_by": None, "error": engine.error})  # fmt: skip
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "model": self.model,
            "workload": asdict(self.workload),
            "machine": dict(self.machine),
            "engines": [
                {
                    "engine": one.choice.name,
                    "backend": one.choice.backend,
                    "quant": one.choice.quant,
                    "draft_model": one.choice.draft_model,
                    "version": one.version,
                    "error": one.error,
                    "figures": {
                        key: {"unit": FIGURES[key].unit, **asdict(spread), "ours_better_by": self.ratio(one, key)}
                        for key, spread in one.figures.items()
                    },
                }
                for one in self.engines
            ],
        }
