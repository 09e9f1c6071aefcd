"""How many bytes of a model's own matrices were in memory at once while it was read."""

from __future__ import annotations

import weakref

import pytest

from workbench.models.weight_reader import WeightReader

__all__ = ["MatricesInMemory"]


class MatricesInMemory:
    """Counts every matrix of the original that is alive, at each read, from now to the end of the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.peak_bytes = 0
        alive: dict[int, int] = {}
        read = WeightReader.read

        def counted(reader, entry, dtype):
            tensor = read(reader, entry, dtype)
            if len(entry.shape) > 1:
                alive[id(tensor)] = tensor.nbytes
                weakref.finalize(tensor, alive.pop, id(tensor), None)
                self.peak_bytes = max(self.peak_bytes, sum(alive.values()))
            return tensor

        monkeypatch.setattr(WeightReader, "read", counted)
