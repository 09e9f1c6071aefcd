"""The event manager by itself."""

from __future__ import annotations

import pytest

from workbench.errors import ConfigError
from workbench.plugins import EVENTS, PluginEventManager


def test_the_documented_events_are_there() -> None:
    documented = {"pre_load", "post_load", "pre_unload", "post_unload", "pre_reload", "post_reload"}
    assert documented < set(EVENTS) == set(PluginEventManager().hooks)
    assert {"failed_load", "failed_unload", "failed_reload", "engine_start", "engine_stop"} < set(EVENTS)


def test_listeners_are_called_in_order_until_they_forget() -> None:
    events, heard = PluginEventManager(), []
    forget = events.register_hook("pre_load", lambda *a, **k: heard.append((1, a, k)))
    events.register_hook("pre_load", lambda *a, **k: heard.append((2, a, k)))
    events.dispatch("pre_load", "x", path="p")
    assert heard == [(1, ("x",), {"path": "p"}), (2, ("x",), {"path": "p"})]
    forget()
    forget()
    events.dispatch("pre_load")
    assert heard[2:] == [(2, (), {})]


def test_a_listener_that_fails_reaches_nobody_else(caplog: pytest.LogCaptureFixture) -> None:
    events, heard = PluginEventManager(), []
    events.register_hook("post_load", lambda **_: 1 / 0)
    events.register_hook("post_load", lambda **_: heard.append("second"))
    events.dispatch("post_load")
    assert heard == ["second"] and "ZeroDivisionError" in caplog.text


def test_an_unknown_event_is_an_error() -> None:
    with pytest.raises(ConfigError, match="there are pre_load"):
        PluginEventManager().register_hook("pre_lunch", print)
    with pytest.raises(ConfigError, match="pre_lunch"):
        PluginEventManager().dispatch("pre_lunch")
    with pytest.raises(ConfigError, match="cannot be called"):
        PluginEventManager().register_hook("pre_load", "print")
