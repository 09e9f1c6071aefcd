"""What earlier loads and runs on this machine measured beside what was predicted, and the corrections that follow."""

from __future__ import annotations

import logging
import math
import statistics
import threading
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from filelock import Timeout

from workbench.paths import settings_folder
from workbench.planner.machine_file import MachineFile

__all__ = ["Calibration", "Observation", "Observing", "count_while_it_runs", "model_class_of", "remember"]

_log = logging.getLogger(__name__)
_FILE = MachineFile("calibration.json")
_KINDS = ("memory", "decode", "prefill")
# Newest observations that are kept, and of those that match the ones that count.
_MOST_KEPT, _MOST_COUNTED = 256, 5
# A run that was off by more than this was disturbed, and says nothing of the next.
_LARGEST_FACTOR = 100.0


@dataclass(frozen=True)
class Observation:
    """One thing predicted and measured. `kind` is "memory" (bytes, all but the cache and a step's activations),
    "decode" (seconds a step, `size` is the batch) or "prefill" (seconds to the first token, `size` is the prompt's
    tokens). `predicted` is the arithmetic's, with no correction."""

    kind: str
    device: str
    model_class: str
    model: str
    size: int
    predicted: float
    measured: float
    versions: str = ""

    @property
    def is_usable(self) -> bool:
        """Whether both numbers are numbers, and near enough to each other to be of one thing."""
        numbers = (self.predicted, self.measured)
        if self.kind not in _KINDS or not all(
            isinstance(number, int | float) and math.isfinite(number) and number > 0 for number in numbers
        ):
            return False
        return 1 / _LARGEST_FACTOR < self.measured / self.predicted < _LARGEST_FACTOR


class Observing(Protocol):
    """Something that runs in this process and has measured what is not kept yet."""

    def observations(self) -> Sequence[Observation]: ...


# With the folder in which their measurements will be kept.
_running: weakref.WeakKeyDictionary[Observing, Path] = weakref.WeakKeyDictionary()
_running_lock = threading.Lock()


def count_while_it_runs(source: Observing) -> None:
    """Have `Calibration.read` ask it too, for as long as it lives."""
    with _running_lock:
        _running[source] = settings_folder()


class Calibration:
    """Corrections from observations, oldest first. Those of the same class of model on the same device count; where
    there are none, those of other models on it."""

    def __init__(self, observations: Sequence[Observation] = ()) -> None:
        self._observations = tuple(observation for observation in observations if observation.is_usable)

    @classmethod
    def read(cls) -> Calibration:
        """What this machine remembers, and what models that are loaded in this process measured since."""
        rows = _FILE.read().get("observations", [])
        kept = [row for row in map(_parse, rows if isinstance(rows, list) else []) if row is not None]
        with _running_lock:
            sources = [source for source, folder in _running.items() if folder == settings_folder()]
        return cls([*kept, *(row for source in sources for row in source.observations())])

    def factor(self, kind: str, device: str, model_class: str, size: int) -> float:
        """What to multiply a predicted time with; 1.0 where nothing is known. Runs of the nearest size count."""
        matching = self._matching(kind, device, model_class)
        if not matching:
            return 1.0
        nearest = min(_distance(observation.size, size) for observation in matching)
        counted = [o for o in matching if _distance(o.size, size) == nearest][-_MOST_COUNTED:]
        return statistics.median(observation.measured / observation.predicted for observation in counted)

    def memory_offset(self, device: str, model_class: str) -> int:
        """Bytes to add to the predicted memory; 0 where nothing is known."""
        counted = self._matching("memory", device, model_class)[-_MOST_COUNTED:]
        return round(statistics.median(o.measured - o.predicted for o in counted)) if counted else 0

    def words(self, device: str, model_class: str) -> str | None:
        """What the corrections rest on; None where there are none."""
        same = [o for o in self._observations if (o.device, o.model_class) == (device, model_class)]
        if same:
            return f"corrected by {len(same)} measurements of such models here"
        others = [o for o in self._observations if o.device == device]
        return f"corrected by {len(others)} measurements of other models here" if others else None

    def _matching(self, kind: str, device: str, model_class: str) -> list[Observation]:
        here = [o for o in self._observations if o.kind == kind and o.device == device]
        return [o for o in here if o.model_class == model_class] or here


def model_class_of(family: str, num_parameters: int, quant: str, dtype: str) -> str:
    """Models that are alike enough to learn from each other: one family, within about 1.4 times in size."""
    size = round(2 * math.log2(max(1, num_parameters)))
    return f"{family}, 2^{size / 2:g} weights, {quant} in {dtype}"


def remember(observations: Iterable[Observation]) -> None:
    """Keep what was measured for the next plans. A file that cannot be written is logged and left."""
    rows = [asdict(observation) for observation in observations if observation.is_usable]
    if not rows:
        return

    def add(content: dict[str, Any]) -> dict[str, Any]:
        kept = content.get("observations")
        return {"observations": [*(kept if isinstance(kept, list) else []), *rows][-_MOST_KEPT:]}

    try:
        _FILE.update(add)
    except (OSError, Timeout) as error:
        _log.warning("measurements could not be kept: %s", error)


def _distance(one: int, other: int) -> float:
    return abs(math.log2(max(1, one)) - math.log2(max(1, other)))


def _parse(row: object) -> Observation | None:
    if not isinstance(row, Mapping):
        return None
    try:
        return Observation(**row)
    except TypeError:
        return None
