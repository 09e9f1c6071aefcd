"""Heat map and next tokens over the real embedded model: one load for the whole file."""

import math

import pytest

from widgets import NextTokens, TokenHeatmap, part
from workbench import LlamaGPU
from workbench.conversation import Alternative, ScoredToken
from workbench.errors import ConfigError, EngineStoppedError

_LIMIT_S = 60
_TOKENS = (
    ScoredToken("<b>", None),
    ScoredToken(
        " sea", math.log(0.5), (Alternative(" sea", math.log(0.5), 1), Alternative(" sky", math.log(0.25), 2)), 1
    ),
    ScoredToken("!", math.log(0.05), (Alternative(".", math.log(0.9), 3),), 4),
)


@pytest.fixture(scope="module")
def llm(embedded_model_folder):
    with LlamaGPU(str(embedded_model_folder), backend="cpu", context_length=256) as llm:
        yield llm


def test_tokens_carry_probability_entropy_and_alternatives(front_end):
    heatmap = TokenHeatmap(tokens=_TOKENS)
    first, second, third = heatmap.tokens
    assert (first["p"], second["p"], third["p"]) == (None, 0.5, 0.05)
    assert second["alts"] == [[" sea", 0.5], [" sky", 0.25]]
    assert (second["rank"], third["rank"]) == (1, None)
    assert second["h"] == pytest.approx(1.04, abs=0.01)
    assert heatmap.summary.startswith("3 tokens, perplexity 6.32, 1 below 10 %")


def test_a_picked_alternative_gives_the_text_up_to_it(front_end):
    picked = []
    heatmap = TokenHeatmap(tokens=_TOKENS, on_pick=lambda *pick: picked.append(pick))
    front_end.tell(heatmap, type="pick", token=1, alternative=1)
    assert picked == [(1, "<b> sky")]
    for token, alternative in ((1, 9), (0, 0), (-1, 0)):
        with pytest.raises(ConfigError, match="has no alternative"):
            heatmap.pick(token, alternative)


def test_without_an_engine_nothing_can_be_scored(front_end):
    heatmap = TokenHeatmap(tokens=_TOKENS)
    assert (heatmap.can_score, heatmap.can_pick) == (False, False)
    front_end.tell(heatmap, type="score", text="x")
    assert "no engine to score with" in heatmap.failure["cause"]


def test_what_a_pick_does_belongs_to_the_tokens_that_are_shown(front_end):
    picked = []
    heatmap = TokenHeatmap(on_pick=lambda *pick: picked.append(("default", *pick)))
    heatmap.show(_TOKENS, lambda *pick: picked.append(("reply", *pick)))
    front_end.tell(heatmap, type="pick", token=1, alternative=1)
    heatmap.show(_TOKENS)
    front_end.tell(heatmap, type="pick", token=1, alternative=1)
    assert picked == [("reply", 1, "<b> sky"), ("default", 1, "<b> sky")]


def test_without_its_model_nothing_is_picked_and_it_says_why(front_end, ready_session):
    heatmap = TokenHeatmap(ready_session)

    def stopped(index, start):
        raise EngineStoppedError("no model is loaded")

    for on_pick in (None, stopped):
        heatmap.show(_TOKENS, on_pick)
        assert (heatmap.ready, heatmap.can_pick) == (True, True)
    ready_session.unload()
    ready_session.wait(_LIMIT_S)
    assert (heatmap.ready, heatmap.can_pick) == (False, False)
    front_end.tell(heatmap, type="pick", token=1, alternative=1)
    assert "no model is loaded" in heatmap.failure["cause"]
    heatmap.close()


def test_the_static_picture_escapes_what_the_model_wrote(front_end):
    page = TokenHeatmap(tokens=_TOKENS)._repr_mimebundle_()["text/html"]
    assert "<b>" not in page
    assert "border-bottom:4px" in page


def test_a_given_text_is_scored_by_the_real_model(front_end, llm):
    of_reply = []
    heatmap = TokenHeatmap(llm)
    # A text of one's own has nothing to do with the reply that was shown before it.
    heatmap.show(_TOKENS, lambda *pick: of_reply.append(pick))
    front_end.tell(heatmap, type="score", text="The capital of France is Paris.")
    assert heatmap.wait(_LIMIT_S)
    assert "".join(token.text for token in heatmap.scored) == "The capital of France is Paris."
    paris = next(token for token in heatmap.tokens if token["text"] == " Paris")
    assert paris["rank"] == 1
    assert paris["alts"][0][0] == " Paris"
    # Going on from an alternative makes a new text that begins with it.
    index = heatmap.tokens.index(paris)
    front_end.tell(heatmap, type="pick", token=index, alternative=1)
    assert heatmap.wait(_LIMIT_S)
    assert heatmap.text.startswith("The capital of France is" + paris["alts"][1][0])
    assert len(heatmap.tokens) > index
    assert of_reply == []
    heatmap.close()


def test_the_likeliest_next_tokens_can_be_appended_one_by_one(front_end, llm, monkeypatch):
    monkeypatch.setattr(part, "_SETTLE_S", _LIMIT_S)
    view = NextTokens(llm, "The capital of France is", num_shown=5)
    # A saved notebook has the answer, however fast the cell was.
    assert "' Paris'" in view._repr_mimebundle_()["text/plain"]
    assert view.wait(_LIMIT_S)
    assert view.choices[0][0] == " Paris"
    assert len(view.choices) == 5
    assert sum(p for _, p in view.choices) + view.rest == pytest.approx(1.0, abs=1e-3)
    front_end.tell(view, type="take", index=0)
    assert view.wait(_LIMIT_S)
    assert view.text == "The capital of France is Paris"
    front_end.tell(view, type="look", text="")
    assert view.wait(_LIMIT_S)
    assert "the prompt is empty" in view.failure["cause"]
    view.close()
