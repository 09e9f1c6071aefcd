"""What each precision costs and saves: each is loaded alone, held against the unquantised model, and told at once."""

import weakref

import pytest

from workbench import tradeoff as module
from workbench.errors import ConfigError, ModelNotFoundError
from workbench.tradeoff import tradeoff

_PROMPTS = ["a text of some length, to measure on", "and another one"]


def test_methods_are_measured_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    earlier, told = [], []

    def load(*arguments, _load=module.load_model, **options):
        assert all(reference() is None for reference in earlier), "two variants in memory at once"
        loaded = _load(*arguments, **options)
        earlier.append(weakref.ref(loaded.module))
        return loaded

    monkeypatch.setattr(module, "load_model", load)
    result = tradeoff(
        "random:tiny", ["fp32", "int8", "gguf"], _PROMPTS, backend="cpu", max_tokens=8, on_method=told.append
    )
    assert tuple(told) == result.methods
    assert len(earlier) == 3, "the reference and two methods; gguf has nothing to load"
    exact, small, refused = result.methods
    assert exact.mean_kl < small.mean_kl < 0.1
    assert small.share == pytest.approx(small.weight_bytes / exact.weight_bytes * exact.share)
    assert small.tokens_per_s > 0
    assert 0 < small.top1_agreement <= 1
    assert "gguf" in refused.problem
    assert refused.weight_bytes is None
    assert list(result.frame.index) == ["fp32", "int8", "gguf"]
    assert [trace.text[0] for trace in result.figure.data] == ["fp32", "int8"]


def test_the_rest_is_left_out_once_unwanted() -> None:
    told = []
    result = tradeoff(
        "random:tiny",
        ["fp32", "bf16"],
        _PROMPTS,
        backend="cpu",
        max_tokens=4,
        on_method=told.append,
        is_wanted=lambda: not told,
    )
    assert [one.method for one in result.methods] == ["fp32"]


def test_a_stand_in_is_measured_in_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_MODEL", "random:tiny")
    result = tradeoff("org/a-big-model", ["bf16"], _PROMPTS, max_tokens=4)
    assert result.model == "random:tiny"


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (("random:tiny", []), ConfigError, "at least one"),
        (("random:tiny", "int8"), ConfigError, "a list"),
        (("random:tiny", ["int3"]), ConfigError, "int8, int4"),
        (("random:tiny", ["int8"], []), ConfigError, "non-empty list"),
        (("/no/such/folder", ["int8"]), ModelNotFoundError, "no/such/folder"),
    ],
)
def test_what_cannot_be_measured_is_refused(arguments, error, words) -> None:
    with pytest.raises(error, match=words):
        tradeoff(*arguments, backend="cpu")
