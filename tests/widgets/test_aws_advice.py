"""Advice on EC2 as a widget, and its figure."""

from __future__ import annotations

import pytest

from widgets.aws_advice import AWSAdvice
from widgets.aws_figure import advice_figure, advice_summary
from workbench.aws import advise
from workbench.planner.serving import serving_plan


def test_the_figure_has_a_bar_for_each_type_cheapest_first() -> None:
    advice = advise(serving_plan("random:smollm2-135m", context=1024, batch=4))
    (bars,) = advice_figure(advice, max_rows=5).data
    assert list(bars.y) == [row.instance.name for row in advice.rows[:5]]
    assert list(bars.x) == sorted(bars.x) and len(bars.x) == 5
    assert bars.marker.pattern.shape[0] == "/" and "tokens/s" in bars.text[0]
    assert advice.best.instance.name in advice_summary(advice)


def test_no_instance() -> None:
    advice = advise(serving_plan("random:smollm2-135m", budget_usd_per_hour=0.001))
    assert advice_summary(advice).startswith("No instance serves this plan")
    assert len(advice_figure(advice).data[0].x or ()) == 0


def test_the_widget_computes_from_its_fields(front_end) -> None:
    widget = AWSAdvice("random:smollm2-135m", context=1024)
    before = widget.advice.rows
    assert widget.figure.data[0].y[0] == before[0].instance.name
    assert "instance types serve this plan" in widget.summary.value and before[0].instance.name in widget.table.value
    widget.budget.value = 0.6
    widget.button.click()
    assert 0 < len(widget.advice.rows) < len(before)
    assert widget.twin().rows[0][0] == widget.advice.rows[0].instance.name
    widget.model.value = "no-such-model-at-all"
    widget.button.click()
    assert widget.advice is None and "no model is called" in widget.summary.value
    assert widget.twin().rows[0][0] == "problem"
    widget.close()


@pytest.mark.parametrize("headless", ["1"])
def test_without_a_front_end(monkeypatch: pytest.MonkeyPatch, headless: str) -> None:
    monkeypatch.setenv("WORKBENCH_HEADLESS", headless)
    assert "USD per million tokens" in repr(AWSAdvice("random:smollm2-135m", context=512))
