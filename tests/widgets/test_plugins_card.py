"""The card of plugins: what is shown, switching, and the widgets that plugins bring."""

from __future__ import annotations

import ipywidgets
import pytest

from widgets.plugins_card import PluginsCard
from workbench.errors import ConfigError
from workbench.plugins import BasePlugin, PluginManager, PluginMetadata, hookimpl


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
