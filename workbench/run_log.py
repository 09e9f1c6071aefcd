"""What was run: one row for each load and each reply, with its settings, what was predicted and what was measured."""

from __future__ import annotations

import csv
import io
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import ConfigError
from workbench.parallel import GPUConfig
from workbench.session import LoadChoice, Session, SessionState, SessionStatus
from workbench.twin import HasTwin, Twin

if TYPE_CHECKING:
    import pandas

__all__ = ["Run", "RunLog", "load_words"]

_PACKAGES = ("torch", "transformers")
_CAPACITY = 10_000


@dataclass(frozen=True)
class Run:
    """One load or one reply. Times in seconds, sizes in bytes; None where it does not apply or is not known.

    `predicted_bytes` and `measured_bytes` are the same sum: weights on all devices and the KV pool. `settings` is what
    was asked as words: of a load the engine and what else is not left to it (the cache's precision, GPUs, the spread,
    layers in the host's memory), of a reply that and the sampling; `versions` are the packages that ran it.
    """

    number: int
    kind: str
    at: str
    model: str
    outcome: str
    backend: str | None = None
    precision: str | None = None
    context: int | None = None
    seconds: float | None = None
    predicted_bytes: int | None = None
    measured_bytes: int | None = None
    predicted_tokens_per_s: float | None = None
    tokens_per_s: float | None = None
    ttft_s: float | None = None
    prompt_tokens: int | None = None
    generated_tokens: int | None = None
    seed: int | None = None
    settings: str = ""
    versions: str = field(default_factory=lambda: _versions())


