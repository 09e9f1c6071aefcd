"""Searches the hub in the background, and tells what was found in words. Knows no widget."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from widgets.latest_job import LatestJob
from workbench.errors import WorkbenchError
from workbench.models.hub_search import HubModel

__all__ = ["HubFinder"]


class HubFinder:
    """`find(text)` returns at once; `show(models, note)` gets the models as JSON values, or why there are none."""

    def __init__(
        self, search: Callable[[str], list[HubModel]], show: Callable[[list[dict[str, Any]], str], object]
    ) -> None:
        self._search = search
        self._show = show
        self.job = LatestJob("workbench-hub-search")

    def find(self, text: str) -> None:
        """Search for models with that text in their name."""
        self.job.ask(lambda: self._find_now(text))

    def _find_now(self, text: str) -> None:
        try:
            found = self._search(text)
        except WorkbenchError as error:
            self._show([], str(error))
            return
        models = "1 model" if len(found) == 1 else f"{len(found)} models"
        note = f"{models} found" if found else f"no model with {text.strip()!r} in its name"
        self._show([_as_dict(model) for model in found], note)


def _as_dict(model: HubModel) -> dict[str, Any]:
    facts = []
    if model.num_parameters:
        facts.append(f"{model.num_parameters / 1e9:.1f} billion weights")
    if model.size_bytes:
        facts.append(f"{model.size_bytes / 1e9:.1f} GB")
    if model.is_gated:
        facts.append("gated: needs an account")
    return {"name": model.name, "facts": ", ".join(facts)}
