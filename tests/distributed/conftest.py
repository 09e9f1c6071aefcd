"""What tests here share, since it takes longer than most of them: a process that has imported torch and forks their
ranks, and what the embedded model says in one process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed.group_model import Said, said_by

from workbench.distributed.nursery import RankNursery


@pytest.fixture(scope="session")
def nursery() -> Iterator[RankNursery]:
    shared = RankNursery()
    shared.hold()
    yield shared
    shared.release()


@pytest.fixture(scope="session")
def embedded_alone(embedded_model_folder: Path) -> Said:
    return said_by(str(embedded_model_folder), num_tokens=6)
