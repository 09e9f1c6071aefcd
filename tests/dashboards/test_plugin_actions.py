"""What the Plugins tab does, and what becomes of tabs that plugins bring."""

from __future__ import annotations

import asyncio

import gradio as gr
import pytest
from plugin_packages import tab_source, write_module, write_wheel

from dashboards.contributed_tab import ContributedTab
from workbench.errors import ConfigError, PluginError
from workbench.plugins import PluginActions, PluginManager, write_index
from workbench.session import Session


@pytest.fixture
def manager(workbench_home, monkeypatch):
    monkeypatch.setattr("workbench.plugins.loader.try_import", lambda candidate, limit_s: None)
    with PluginManager(time_limit_s=60) as manager:
        yield manager


@pytest.fixture
def load(manager, tmp_path, monkeypatch):
    """Loads a plugin of a tab whose builder ends with `then`."""
    monkeypatch.syspath_prepend(tmp_path)

    def load(name: str, then: str = "pass") -> None:
        manager.load(name, write_module(tmp_path, name.replace("-", "_"), tab_source(name, then)))

    return load


def test_a_plugin_is_installed_switched_updated_and_removed(manager, tmp_path):
    actions, shelf = PluginActions(manager), tmp_path / "shelf"
    write_wheel(shelf, "shy", "1.0")
    write_index(shelf)
    index = str(shelf)
    assert actions.offered(index) == [("shy", "1.0", "")]
    with pytest.raises(PluginError, match="signed"):
        actions.install("shy", index)
    assert "shy 1.0 is installed (not signed)" in actions.install("shy", index, allow_unsigned=True)
    assert "shy 1.0 is on" in actions.enable("shy", '{"a": 1}')
    assert actions.info("shy")["settings"] == {"a": 1} and actions.info("shy")["status"] == "active"
    write_wheel(shelf, "shy", "1.1")
    write_index(shelf)
    assert actions.update("", index, allow_unsigned=True) == "shy: 1.1 It is in use."
    assert manager.get_plugin_metadata("shy")["version"] == "1.1"
    assert "newest that fits" in actions.update("shy", index, allow_unsigned=True)
    assert "shy is at 1.0 again" in actions.roll_back("shy")
    assert actions.disable("shy") == "shy is off." and actions.info("shy")["status"] == "off"
    assert actions.remove("shy") == "shy is removed."
    with pytest.raises(PluginError, match="there is no plugin"):
        actions.info("shy")


def test_removing_a_running_plugin_ends_it_first(manager, tmp_path):
    actions, shelf = PluginActions(manager), tmp_path / "shelf"
    write_wheel(shelf, "shy")
    write_index(shelf)
    actions.install("shy", str(shelf), allow_unsigned=True)
    actions.enable("shy")
    actions.remove("shy")
    assert "shy" not in manager.list_plugins()


@pytest.mark.parametrize("name", ["", None])
def test_without_a_name_nothing_is_done(manager, name):
    actions = PluginActions(manager)
    for action in (actions.enable, actions.disable, actions.remove, actions.roll_back, actions.info):
        with pytest.raises(ConfigError, match="choose a plugin"):
            action(name)


@pytest.mark.parametrize("settings", ["{", "[]", "3"])
def test_settings_are_a_json_object(manager, settings):
    with pytest.raises(ConfigError, match="settings"):
        PluginActions(manager).enable("request-logger", settings)


def test_a_tab_is_built_apart_and_one_that_fails_leaves_nothing_behind(manager, load):
    load("good-tab")
    load("bad-tab", "raise RuntimeError('no tab today')")
    with Session() as session:
        good, bad = ContributedTab.build_all(manager, session)
    assert good.blocks is not None and (bad.blocks, bad.problem) == (None, "RuntimeError: no tab today")
    assert manager.failure("bad-tab").count == 1
    with gr.Blocks() as page:
        gr.Textbox("the page's own")
        for tab in (good, bad):
            tab.render()
    shown = [block.value for block in page.blocks.values() if hasattr(block, "value")]
    assert "from empty" in shown and sum("no tab today" in str(value) for value in shown) == 1
    assert sum("Go" == value for value in shown) == 1


def test_what_a_tab_does_is_guarded_and_ends_with_its_plugin(manager, load):
    load("odd-tab", "button.click(lambda text: 1 / len(text) if text != 'llm' else session.llm, shown, shown)")
    with Session() as session:
        (tab,) = ContributedTab.build_all(manager, session)
    (event,) = tab.blocks.fns.values()
    assert event.api_visibility == "private"
    assert event.fn("four") == 0.25
    with pytest.raises(ZeroDivisionError):
        event.fn("")
    # That no model is loaded is not the plugin's fault.
    with pytest.raises(gr.Error, match="no model is loaded"):
        event.fn("llm")
    assert manager.failure("odd-tab").count == 1
    manager.unload_plugin("odd-tab")
    with pytest.raises(gr.Error, match="is off"):
        event.fn("four")


def test_every_kind_of_function_stays_of_its_kind(manager, load):
    load(
        "kinds-tab",
        """
    async def one(): return 1
    def two(): yield 2
    async def three(): yield 3
    for fn in (one, two, three):
        button.click(fn, None, shown)
""".strip(),
    )
    with Session() as session:
        (tab,) = ContributedTab.build_all(manager, session)
    one, two, three = (event.fn for event in tab.blocks.fns.values())

    async def first_of(values):
        return [value async for value in values]

    assert (asyncio.run(one()), list(two()), asyncio.run(first_of(three()))) == (1, [2], [3])
