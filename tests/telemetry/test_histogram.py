import pytest

from workbench.errors import ConfigError
from workbench.telemetry import Histogram


def test_counts_mean_and_percentiles():
    histogram = Histogram((1.0, 2.0, 4.0))
    for value in (0.5, 1.0, 1.5, 3.0, 9.0):
        histogram.add(value)
    view = histogram.view()
    assert view.counts == (2, 1, 1, 1)
    assert view.mean == 3.0
    assert view.percentile(0.0) == 0.0
    assert view.percentile(0.4) == 1.0
    assert view.percentile(0.5) == pytest.approx(1.5)
    assert view.percentile(1.0) == 4.0


def test_nothing_counted_has_no_mean():
    view = Histogram().view()
    assert (view.count, view.mean, view.percentile(0.5)) == (0, None, None)


def test_a_view_does_not_move():
    histogram = Histogram()
    view = histogram.view()
    histogram.add(1.0)
    assert view.count == 0


def test_bad_bounds_and_shares_are_refused():
    for bounds in ((), (2.0, 1.0), (1.0, 1.0)):
        with pytest.raises(ConfigError):
            Histogram(bounds)
    with pytest.raises(ConfigError, match="share=2"):
        Histogram().view().percentile(2)
