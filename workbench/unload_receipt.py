"""What unloading gave back, and if that was too little, what still holds the memory. Loads no torch by itself."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import FrameType, MappingProxyType, TracebackType
from typing import Any

from workbench.byte_size import memory_size

__all__ = ["UnloadReceipt", "find_holders", "make_receipt"]

# Smaller tensors are not worth a word.
_LARGE_BYTES = 1_000_000
# The system gives pages back a little unevenly; less than this share of what was there is too little.
_ENOUGH = 0.7
_MOST_HOLDERS = 5
_MOST_OBJECTS = 20_000


@dataclass(frozen=True)
class UnloadReceipt:
    """`freed_bytes` by device, `expected_bytes` of weights and cache altogether; `holders` are words, empty where
    enough was freed or nothing was found."""

    freed_bytes: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    expected_bytes: int = 0
    holders: tuple[str, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Whether about as much came back as there was."""
        return sum(self.freed_bytes.values()) >= _ENOUGH * self.expected_bytes

    def lines(self) -> list[str]:
        """The receipt in words."""
        lines = [f"{memory_size(count)} freed on {device}" for device, count in self.freed_bytes.items()]
        if not self.is_complete:
            lines.append(f"less than the {memory_size(self.expected_bytes)} of the model")
            lines += [f"still held by {holder}" for holder in self.holders]
            if not self.holders:
                lines.append("nothing of this notebook holds it: the allocator keeps it for the next load")
        return lines


def make_receipt(freed_bytes: Mapping[str, int], expected_bytes: int) -> UnloadReceipt:
    """The receipt of an unload; looks for holders only where too little was freed."""
    receipt = UnloadReceipt(MappingProxyType(dict(freed_bytes)), expected_bytes)
    if receipt.is_complete:
        return receipt
    return UnloadReceipt(receipt.freed_bytes, expected_bytes, tuple(find_holders()))


def find_holders(namespace: Mapping[str, Any] | None = None, *, shell: Any = None) -> list[str]:
    """Variables of a notebook, its kept outputs and tracebacks through which large tensors can be reached.

    `namespace` and `shell` are IPython's unless given; outside of IPython only the last traceback is looked at.
    """
    torch = sys.modules.get("torch")
    if torch is None:
        return []
    shell = shell or _shell()
    namespace = getattr(shell, "user_ns", {}) if namespace is None else namespace
    found = []
    for name, value in list(namespace.items()):
        is_output = name == "_" or name.startswith(("_o", "Out")) or name.strip("_").isdigit() or name == "__"
        if name.startswith("_") and not is_output:
            continue
        size = _reachable_bytes([value], torch)
        if size >= _LARGE_BYTES:
            kind = "the kept output" if is_output else "the variable"
            found.append((size, f"{kind} {name} ({memory_size(size)})"))
    for words, traceback in _tracebacks(shell):
        size = _reachable_bytes(_locals_of(traceback), torch)
        if size >= _LARGE_BYTES:
            found.append((size, f"{words} ({memory_size(size)}): run a cell that succeeds, or %xdel it"))
    return [words for _, words in sorted(found, reverse=True)][:_MOST_HOLDERS]


def _shell() -> Any:
    ipython = sys.modules.get("IPython")
    return None if ipython is None else ipython.get_ipython()


def _tracebacks(shell: Any) -> Iterator[tuple[str, TracebackType]]:
    last = getattr(sys, "last_value", None)
    if last is not None and last.__traceback__ is not None:
        yield "the traceback of the last error", last.__traceback__
    kept = getattr(getattr(shell, "InteractiveTB", None), "tb", None)
    if kept is not None and (last is None or kept is not last.__traceback__):
        yield "a traceback that IPython keeps", kept


def _locals_of(traceback: TracebackType | None) -> Iterable[Any]:
    while traceback is not None:
        frame: FrameType = traceback.tb_frame
        yield from list(frame.f_locals.values())
        traceback = traceback.tb_next


def _reachable_bytes(roots: Iterable[Any], torch: Any) -> int:
    """Bytes of the tensors that can be reached from some objects, each storage once."""
    seen: set[int] = set()
    storages: dict[int, int] = {}
    waiting = list(roots)
    while waiting and len(seen) < _MOST_OBJECTS:
        value = waiting.pop()
        if id(value) in seen or isinstance(value, type | str | bytes | int | float) or _is_foreign(value):
            continue
        seen.add(id(value))
        if isinstance(value, torch.Tensor):
            storage = value.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
        else:
            waiting += gc.get_referents(value)
    return sum(storages.values())


def _is_foreign(value: Any) -> bool:
    """Modules and functions lead to everything there is."""
    return type(value).__name__ in ("module", "function", "builtin_function_or_method", "method", "ZMQInteractiveShell")
