"""What can be chosen on this machine, and why the rest can't. Options are plain values; knows no widget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from widgets.model_facts import ModelFacts, read_model_facts
from widgets.spread_choice import SpreadChoice
from workbench.backends import DTYPE_NAMES, Backend, BackendChoice, BackendStatus, detect, select_backend
from workbench.engine.engines import known_engines
from workbench.errors import ConfigError, WorkbenchError
from workbench.models import Catalogue, CatalogueEntry
from workbench.parallel import ParallelismStrategy
from workbench.plugins import default_plugins
from workbench.quantize import QuantizationType, parse_quant_type
from workbench.quantize.capabilities import known_capabilities

__all__ = ["AUTO", "MOST_PROCESSES", "ONE_GPU_REASON", "OUR_ENGINE", "Menu", "Option"]

# The value of "choose for me" in every picker; no backend, precision or model may bear this name.
AUTO = "auto"
OUR_ENGINE = "paged"

ONE_GPU_REASON = "one GPU is enough without a way to spread over several: choose that first"
# Of a model that is spread over the CPU; more would only wait for each other.
MOST_PROCESSES = 16
# Stages and replicas of two each are the smallest that is more than one of the others.
_FEWEST = {ParallelismStrategy.HYBRID: 4}

# What a spread over the CPU begins with.
_FEW_PROCESSES = 2
_CPU_NOTE = "The processes share the CPU's cores and its memory."
_UNKNOWN = ModelFacts()

_GB = 1e9
_QUANT_WORDS = {
    "int8": "int8 (8-bit weights)",
    "int4": "int4 (4-bit weights in groups)",
    "dynamic": "dynamic (8-bit weights and activations)",
    "static": "static (8-bit, calibrated)",
    "nf4": "nf4 (4-bit, bitsandbytes)",
    "fp8": "fp8 (8-bit floating point)",
    "gguf": "gguf (as packed in the file)",
}
_SPLIT_WORDS = {
    ParallelismStrategy.TENSOR: "Tensor: a share of every layer on each {device}",
    ParallelismStrategy.PIPELINE: "Pipeline: some layers on each {device}",
    ParallelismStrategy.DATA: "Replicas: the whole model on each {device}",
    ParallelismStrategy.HYBRID: "Hybrid: replicas of split models",
}


@dataclass(frozen=True)
class Option:
    """One entry of a picker. `reason` says why it can't be chosen, None when it can; `note` explains it once chosen."""

    value: str
    label: str
    reason: str | None = None
    note: str = ""

    def as_dict(self) -> dict[str, str | None]:
        """The same as plain JSON values."""
        return asdict(self)


