"""Metadata, names, requirements and the small documented helpers."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from workbench.errors import PluginError
from workbench.plugins import (
    BasePlugin,
    PluginMetadata,
    check_dependencies,
    check_version,
    discover_plugins,
    get_metadata,
    has_method,
)

GOOD = {"name": "good", "version": "1.2.0"}


def test_the_documented_keys_are_kept() -> None:
    facts = {**GOOD, "description": "d", "author": "a", "entry_point": "good:plugin", "dependencies": ["pluggy>=1"]}
    assert PluginMetadata.parse(facts).as_dict() == {**facts, "requires_workbench": "", "permissions": []}


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        {},
        {"name": "x"},
        {"version": "1"},
        {**GOOD, "colour": "red"},
        {**GOOD, "version": "newest"},
        {**GOOD, "version": 1},
        {**GOOD, "dependencies": "pluggy"},
        {**GOOD, "dependencies": ["not a requirement !"]},
        {**GOOD, "permissions": ["everything"]},
        {**GOOD, "permissions": [1]},
        {**GOOD, "requires_workbench": "about 1"},
        {**GOOD, "description": "x" * 3000},
        {**GOOD, "name": "../good"},
    ],
)
def test_wrong_metadata_is_refused(wrong: object) -> None:
    with pytest.raises(PluginError):
        PluginMetadata.parse(wrong)


def test_check_dependencies() -> None:
    assert check_dependencies([]) and check_dependencies(["pluggy", "pluggy>=1", "nothing; python_version<'3'"])
    assert not check_dependencies(["pluggy<1"]) and not check_dependencies(["no-such-package-here"])


def test_check_version() -> None:
    assert check_version(GOOD, ">=1,<2") and check_version(GOOD, "1.2.0") and check_version(GOOD, "1.2")
    assert not check_version(GOOD, "1.3") and not check_version(GOOD, ">=2")


def test_get_metadata_and_has_method() -> None:
    plugin = SimpleNamespace(metadata=PluginMetadata(**GOOD), initialize=print, name="x")
    assert get_metadata(plugin)["version"] == "1.2.0"
    assert get_metadata(SimpleNamespace(plugin=plugin))["name"] == "good"
    assert get_metadata(SimpleNamespace(metadata=GOOD)) == GOOD
    assert get_metadata(object()) == {}
    assert has_method(plugin, "initialize") and not has_method(plugin, "name") and not has_method(plugin, "gone")


def test_discovering_finds_what_is_shipped_and_imports_nothing() -> None:
    import sys

    sys.modules.pop("workbench.plugins.examples.min_p_floor", None)
    assert discover_plugins() == ["min-p-floor", "request-logger", "stop-phrases"]
    assert "workbench.plugins.examples.min_p_floor" not in sys.modules


def test_a_plugin_with_nothing_to_run_says_so() -> None:
    class Runs(BasePlugin):
        def run(self, data: str) -> str:
            return data.upper()

    assert Runs().run("a") == "A"
    with pytest.raises(NotImplementedError, match="BasePlugin has nothing to run"):
        BasePlugin().run("a")
