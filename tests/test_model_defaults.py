import pytest

from workbench.errors import ConfigError
from workbench.model_defaults import ModelDefaults
from workbench.session import LoadChoice


def test_one_choice_a_model_kept_on_disk(workbench_home):
    first, second = LoadChoice("a", "cpu", "int4", 512), LoadChoice("b", gpus=(1,))
    ModelDefaults().save(first)
    ModelDefaults().save(second)
    assert ModelDefaults().get("a") == first
    assert ModelDefaults().get("b") == second
    assert ModelDefaults().get("c") is None
    assert ModelDefaults().path.is_relative_to(workbench_home)
    ModelDefaults().remove("a")
    assert ModelDefaults().get("a") is None
    assert ModelDefaults().get("b") == second


def test_a_file_that_cannot_be_read_or_written_is_named(tmp_path):
    (tmp_path / "settings").write_text("")
    defaults = ModelDefaults(tmp_path / "settings" / "model_defaults.json")
    with pytest.raises(ConfigError, match=r"model_defaults.json cannot be read: Not a directory"):
        defaults.get("a")
    for change in (lambda: defaults.save(LoadChoice("a")), lambda: defaults.remove("a")):
        with pytest.raises(ConfigError, match=r"model_defaults.json cannot be written"):
            change()


@pytest.mark.parametrize("content", ["{", "[]", '{"a": 1}', '{"a": {"format": "x"}}'])
def test_a_damaged_file_is_named(tmp_path, content):
    path = tmp_path / "defaults.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match="restore it or remove it"):
        ModelDefaults(path).get("a")
