"""Made-up tables to try an analysis on. Their figures follow rules that an analysis can find."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from workbench.errors import RequestError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["DATA_TYPES", "sample_data"]


def _sales(random: np.random.Generator, days: np.ndarray) -> dict[str, np.ndarray]:
    units = random.poisson(40 + days * 0.2)
    price = np.round(20 + random.normal(0, 1, days.size), 2)
    return {"units": units, "price": price, "revenue": np.round(units * price, 2)}


def _user_behavior(random: np.random.Generator, days: np.ndarray) -> dict[str, np.ndarray]:
    visits = random.poisson(200 + 50 * np.sin(days / 7 * 2 * np.pi))
    signups = random.binomial(visits, 0.05)
    return {"visits": visits, "signups": signups, "minutes_per_visit": np.round(random.gamma(4, 1, days.size), 2)}


def _financial(random: np.random.Generator, days: np.ndarray) -> dict[str, np.ndarray]:
    revenue = np.round(1000 + 5 * days + random.normal(0, 50, days.size), 2)
    cost = np.round(700 + 2 * days + random.normal(0, 30, days.size), 2)
    return {"revenue": revenue, "cost": cost, "profit": np.round(revenue - cost, 2)}


def _generic(random: np.random.Generator, days: np.ndarray) -> dict[str, np.ndarray]:
    a = np.round(random.normal(10, 2, days.size), 3)
    return {"a": a, "b": np.round(2 * a + random.normal(0, 1, days.size), 3), "c": random.integers(0, 100, days.size)}


_MAKERS = MappingProxyType(
    {"sales": _sales, "user_behavior": _user_behavior, "financial": _financial, "generic": _generic}
)
DATA_TYPES = tuple(_MAKERS)


def sample_data(data_type: str, size: int, seed: int) -> pd.DataFrame:
    """A table of `size` days. Raises RequestError for an unknown type or a size below 2."""
    import pandas as pd

    if data_type not in _MAKERS:
        raise RequestError(f"data_type={data_type!r}: use one of {', '.join(DATA_TYPES)}")
    if size < 2:
        raise RequestError(f"data_size={size}: must be at least 2")
    columns = _MAKERS[data_type](np.random.default_rng(seed), np.arange(size))
    dates = pd.date_range("2025-01-01", periods=size, freq="D").strftime("%Y-%m-%d")
    return pd.DataFrame({"date": dates, **columns})
