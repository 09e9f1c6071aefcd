"""The trade-off on a tiny real model: loads, measures and unloads each precision."""

import pytest

from widgets import QuantizationTradeoff
from widgets.tradeoff_picture import round_steps
from workbench.errors import ConfigError

_LIMIT_S = 120


@pytest.fixture
def tradeoff(front_end, tiny_model_folder):
    model = str(tiny_model_folder)
    prompts = ["one two three", "four five"]
    tradeoff = QuantizationTradeoff(model, ["fp32", "bf16", "gguf"], prompts, backend="cpu", max_tokens=8)
    yield tradeoff
    tradeoff.close()


def test_each_precision_is_measured(front_end, tradeoff):
    front_end.tell(tradeoff, type="run", precisions="fp32, bf16, gguf", prompts="one two three\n---\nfour five")
    assert tradeoff.wait(_LIMIT_S)
    frame = tradeoff.frame
    assert list(frame.index) == ["fp32", "bf16", "gguf"]
    assert 0.5 < frame.loc["bf16", "top1_agreement"] <= 1.0
    assert frame.loc["bf16", "weight_bytes"] * 2 == pytest.approx(frame.loc["fp32", "weight_bytes"], rel=0.01)
    assert frame.loc["fp32", "tokens_per_s"] > 0
    # What can't be loaded is part of the answer.
    assert "gguf" in frame.loc["gguf", "problem"]
    assert tradeoff.picture.count("<circle") == 2
    assert (tradeoff.busy, tradeoff.said, tradeoff.failure) == (False, "Measured", None)


def test_stop_leaves_out_the_rest(front_end, tradeoff, monkeypatch):
    monkeypatch.setattr(tradeoff, "_show", lambda measured: tradeoff.stop())
    tradeoff.run()
    assert tradeoff.wait(_LIMIT_S)
    assert tradeoff.said == "Stopped"


def test_nothing_to_measure_is_said(front_end, tradeoff):
    front_end.tell(tradeoff, type="run", precisions="", prompts="x")
    assert tradeoff.wait(_LIMIT_S)
    assert "at least one" in tradeoff.failure["cause"]
    with pytest.raises(ConfigError, match="give lists"):
        QuantizationTradeoff("tiny", "fp32")


def test_text_has_no_figures_of_the_run(tradeoff):
    assert repr(tradeoff).startswith("QuantizationTradeoff\n  model       ")
    assert repr(tradeoff).endswith("\n  precisions  fp32, bf16, gguf")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [({"model": 5}, "model is 5"), ({"precisions": ["int99"]}, "int99"), ({"prompts": "a"}, "lists")],
)
def test_wrong_arguments_are_refused_before_anything_is_shown(wrong, words):
    with pytest.raises(ConfigError, match=words):
        QuantizationTradeoff(**wrong)


@pytest.mark.parametrize("most", [0.03, 1, 1.3, 9.99, 39.8, 581, 99_000])
def test_axes_have_round_numbers(most):
    steps = round_steps(most)
    assert steps[0] == 0 and 3 <= len(steps) <= 7
    assert most * 0.7 < steps[-1] <= most
    assert all(len(f"{step:g}".replace("0", "").replace(".", "")) <= 3 for step in steps)