class Menu:
    """The options of a machine: models of the catalogue, backends, and what each backend can do.

    `facts_of(model)` reads a model's facts from its config alone.
    """

    def __init__(
        self,
        models: Sequence[Option],
        statuses: Sequence[BackendStatus],
        preferred: BackendChoice,
        *,
        facts_of: Callable[[str], ModelFacts] = read_model_facts,
    ) -> None:
        self.models = tuple(models)
        self.statuses = tuple(statuses)
        self._preferred = preferred
        self._facts_of = facts_of

    @classmethod
    def of_this_machine(cls) -> Menu:
        """Look at the catalogue and at the devices now. Loads torch; asks no network."""
        entries = Catalogue().list()
        return cls([_model_option(entry) for entry in entries], detect(), select_backend())

    @property
    def backends(self) -> tuple[Option, ...]:
        """ "Choose for me" first, then every backend, those that can't be used with their reason."""
        name, reason = self._preferred.backend.name, self._preferred.reason
        return (
            Option(AUTO, f"Automatic ({name})", note=reason),
            *(_backend_option(status) for status in self.statuses),
        )

    @property
    def engines(self) -> tuple[Option, ...]:
        """Our own engine first, then vLLM and those of plugins, with the reason where one can't be used here."""
        known = known_engines(default_plugins())
        others = (Option(name, name, reason) for name, reason in known.items() if name != OUR_ENGINE)
        return (Option(AUTO, "The workbench's own"), *others)

    def gpus(self, backend: str) -> tuple[Option, ...]:
        """The GPUs of a backend by index, with their free memory; none for the CPU."""
        status = self._status(backend)
        if status is None or status.backend.device_type == "cpu" or not status.available:
            return ()
        return tuple(
            Option(
                str(device.index),
                f"{device.index}: {device.name} ({_gb(device.free_bytes)} of {_gb(device.total_bytes)} GB free)",
            )
            for device in status.devices
        )

    def precisions(self, backend: str) -> tuple[Option, ...]:
        """Precisions and quantisations on `backend` (or on the one that AUTO stands for). Raises ConfigError."""
        chosen = self._backend(backend)
        reason = chosen.unavailable_reason()
        if reason is not None:
            names = (*DTYPE_NAMES, *_QUANT_WORDS)
            return (Option(AUTO, "Automatic", reason), *(Option(name, name, reason) for name in names))
        default = chosen.default_dtype()
        return (
            Option(AUTO, f"Automatic ({default.dtype})", note=default.reason),
            *(Option(name, name, chosen.supports_dtype(name)) for name in DTYPE_NAMES),
            *(_quantized_option(kind.value, chosen) for kind in QuantizationType if not kind.is_cast),
        )

    def kv_dtypes(self, backend: str, precision: str) -> tuple[Option, ...]:
        """What keys and values can be kept in."""
        from workbench.planner.inputs import KV_DTYPES, available_kv_dtypes

        chosen = self._backend(backend)
        dtype = precision if precision in DTYPE_NAMES else _default_dtype(chosen)
        allowed = available_kv_dtypes(dtype, chosen.name)
        reason = f"the engine keeps keys and values in {' or '.join(allowed)} beside weights computed in {dtype}"
        return (
            Option(AUTO, f"As computed ({dtype})"),
            *(Option(name, name, None if name in allowed else reason) for name in KV_DTYPES if name != dtype),
        )

    def splits(
        self, backend: str, precision: str = AUTO, kv_dtype: str = AUTO, facts: ModelFacts = _UNKNOWN
    ) -> tuple[Option, ...]:
        """Ways to spread a model with those facts over several GPUs, or over processes on the CPU."""
        is_cpu = self._backend(backend).device_type == "cpu"
        refused = _spread_reason(precision, kv_dtype)
        own_notes = {ParallelismStrategy.TENSOR: _sentence(facts.tensor_words)}
        general_note = _CPU_NOTE if is_cpu else ""
        return (
            Option(AUTO, "One process" if is_cpu else "One device"),
            # Whole copies can be whatever one device can have.
            *(
                Option(
                    kind.value,
                    words.format(device="process" if is_cpu else "GPU"),
                    (None if kind is ParallelismStrategy.DATA else refused) or self._misfit(kind, backend, facts),
                    " ".join(filter(None, (general_note, own_notes.get(kind)))),
                )
                for kind, words in _SPLIT_WORDS.items()
            ),
        )

    def first_spread(self, strategy: str, backend: str, facts: ModelFacts) -> SpreadChoice:
        """What a way to spread begins with: as many GPUs as there are and the model's heads allow, few processes."""
        kind, has_gpus = ParallelismStrategy(strategy), bool(self.gpus(backend))
        count = len(self.gpus(backend)) or _FEW_PROCESSES
        if kind is ParallelismStrategy.TENSOR:
            count = facts.first_tensor_size(self.most_devices(backend), wants_most=has_gpus) or count
        return SpreadChoice.first(kind, count)

    def draft_reason(self, engine: str, *, is_spread: bool) -> str | None:
        """Why no smaller model can guess ahead there; None where one can."""
        from workbench.engine.config import OVER_SEVERAL_DEVICES

        if engine not in (AUTO, OUR_ENGINE):
            return f"goes with the workbench's own engine, not {engine}"
        return OVER_SEVERAL_DEVICES if is_spread else None

    def lists(self, backend: str, precision: str, kv_dtype: str, facts: ModelFacts) -> dict[str, tuple[Option, ...]]:
        """The options of every picker but the model's, by the picker's name, beside what is chosen so far."""
        return {
            "backends": self.backends,
            "precisions": self.precisions(backend),
            "kv_dtypes": self.kv_dtypes(backend, precision),
            "engines": self.engines,
            "splits": self.splits(backend, precision, kv_dtype, facts),
            "gpu_options": self.gpus(backend),
        }

    def most_devices(self, backend: str) -> int:
        """How many GPUs there are to spread over, or how many processes on the CPU."""
        return MOST_PROCESSES if self._backend(backend).device_type == "cpu" else len(self.gpus(backend))

    def settled_backend(self, backend: str) -> str:
        """The backend that a name stands for."""
        return self._backend(backend).name

    def _too_few(self, backend: str, fewest: int) -> str | None:
        count = self.most_devices(backend)
        if count >= fewest:
            return None
        here = {0: "there are none", 1: "there is one"}.get(count, f"there are {count}")
        return f"needs {fewest} GPUs or more; {here} here"

    def _misfit(self, kind: ParallelismStrategy, backend: str, facts: ModelFacts) -> str | None:
        """Why a model with those facts can't be spread so here; None if it can."""
        reason = self._too_few(backend, _FEWEST.get(kind, 2))
        most = self.most_devices(backend)
        if reason is None and kind is ParallelismStrategy.TENSOR:
            has_size = facts.first_tensor_size(most, wants_most=False) is not None
            reason = None if has_size else f"{facts.tensor_words} (of {most} here)"
        return reason

    def facts(self, model: str) -> ModelFacts:
        """What can be told of a model without loading it."""
        try:
            return self._facts_of(model)
        except WorkbenchError:
            return _UNKNOWN

    def _status(self, name: str) -> BackendStatus | None:
        wanted = self._preferred.backend.name if name == AUTO else name
        return next((status for status in self.statuses if status.name == wanted), None)

    def _backend(self, name: str) -> Backend:
        if name == AUTO:
            return self._preferred.backend
        backends = {status.backend.name: status.backend for status in self.statuses}
        if name not in backends:
            raise ConfigError(f"backend {name!r} is not known; use one of: {', '.join((AUTO, *backends))}")
        return backends[name]


