import json
import threading

import pytest

from workbench.conversation import (
    BUILT_IN_PRESETS,
    Preset,
    PresetShelf,
    default_preset_shelf,
    export_presets,
    import_presets,
)
from workbench.engine import SamplingParams, StructureKind, StructureSpec
from workbench.errors import ConfigError, RequestError

SCHEMA = StructureSpec(StructureKind.JSON_SCHEMA, '{"type": "object"}')


def test_a_preset_gives_the_engines_parameters_back():
    params = SamplingParams(temperature=0.5, stop=("\n",), logit_bias={3: -1.0}, structure=SCHEMA, max_tokens=None)
    preset = Preset.of("Mine", params, "Be brief.")
    (back,) = import_presets(export_presets([preset]))
    assert (back.params, back.system, back.name) == (params, "Be brief.", "Mine")


def test_only_what_differs_from_the_defaults_is_stored():
    assert dict(Preset("x", {"temperature": 0.0, "top_k": 5}).sampling) == {"top_k": 5}


def test_built_in_presets_are_sampling_parameters_with_names_of_their_own():
    assert len({preset.name for preset in BUILT_IN_PRESETS}) == len(BUILT_IN_PRESETS) >= 3
    assert BUILT_IN_PRESETS[0].params.is_greedy


@pytest.mark.parametrize(
    ("sampling", "words"),
    [
        ({"temperature": 101}, "temperature"),
        ({"heat": 1}, "unknown sampling parameter 'heat'"),
        ({"structure": {"kind": "poem"}}, "structure"),
        ({"cache_salt": "x"}, "cache_salt"),
    ],
)
def test_wrong_settings_are_refused(sampling, words):
    with pytest.raises(RequestError, match=words):
        Preset("x", sampling)
    content = {"format": "workbench.presets", "version": 1, "presets": [{"name": "x", "sampling": sampling}]}
    with pytest.raises(ConfigError, match=words):
        import_presets(json.dumps(content))


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "x" * 61])
def test_wrong_names_are_refused(name):
    with pytest.raises(ConfigError, match="name"):
        Preset(name)


@pytest.mark.parametrize("text", ["?", "[]", '{"format": "workbench.presets", "version": 9}', '{"format": 1}'])
def test_what_is_no_preset_file_is_refused(text):
    with pytest.raises(ConfigError):
        import_presets(text)


def test_saved_presets_are_listed_after_the_built_in_ones(workbench_home):
    shelf = default_preset_shelf()
    shelf.save(Preset("b", {"top_k": 1}), Preset("A", {"top_k": 2}))
    shelf.save(Preset("b", {"top_k": 3}))
    names = [preset.name for preset in default_preset_shelf().list()]
    assert names == [*(preset.name for preset in BUILT_IN_PRESETS), "A", "b"]
    assert shelf.get("b").params.top_k == 3
    assert shelf.path.is_relative_to(workbench_home)
    shelf.remove("b")
    with pytest.raises(ConfigError, match="there is no preset 'b'; there are: Precise"):
        shelf.get("b")


def test_built_in_presets_can_be_neither_replaced_nor_removed(tmp_path):
    shelf = PresetShelf(tmp_path / "presets.json")
    with pytest.raises(ConfigError, match="built-in"):
        shelf.save(Preset("Precise", {"top_k": 1}))
    with pytest.raises(ConfigError, match="built-in"):
        shelf.remove("Precise")


def test_a_damaged_file_is_named_and_left_alone(tmp_path):
    path = tmp_path / "presets.json"
    path.write_text("{")
    with pytest.raises(ConfigError, match=str(path)):
        PresetShelf(path).save(Preset("x"))
    assert path.read_text() == "{"


def test_two_savers_lose_nothing(tmp_path):
    path = tmp_path / "presets.json"
    savers = [threading.Thread(target=PresetShelf(path).save, args=(Preset(f"p{n}"),)) for n in range(8)]
    for saver in savers:
        saver.start()
    for saver in savers:
        saver.join()
    assert len(PresetShelf(path, built_in=()).list()) == 8


def test_a_preset_without_a_system_prompt_leaves_what_was_written(tmp_path):
    shelf = PresetShelf(tmp_path / "presets.json")
    assert shelf.system_after("Precise", "You are a pirate.") == "You are a pirate."
    short = shelf.get("Short").system
    assert shelf.system_after("Short", "You are a pirate.") == short
    # What came with another preset goes with it.
    assert shelf.system_after("Precise", short) is None
    assert shelf.system_after("Precise", None) is None
