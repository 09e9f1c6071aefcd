import pytest

from widgets import ModelPicker
from workbench.errors import ConfigError
from workbench.session import LoadChoice


def test_the_choice_starts_as_given_and_automatic_is_none(front_end, menu):
    assert ModelPicker(menu=menu).choice == LoadChoice("default", None, None, None)
    given = LoadChoice("org/name", "cpu", "bf16", 512)
    assert ModelPicker(given, menu=menu).choice == given


def test_the_browser_gets_every_option_with_its_reason(front_end, menu):
    picker = ModelPicker(menu=menu)
    by_value = {option["value"]: option["reason"] for option in picker.get_state()["backends"]}
    assert by_value["cuda"] == "torch was built without CUDA"
    assert by_value["cpu"] is None
    assert picker.backend_hint == "no GPU can be used"


def test_choosing_in_the_browser(front_end, menu):
    picker = ModelPicker(menu=menu)
    front_end.tell(picker, type="choose", field="backend", value="cpu")
    front_end.tell(picker, type="choose", field="precision", value="fp32")
    front_end.tell(picker, type="choose", field="model", value=" /models/mine ")
    assert picker.choice == LoadChoice("/models/mine", "cpu", "fp32")
    # Nothing is left to explain but what can't be chosen.
    assert picker.backend_hint == "cuda: torch was built without CUDA"
    assert picker.precision_hint == "fp16: this CPU has no fp16"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("backend", "cuda", "torch was built without CUDA"),
        ("backend", "tpu", "use one of: auto, cuda, cpu"),
        ("precision", "fp16", "this CPU has no fp16"),
        ("model", "  ", "model is"),
        ("colour", "red", "use one of: model, backend, precision"),
    ],
)
def test_what_cannot_be_chosen_is_refused_and_nothing_changes(front_end, menu, field, value, message):
    picker = ModelPicker(menu=menu)
    before = picker.choice
    with pytest.raises(ConfigError, match=message):
        picker.choose(field, value)
    front_end.tell(picker, type="choose", field=field, value=value)
    assert message in picker.problem
    assert picker.choice == before


def test_the_next_good_choice_takes_the_complaint_away(front_end, menu):
    picker = ModelPicker(menu=menu)
    front_end.tell(picker, type="choose", field="backend", value="cuda")
    front_end.tell(picker, type="choose", field="backend", value="cpu")
    assert picker.problem == ""


def test_an_impossible_preset_is_refused(front_end, menu):
    with pytest.raises(ConfigError, match="torch was built without CUDA"):
        ModelPicker(LoadChoice(backend="cuda"), menu=menu)


def test_text_is_the_choice(front_end, menu):
    assert repr(ModelPicker(menu=menu)) == "ModelPicker\n  model      default\n  backend    auto\n  precision  auto"