def _sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}." if words else ""


def _gb(num_bytes: int) -> str:
    return f"{num_bytes / _GB:.0f}"


def _spread_reason(precision: str, kv_dtype: str) -> str | None:
    if precision not in (AUTO, *DTYPE_NAMES):
        return f"weights in {precision} are not split; choose {', '.join(DTYPE_NAMES)}, or replicas"
    if kv_dtype != AUTO:
        return f"keys and values in {kv_dtype} are not split; keep them as computed, or choose replicas"
    return None


def _quant_reason(name: str, backend: str) -> str | None:
    try:
        parse_quant_type(name).require_on(backend)
    except WorkbenchError as error:
        # The message begins with the setting's name and ends with the others: the picker shows both already.
        return str(error).removeprefix(f"quant_type={name!r} ").split("; use one of")[0]
    return None


def _default_dtype(backend: Backend) -> str:
    return "fp32" if backend.unavailable_reason() is not None else backend.default_dtype().dtype


def _quantized_option(name: str, backend: Backend) -> Option:
    """A quantisation with what a probe found of it here, where there was one."""
    # torch's name for the first device, of CUDA and of ROCm alike; that it is there has been asked before.
    found = known_capabilities("cpu" if backend.device_type == "cpu" else "cuda:0").get(name)
    reason = _quant_reason(name, backend.name)
    if reason is None and found is not None and not found.is_usable:
        reason = found.reason
    note = "" if found is None or not found.is_usable else found.in_words
    return Option(name, _QUANT_WORDS.get(name, name), reason, note)


def _backend_option(status: BackendStatus) -> Option:
    name = status.backend.name
    if not status.available:
        return Option(name, name, status.reason)
    device = status.devices[0]
    more = f" and {len(status.devices) - 1} more" if len(status.devices) > 1 else ""
    return Option(name, f"{name} ({device.name}, {device.total_bytes / _GB:.0f} GB{more})")


def _model_option(entry: CatalogueEntry) -> Option:
    facts = [entry.kind]
    if entry.size_bytes:
        facts.append(f"{entry.size_bytes / 1e6:.0f} MB")
    if not entry.ready:
        facts.append("fetched on first load")
    return Option(entry.name, f"{entry.name} ({', '.join(facts)})")
