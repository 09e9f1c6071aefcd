"""Counts rise and fall in pairs; speeds are smoothed."""

from __future__ import annotations

import pytest

from workbench.errors import ConfigError
from workbench.parallel.load_book import LoadBook


def test_counts_come_in_pairs() -> None:
    book = LoadBook(["a", "b"])
    book.begin("a")
    book.begin("a")
    book.end("a")
    assert (book.num_in_flight("a"), book.num_assigned_total("a"), book.num_in_flight("b")) == (1, 2, 0)
    book.end("a")
    for worker_id in ("a", "nobody"):
        with pytest.raises(ConfigError, match="no request in flight"):
            book.end(worker_id)


def test_speed_is_smoothed_and_forgotten() -> None:
    book = LoadBook([0])
    for seconds in (1.0, None, 9.0):
        book.begin(0)
        book.end(0, seconds)
    (load,) = book.loads([0], {0: 0.5})
    assert (load.seconds_per_token, load.kv_headroom) == (2.0, 0.5)
    book.reset_speed(0)
    assert book.loads([0], {})[0].seconds_per_token is None
