"""The card over the real planner where it can be, over a scripted one where a test needs its timing."""

import threading
from types import SimpleNamespace

import pytest

from widgets import PlanCard
from widgets.plan_view import Measured, comparison_rows
from workbench.errors import ConfigError
from workbench.parallel import GPUConfig
from workbench.planner import plan
from workbench.session import LoadChoice

_LIMIT_S = 30


@pytest.fixture
def card(front_end):
    card = PlanCard(LoadChoice("random:llama-3.1-8b", "cpu", "bf16", 4096))
    assert card.wait(_LIMIT_S)
    yield card
    card.close()


def test_it_shows_parts_against_what_is_free_and_the_speed(card):
    assert card.state == "ready"
    (device,) = card.view["devices"]
    assert {"Weights", "KV cache"} <= {part["name"] for part in device["parts"]}
    assert sum(part["bytes"] for part in device["parts"]) == device["needed_bytes"]
    assert card.view["verdict"] in ("fits", "tight", "does not fit")
    assert "tokens/s" in card.view["speeds"][0][0]


def test_more_requests_at_once_cost_more(front_end, card):
    def kv_bytes():
        return next(part["bytes"] for part in card.view["devices"][0]["parts"] if part["name"] == "KV cache")

    before = kv_bytes()
    front_end.tell(card, type="batch", batch=4)
    assert card.wait(_LIMIT_S)
    assert kv_bytes() == pytest.approx(4 * before, rel=0.01)
    assert len(card.view["speeds"]) == 3
    for count, batch in enumerate((0, 5000, None, "no number"), 1):
        front_end.tell(card, type="batch", batch=batch)
        assert card.batch == 4
        refusals = front_end.custom(card)
        assert (len(refusals), refusals[-1]["type"]) == (count, "refused")
        assert "must be an integer from 1 to 1024" in refusals[-1]["cause"]


def test_the_newest_choice_wins_and_those_between_are_never_planned(front_end):
    gate, has_begun, planned = threading.Event(), threading.Event(), []

    def make_plan(model, **arguments):
        planned.append(arguments["context"])
        has_begun.set()
        assert gate.wait(_LIMIT_S)
        return plan(model, **arguments)

    card = PlanCard(make_plan=make_plan)
    for context in (256, 512, 1024, 2048):
        card.price(LoadChoice("random:tiny", "cpu", "fp32", context))
        assert has_begun.wait(_LIMIT_S)
    gate.set()
    assert card.wait(_LIMIT_S)
    assert planned == [256, 2048]
    assert "context 2,048" in card.view["title"]
    card.close()


def test_advice_is_a_button_that_sets_the_choice(front_end):
    card = PlanCard(LoadChoice("random:llama-3.1-8b", "cpu", "fp32"))
    assert card.wait(_LIMIT_S)
    assert card.view["verdict"] == "does not fit"
    assert card.view["advice"]
    before = card.plan
    front_end.tell(card, type="apply", index=0)
    assert card.wait(_LIMIT_S)
    assert card.plan.needed_bytes < before.needed_bytes
    front_end.tell(card, type="apply", index=99)
    with pytest.raises(ConfigError, match="pieces of advice"):
        card.apply(99)
    card.close()


def test_where_no_advice_helps_a_sentence_says_so(front_end):
    def on_a_small_gpu(model, **arguments):
        return plan(model, instance="g4dn.xlarge", quant="int4", context=256)

    card = PlanCard(LoadChoice("random:llama-3.1-70b"), make_plan=on_a_small_gpu)
    assert card.wait(_LIMIT_S)
    assert (card.view["verdict"], card.view["advice"]) == ("does not fit", [])
    assert "choose a smaller model" in card.view["no_advice"]
    card.close()


def test_a_choice_that_cannot_be_planned_says_why(front_end):
    card = PlanCard(LoadChoice("no/such:model"))
    assert card.wait(_LIMIT_S)
    assert card.state == "failed"
    assert card.failure["cause"]
    card.price(LoadChoice("random:tiny", "cpu"))
    assert card.wait(_LIMIT_S)
    assert (card.state, card.failure) == ("ready", None)
    card.close()


def test_measured_is_put_beside_predicted(front_end, card):
    llm = SimpleNamespace(
        model_path="m", weight_bytes=16_000_000_000, limits=SimpleNamespace(kv_bytes=1_000_000_000), max_context=4096
    )
    card.show_loaded(llm)
    assert card.wait(_LIMIT_S)
    card.note_speed(12.0, 0.5)
    rows = {row[0]: row[1:] for row in card.measured}
    assert set(rows) == {"Weights", "KV cache", "Tokens/s, one request", "First token, s"}
    assert rows["Weights"][1] == "16 GB"
    assert rows["Weights"][2].endswith("%")
    card.show_unloaded()
    assert card.measured == []


def test_only_what_was_measured_is_compared():
    made = plan("random:tiny", backend="cpu", quant="fp32", context=64)
    assert comparison_rows(made, Measured()) == []
    assert [row[0] for row in comparison_rows(made, Measured(tokens_per_s=1.0))] == ["Tokens/s, one request"]


def test_text_leaves_out_what_changes_by_the_minute(card):
    assert repr(card).startswith("PlanCard\n  model    random:llama-3.1-8b\n  weights  bf16\n  context  4,096 tokens\n")
    assert "available" not in repr(card)


def test_processes_on_the_cpu_are_priced_one_by_one(front_end, card):
    card.price(LoadChoice("random:llama-3.1-8b", "cpu", "bf16", 4096, parallel=GPUConfig([0, 1], "tensor")))
    assert card.wait(_LIMIT_S)
    assert [device["label"] for device in card.view["devices"]] == ["cpu:0", "cpu:1"]
    assert any("share the cores" in note for note in card.view["notes"])
