"""The card of plugins: what is shown, switching, and the widgets that plugins bring."""

from __future__ import annotations

from pathlib import Path

import ipywidgets
import pytest
from plugin_packages import write_wheel

from widgets.plugins_card import PluginsCard
from workbench.errors import ConfigError
from workbench.plugins import BasePlugin, PluginManager, PluginMetadata, hookimpl, write_index


class Toys(BasePlugin):
    metadata = PluginMetadata("toys", "1.0", permissions=("widgets",))

    @hookimpl
    def register_widgets(self, register):
        register("toy", lambda session: ipywidgets.Label(session.status.state.value))
        register("broken", lambda session: 1 / 0)


plugin = Toys()


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("workbench.plugins.loader.try_import", lambda candidate, limit_s: None)
    with PluginManager(time_limit_s=60) as manager:
        yield manager


def _words(card: PluginsCard) -> list[str]:
    return [row.children[1].value for row in card._rows.children]


def test_plugins_are_switched_by_a_click(front_end, manager: PluginManager) -> None:
    card = PluginsCard(manager=manager)
    assert _words(card)[2] == (
        "stop-phrases : off. Ends an answer at a phrase, replaces phrases, marks what was generated."
    )
    card._rows.children[2].children[0].click()
    assert card.wait(60) and manager.is_active("stop-phrases") and card.message == ""
    assert _words(card)[2].startswith("stop-phrases 1.0.0: active.")
    assert card._rows.children[2].children[0].description == "Disable"
    card._rows.children[2].children[0].click()
    assert card.wait(60) and not manager.is_active("stop-phrases")
    assert ("stop-phrases", "off") in card.twin().rows
    card.close()


def test_what_goes_wrong_is_said(front_end, manager: PluginManager) -> None:
    card = PluginsCard(manager=manager)
    card.enable("nobody")
    assert card.wait(60) and "there is no plugin 'nobody'" in card.message
    card.close()


def test_widgets_of_plugins_are_shown_and_gone_again(front_end, manager: PluginManager) -> None:
    manager.load("toys", f"{__name__}:plugin")
    card = PluginsCard(manager=manager)
    toy, broken = card._contributed.children
    assert toy.value == "empty" and card.contributed("toy") is toy
    assert "ZeroDivisionError" in broken.value and manager.is_active("toys")
    manager.unload_plugin("toys")
    card.refresh()
    assert card._contributed.children == ()
    with pytest.raises(ConfigError, match="no active plugin brings a widget 'toy'"):
        card.contributed("toy")
    card.close()


def test_closing_leaves_nothing_open(front_end, manager: PluginManager) -> None:
    manager.load("toys", f"{__name__}:plugin")
    card = PluginsCard(manager=manager)
    card.refresh()
    card.close()
    assert isinstance(card.twin().as_text(), str)


def test_plugins_are_got_from_an_index_by_clicks(front_end, manager: PluginManager, tmp_path: Path) -> None:
    shelf = tmp_path / "shelf"
    write_wheel(shelf, "shy", "1.0")
    write_index(shelf)
    card = PluginsCard(manager=manager)
    place, buttons = card._shelf.children
    index, name, unsigned = place.children
    click = {button.description: button.click for button in buttons.children}

    def message_after(action: str) -> str:
        click[action]()
        assert card.wait(60)
        return card.message

    index.value = str(shelf)
    assert message_after("Look") == "shy 1.0: " and name.options == ("shy",)
    assert message_after("Install") == "choose a plugin"
    name.value = "shy"
    assert "signed" in message_after("Install") and ("shy", "off") not in card.twin().rows
    unsigned.value = True
    assert "shy 1.0 is installed (not signed); it wants" in message_after("Install")
    assert ("shy", "off") in card.twin().rows
    write_wheel(shelf, "shy", "1.1")
    write_index(shelf)
    assert message_after("Update").startswith("shy: 1.1")
    assert message_after("Go back").startswith("shy is at 1.0 again")
    assert message_after("Remove") == "shy is removed." and ("shy", "off") not in card.twin().rows
    index.value = "/nothing/here"
    assert "/nothing/here" in message_after("Look")
    card.close()
    assert card._shelf.comm is None
