import math

import pytest

from dashboards.figures import HEAT_SCALES, heat_spans, heat_summary, next_token_figure, next_tokens, visible
from workbench.conversation import Alternative, ScoredToken
from workbench.engine import SamplingParams

UNEXPECTED, OPEN = HEAT_SCALES
LIKELY = ScoredToken("a", math.log(0.75), (Alternative("a", math.log(0.75), 1), Alternative("b", math.log(0.2), 2)), 1)
FIRST = ScoredToken("x", None)
PROBABILITIES = [0.5, 0.3, 0.15, 0.05]
LISTED = [Alternative(str(i), math.log(p)) for i, p in enumerate(PROBABILITIES)]


def test_heat_is_between_nothing_and_one():
    assert heat_spans([FIRST, LIKELY], UNEXPECTED) == [("x", None), ("a", 0.25)]
    (_, (text, entropy)) = heat_spans([FIRST, LIKELY], OPEN)
    assert text == "a" and 0 < entropy < 1
    assert heat_spans([ScoredToken("", -1.0)], UNEXPECTED)[0][0] == "\u200b"


def test_the_map_is_put_into_words():
    assert "the least expected is “a” (75.00%)" in heat_summary([FIRST, LIKELY])
    assert heat_summary([FIRST]) == "1 tokens, none with a likelihood."


def test_blanks_can_be_seen():
    assert visible(" a\n") == "·a⏎"


@pytest.mark.parametrize(
    ("sampling", "kept"),
    [({}, 1), ({"temperature": 1.0}, 4), ({"temperature": 1.0, "top_k": 2}, 2), ({"temperature": 1.0, "top_p": 0.7}, 2)]
    + [({"temperature": 1.0, "min_p": 0.25}, 3), ({"temperature": 1.0, "top_p": 0.01}, 1)],
)
def test_sampling_settings_cut_the_tail(sampling, kept):
    sampled = [token.sampled for token in next_tokens(LISTED, SamplingParams(**sampling))]
    assert sum(q > 0 for q in sampled) == kept
    assert sum(sampled) == pytest.approx(1)


def test_a_low_temperature_sharpens():
    cold = next_tokens(LISTED, SamplingParams(temperature=0.5))
    assert cold[0].sampled > PROBABILITIES[0] and cold[0].probability == pytest.approx(0.5)


def test_the_figure_has_a_bar_for_each_token_even_for_equal_spellings():
    figure = next_token_figure(next_tokens([Alternative("a", -1.0), Alternative("a", -2.0)], SamplingParams()))
    assert len(set(figure.data[0].y)) == 2
    assert figure.layout.yaxis.ticktext == figure.data[0].customdata == ("a", "a")
