from dataclasses import fields, replace

import pytest

from dashboards.chat_settings import ChatSettings
from workbench.conversation import BUILT_IN_PRESETS, Preset
from workbench.engine import SamplingParams, StructureKind, StructureSpec
from workbench.errors import RequestError

FULL = SamplingParams(
    max_tokens=None,
    temperature=0.5,
    top_p=0.8,
    top_k=4,
    min_p=0.1,
    repetition_penalty=1.2,
    seed=7,
    stop=("\n\n", "back\\slash", "\\n"),
    structure=StructureSpec(StructureKind.REGEX, "[0-9]+"),
    frequency_penalty=0.5,
    logit_bias={3: -1.0},
)


@pytest.mark.parametrize(
    "preset", [*BUILT_IN_PRESETS, Preset.of("full", FULL, "system")], ids=lambda preset: preset.name
)
def test_a_preset_goes_through_the_controls_unchanged(preset):
    values = ChatSettings.of_preset(preset)
    settings = ChatSettings(**values)
    assert settings.params() == preset.params
    assert (settings.system or None) == preset.system


def test_the_controls_come_in_the_order_of_the_fields():
    values = [getattr(ChatSettings(), field.name) for field in fields(ChatSettings)]
    assert ChatSettings.of(*values) == ChatSettings()
    with pytest.raises(ValueError):
        ChatSettings.of(*values[:-1])


def test_an_empty_field_is_off():
    params = ChatSettings(max_tokens=None, top_k=None, seed=" ", stop="\n").params()
    assert (params.max_tokens, params.top_k, params.seed, params.stop) == (None, 0, None, ())


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"seed": "x"}, "seed='x'"),
        ({"more": "{"}, "not JSON"),
        ({"more": "[1]"}, "must be a JSON object"),
        ({"more": '{"heat": 1}'}, "unknown sampling parameter 'heat'"),
        ({"format": "JSON schema"}, "needs a text"),
        ({"temperature": -1.0}, "temperature"),
    ],
)
def test_what_is_wrong_is_said(values, words):
    with pytest.raises(RequestError, match=words):
        ChatSettings(**values).params()


def test_what_is_no_longer_as_the_preset_has_it_is_named():
    settings = ChatSettings(**ChatSettings.of_preset(BUILT_IN_PRESETS[2]))
    assert settings.changes_of(BUILT_IN_PRESETS[2]) == []
    changed = replace(settings, temperature=0.5, min_p=0, system="Be kind.")
    # The preset has no system prompt.
    assert changed.changes_of(BUILT_IN_PRESETS[2]) == ["temperature", "min_p"]
    assert "system" in changed.changes_of(BUILT_IN_PRESETS[3])
    # An empty field, 0 and None are all "no limit".
    unlimited = Preset("Long", {"max_tokens": None})
    assert replace(ChatSettings(), max_tokens=0).changes_of(unlimited) == []
