"""A choice as it would be loaded where `WORKBENCH_MODEL` has a small model in place of every other. Knows no widget."""

from __future__ import annotations

from workbench.backends import Backend
from workbench.session import LoadChoice
from workbench.stand_in import find_stand_in

__all__ = ["stand_in_choice"]


def stand_in_choice(choice: LoadChoice) -> LoadChoice:
    """The choice itself, or that of the stand-in: what this machine lacks, and what was sized for the other model, is
    left out, as in a load."""
    stand_in = find_stand_in(
        choice.model, backend=choice.backend, quant_type=choice.precision, context_length=choice.context_length
    )
    if stand_in is None:
        return choice
    backend, precision = stand_in.backend, stand_in.quant_type
    # What was given as a word stays one.
    assert precision is None or isinstance(precision, str)
    name = backend.name if isinstance(backend, Backend) else backend
    return LoadChoice(stand_in.model, name, precision, stand_in.context_length)