class RunLog(HasTwin):
    """The runs of this process, oldest first, at most 10,000. Every method may be called from any thread."""

    def __init__(self, runs: Iterable[Run] = (), *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._runs: list[Run] = list(runs)
        self._now = now
        self._lock = threading.Lock()
        self._observers: list[Callable[[Run], None]] = []

    def twin(self) -> Twin:
        """The last runs, without times and measured figures."""
        rows = tuple((f"{run.number} {run.kind}", f"{run.model}: {run.outcome}") for run in self.runs[-20:])
        return Twin(f"RunLog ({len(self)} runs)", rows)

    @property
    def runs(self) -> tuple[Run, ...]:
        """Every run."""
        with self._lock:
            return tuple(self._runs)

    def __len__(self) -> int:
        return len(self._runs)

    def add(self, kind: str, model: str, outcome: str, **facts: Any) -> Run:
        """Note a run; `facts` are further fields of Run."""
        with self._lock:
            number = self._runs[-1].number + 1 if self._runs else 1
            at = self._now().replace(microsecond=0).isoformat()
            run = Run(number, kind, at, model, outcome, **facts)
            self._runs.append(run)
            del self._runs[:-_CAPACITY]
            observers = tuple(self._observers)
        for observer in observers:
            observer(run)
        return run

    def observe(self, callback: Callable[[Run], None]) -> Callable[[], None]:
        """Call `callback(run)` after each new run; the returned function ends that."""
        with self._lock:
            self._observers.append(callback)
        return lambda: self._observers.remove(callback) if callback in self._observers else None

    def watch(self, session: Session, predicted: Callable[[], dict[str, Any]] = dict) -> Callable[[], None]:
        """Note every load of a session, with what `predicted()` says at its end; the returned function ends that."""
        return session.observe(_LoadWatch(self, session, predicted))

    def run(self, number: int) -> Run:
        """The run of that number. Raises ConfigError."""
        found = next((run for run in self.runs if run.number == number), None)
        if found is None:
            raise ConfigError(f"there is no run {number}; there are {len(self)}")
        return found

    def to_frame(self) -> pandas.DataFrame:
        """One row a run, indexed by its number. Whole numbers stay whole where others are missing (`Int64`)."""
        import pandas

        columns = {one.name: [getattr(run, one.name) for run in self.runs] for one in fields(Run)}
        whole = {one.name: _whole(columns[one.name]) for one in fields(Run) if one.type == "int | None"}
        return pandas.DataFrame({**columns, **whole}).set_index("number")

    def diff(self, first: int, second: int) -> pandas.DataFrame:
        """The fields in which two runs differ, one row each. Raises ConfigError for a run that is not there."""
        import pandas

        rows = self.differences(first, second)
        return pandas.DataFrame(rows, columns=["field", str(first), str(second)]).set_index("field")

    def differences(self, first: int, second: int) -> list[tuple[str, Any, Any]]:
        """The same as plain rows of (field, first, second); settings are compared one by one."""
        before, after = _flat(self.run(first)), _flat(self.run(second))
        names = list(dict.fromkeys([*before, *after]))
        pairs = [(name, before.get(name), after.get(name)) for name in names if name not in ("number", "at")]
        return [pair for pair in pairs if pair[1] != pair[2]]

    def to_csv(self, path: str | Path | None = None) -> str:
        """The runs as CSV text, also written to `path` if one is given."""
        text = io.StringIO()
        writer = csv.DictWriter(text, [one.name for one in fields(Run)])
        writer.writeheader()
        writer.writerows(asdict(run) for run in self.runs)
        if path is not None:
            Path(path).expanduser().write_text(text.getvalue(), "utf-8")
        return text.getvalue()

    def to_s3(self, url: str, *, client: Any = None) -> str:
        """Write the CSV to an s3:// address (a key, or a prefix ending in "/"); gives the address of the object.

        Raises ConfigError for a wrong address, WorkbenchError when S3 refuses or cannot be reached.
        """
        import tempfile

        from workbench.aws import upload_s3

        target = f"{url}runs.csv" if url.endswith("/") else url
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "runs.csv"
            self.to_csv(path)
            upload_s3(path, target, client=client)
        return target


def load_words(choice: LoadChoice) -> str:
    """What a load was asked beyond a row's own fields, as words `name=value`: the engine, and what was not left to
    it."""
    words: dict[str, Any] = {"engine": choice.engine_name or "paged", "kv_dtype": choice.kv_dtype}
    words["cpu_offload_layers"] = choice.cpu_offload_layers
    words["draft_model"] = choice.draft_model
    words["gpus"] = ",".join(map(str, choice.gpus)) or None
    if choice.parallel is not None:
        shape = choice.parallel.shape
        sizes = {name: getattr(shape, name) for name in ("tensor", "pipeline", "data")}
        words["parallel"] = ",".join(f"{name}={size}" for name, size in sizes.items() if size > 1) or None
        words["gpus"] = ",".join(map(str, choice.parallel.gpu_ids))
        usual = GPUConfig(num_gpus=1)
        for name in ("memory_fraction", "load_balancing"):
            value = getattr(choice.parallel, name)
            words[name] = value if value != getattr(usual, name) else None
    return " ".join(f"{name}={value}" for name, value in words.items() if value is not None)


class _LoadWatch:
    """Turns a session's states into runs."""

    def __init__(self, log: RunLog, session: Session, predicted: Callable[[], dict[str, Any]]) -> None:
        self._log = log
        self._session = session
        self._predicted = predicted
        self._started_s: float | None = None

    def __call__(self, status: SessionStatus) -> None:
        if status.state is SessionState.LOADING:
            if self._started_s is None:
                self._started_s = time.monotonic()
            return
        started_s, self._started_s = self._started_s, None
        if started_s is None or status.choice is None:
            return
        facts = status.facts
        self._log.add(
            "load",
            status.choice.model,
            "ready" if facts else status.failure.kind if status.failure else "cancelled",
            backend=facts.backend if facts else status.choice.backend,
            precision=facts.precision if facts else status.choice.precision,
            context=facts.max_context if facts else status.choice.context_length,
            seconds=round(time.monotonic() - started_s, 2),
            measured_bytes=self._measured_bytes() if facts else None,
            settings=load_words(status.choice),
            **(self._predicted() if facts else {}),
        )

    def _measured_bytes(self) -> int | None:
        stats = self._session.stats()
        return None if stats is None else stats.weight_bytes + stats.kv_bytes


def _whole(values: list[int | None]) -> pandas.api.extensions.ExtensionArray:
    """A column of whole numbers, of which some may be missing. A seed may be too large for a signed one."""
    import pandas

    fits = all(value is None or value < 2**63 for value in values)
    try:
        return pandas.array(values, dtype="Int64" if fits else "UInt64")
    except (OverflowError, TypeError, ValueError):
        # Seeds below zero beside such large ones.
        return pandas.array(values, dtype=object)


def _flat(run: Run) -> dict[str, Any]:
    values = asdict(run)
    for name in ("settings", "versions"):
        for pair in filter(None, values.pop(name).split(" ")):
            key, _, value = pair.partition("=")
            values[key] = value
    return values


def _versions() -> str:
    found = []
    for name in _PACKAGES:
        try:
            found.append(f"{name}={version(name)}")
        except PackageNotFoundError:
            continue
    return " ".join(found)
