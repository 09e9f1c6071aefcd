import pytest

from workbench.errors import ConfigError
from workbench.telemetry import Series


def test_keeps_the_newest_points_in_order():
    series = Series(capacity=3)
    for step in range(5):
        series.append(float(step), step * 10.0)
    view = series.view()
    assert view.times_s == (2.0, 3.0, 4.0)
    assert view.values == (20.0, 30.0, 40.0)
    assert series.last == 40.0
    assert len(series) == len(view) == 3


def test_view_since_and_clear():
    series = Series(capacity=10)
    for step in range(5):
        series.append(float(step), 1.0)
    assert series.view(since_s=3.0).times_s == (3.0, 4.0)
    series.clear()
    assert len(series) == 0
    assert series.last is None
    assert series.view().times_s == ()


def test_a_view_does_not_move_with_the_series():
    series = Series(capacity=2)
    series.append(0.0, 1.0)
    view = series.view()
    series.append(1.0, 2.0)
    assert view.values == (1.0,)


def test_capacity_below_one_is_refused():
    with pytest.raises(ConfigError, match="capacity is 0"):
        Series(capacity=0)
