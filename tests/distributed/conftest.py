"""One process that forks the ranks of all tests here: importing torch takes longer than most of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from workbench.distributed.nursery import RankNursery


@pytest.fixture(scope="session")
def nursery() -> Iterator[RankNursery]:
    shared = RankNursery()
    shared.hold()
    yield shared
    shared.release()
