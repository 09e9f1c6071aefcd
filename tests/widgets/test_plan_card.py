"""The card over the real planner where it can be, over a scripted one where a test needs its timing."""

import re
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
    assert {"Weights", "KV cache of 1 request"} <= {part["name"] for part in device["parts"]}
    assert sum(part["bytes"] for part in device["parts"]) == device["needed_bytes"]
    assert card.view["verdict"] in ("fits", "tight", "does not fit")
    assert "tokens/s" in card.view["speeds"][0][0]


def test_more_requests_at_once_cost_more(front_end, card):
    def kv_bytes():
        return next(part["bytes"] for part in card.view["devices"][0]["parts"] if "KV cache" in part["name"])

    before = kv_bytes()
    front_end.tell(card, type="batch", batch=4)
    assert card.wait(_LIMIT_S)
    assert kv_bytes() == pytest.approx(4 * before, rel=0.01)
    assert len(card.view["speeds"]) == 3
    assert any(part["name"] == "KV cache of 4 requests" for part in card.view["devices"][0]["parts"])
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
    assert "pieces of advice" in card.failure["cause"]
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


def test_measured_is_put_beside_what_is_predicted_for_just_that(front_end, card):
    limits = SimpleNamespace(kv_bytes=1_073_741_824, num_blocks=512, block_size=16)
    llm = SimpleNamespace(model_path="m", weight_bytes=16_000_000_000, limits=limits, max_context=4096)
    card.show_loaded(llm)
    assert card.wait(_LIMIT_S)
    card.note_speed(12.0, 0.5, prompt_tokens=34, generated_tokens=10)
    rows = {row[0]: row[1:] for row in card.measured}
    assert set(rows) == {
        "Weights",
        "KV pool of 8,192 tokens",
        "Tokens/s, one request",
        "First token, s, after 34 prompt tokens",
    }
    assert rows["Weights"][1] == "16 GB"
    assert rows["Weights"][2].endswith("%")
    assert rows["KV pool of 8,192 tokens"] == ["1.07 GB", "1.07 GB", "+0%"]
    made, (predicted, measured, _) = card.plan, rows["First token, s, after 34 prompt tokens"]
    assert float(predicted) == pytest.approx(made.predictor.prefill_s(34), rel=0.01)
    assert (measured, float(predicted) < made.speed.ttft_s) == ("0.5", True)
    card.note_speed(12.0, 0.5, prompt_tokens=700, cached_tokens=640)
    assert card.measured[-1][0] == "First token, s, after 60 new prompt tokens"
    card.show_unloaded()
    assert card.measured == []


def test_only_what_was_measured_and_can_be_predicted_is_compared():
    made = plan("random:tiny", backend="cpu", quant="fp32", context=64)
    assert comparison_rows(made, Measured()) == []
    assert comparison_rows(made, Measured(tokens_per_s=1.0, ttft_s=1.0, kv_bytes=1)) == []
    (row,) = comparison_rows(made, Measured(tokens_per_s=1.0, prompt_tokens=3))
    assert row[0] == "Tokens/s, one request"
    spread = plan("random:tiny", backend="cpu", quant="fp32", context=64, parallel={"tensor": 2})
    (row,) = comparison_rows(spread, Measured(weight_bytes=sum(d.parts.weights for d in spread.devices)))
    assert row[3] == "+0%"


_PROCESSES = GPUConfig([0, 1], "data")
_UNFIT = [
    ("g6.xlarge", LoadChoice("random:llama-3.1-8b", None, "bf16", 22528), 2),
    ("g6.xlarge", LoadChoice("random:llama-3.1-8b", None, "bf16", 65536, kv_dtype="fp8"), 1),
    ("g6.xlarge", LoadChoice("random:llama-3.2-1b", "cpu", "fp32", 65536, parallel=_PROCESSES), 1),
    ("g4dn.xlarge", LoadChoice("random:llama-3.1-8b", None, None, 8192, cpu_offload_layers=2), 1),
    # Its CPU would choose another precision by itself.
    ("g5.12xlarge", LoadChoice("random:llama-3.1-8b", None, "fp32", 65536), 2),
    ("g5.48xlarge", LoadChoice("random:llama-3.1-70b", None, "bf16", 131072), 8),
]


def test_every_kind_of_advice_gives_the_plan_that_it_promised(front_end):
    kinds = set()
    for instance, choice, batch in _UNFIT:
        card = PlanCard(make_plan=lambda model, where=instance, **arguments: plan(model, instance=where, **arguments))

        def price(card=card, choice=choice, batch=batch):
            card.batch = batch
            card.price(choice)
            assert card.wait(_LIMIT_S)

        price()
        for index, advice in enumerate(card.plan.advice):
            price()
            front_end.tell(card, type="apply", index=index)
            assert card.wait(_LIMIT_S)
            assert card.failure is None, (advice, card.failure)
            got = card.plan
            promised = (advice.needed_bytes, advice.margin_bytes, advice.verdict, advice.tokens_per_s)
            assert (got.needed_bytes, got.margin_bytes, got.verdict, got.speed.tokens_per_s) == promised, advice
            kinds.add(" and ".join(re.findall("keys|context|request|weights|split|process|layers|CPU", advice.text)))
        card.close()
    alone = {"keys", "context", "request", "weights", "split", "process", "layers", "CPU"}
    assert kinds == alone | {"split and context"}


def test_a_plan_says_that_it_is_for_our_own_engine(front_end, card):
    assert "engine" not in card.view["title"]
    card.price(LoadChoice("random:llama-3.1-8b", "cpu", "bf16", 4096, engine_name="vllm"))
    assert card.wait(_LIMIT_S)
    assert "as the workbench's own engine would take it: vllm goes by rules of its own" in card.view["title"]
    with pytest.raises(ConfigError, match="must be a LoadChoice"):
        PlanCard("default")


def test_text_leaves_out_what_changes_by_the_minute(card):
    assert repr(card).startswith("PlanCard\n  model    random:llama-3.1-8b\n  weights  bf16\n  context  4,096 tokens\n")
    assert "available" not in repr(card)


def test_processes_on_the_cpu_are_priced_one_by_one(front_end, card):
    card.price(LoadChoice("random:llama-3.1-8b", "cpu", "bf16", 4096, parallel=GPUConfig([0, 1], "tensor")))
    assert card.wait(_LIMIT_S)
    assert [device["label"] for device in card.view["devices"]] == ["cpu:0", "cpu:1"]
    assert any("share the cores" in note for note in card.view["notes"])
