"""The plugin manager: life cycle, the documented methods, isolation, allow-list, time limits."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from plugin_packages import plugin_source, write_module

from workbench.errors import ConfigError, PluginError
from workbench.plugins import EVENTS, PluginManager, PluginStatus, PluginStore, get_plugin_health, hookimpl


def test_a_plugin_lives_from_initialize_to_shutdown(manager: PluginManager, modules: Path) -> None:
    path = write_module(modules, "first", plugin_source("first"))
    module = manager.load_plugin("first", path)
    assert module is sys.modules["first"]
    assert manager.plugins == {"first": module} and manager.get_plugin("first") is module
    assert manager.list_plugins() == ["first"]
    assert manager.status("first") is PluginStatus.ACTIVE
    assert module.plugin.steps == ["initialize"]
    assert module.plugin.run(1, 2) == (1, 2)
    assert manager.unload_plugin("first") is True
    assert module.plugin.steps == ["initialize", "shutdown"]
    assert "first" not in sys.modules
    assert manager.get_plugin("first") is None and manager.unload_plugin("first") is False


def test_metadata_validity_and_status(manager: PluginManager, modules: Path) -> None:
    manager.load_plugin("first", write_module(modules, "first", plugin_source("first", "1.4.2", ("samplers",))))
    metadata = manager.get_plugin_metadata("first")
    assert (metadata["name"], metadata["version"], metadata["permissions"]) == ("first", "1.4.2", ["samplers"])
    assert manager.validate_plugin("first") is True
    assert manager.get_plugin_status("first") == "loaded | valid: True | dependencies: ok"
    assert get_plugin_health(manager) == {"first": "loaded | valid: True | dependencies: ok"}
    assert manager.validate_plugin("other") is False
    assert manager.get_plugin_metadata("other") == {}
    assert manager.get_plugin_status("other") == "not loaded"
    assert manager.is_plugin_compatible("other", "1") is False


@pytest.mark.parametrize(
    ("required", "fits"), [("1.4.2", True), ("1.4", False), (">=1,<2", True), ("~=1.4", True), (">=2", False)]
)
def test_versions_are_ranges(manager: PluginManager, modules: Path, required: str, fits: bool) -> None:
    manager.load_plugin("first", write_module(modules, "first", plugin_source("first", "1.4.2")))
    assert manager.is_plugin_compatible("first", required) is fits


def test_a_version_range_that_is_none_is_refused(manager: PluginManager, modules: Path) -> None:
    manager.load_plugin("first", write_module(modules, "first", plugin_source("first")))
    with pytest.raises(PluginError, match="one or two"):
        manager.is_plugin_compatible("first", "one or two")


def test_a_module_with_functions_is_a_plugin_too(manager: PluginManager, modules: Path) -> None:
    source = """
metadata = {"name": "plain", "version": "0.1", "description": "no class"}
calls = []
def initialize(context):
    calls.append(context.name)
"""
    (modules / "plain.py").write_text(source)
    assert manager.load_plugin("plain", "plain").calls == ["plain"]
    assert manager.validate_plugin("plain")


def test_reloading_reads_the_files_again(manager: PluginManager, modules: Path) -> None:
    path = write_module(modules, "first", plugin_source("first", "1.0"))
    manager.load_plugin("first", path)
    write_module(modules, "first", plugin_source("first", "1.1.0"))
    assert manager.reload_plugin("first") is True
    assert manager.get_plugin_metadata("first")["version"] == "1.1.0"
    (modules / "first.py").write_text("raise RuntimeError('broken now')")
    assert manager.reload_plugin("first") is False
    assert "broken now" in manager.get_plugin_status("first")
    assert manager.reload_plugin("never-loaded") is False


@pytest.mark.parametrize(
    "path", ["os", "json:dumps", "os:path", "no_such_module", "../etc/passwd", "", "a b", "os:no_such"]
)
def test_what_is_no_plugin_is_not_loaded(manager: PluginManager, path: str) -> None:
    assert manager.load_plugin("something", path) is None
    assert "os" in sys.modules and "json" in sys.modules
    assert manager.list_plugins() == []


@pytest.mark.parametrize("name", ["../evil", "..", "a/b", "", "A", "-a", "a-", "a" * 65, None, 7, "a\0b", "ä"])
def test_names_that_mean_something_to_a_path_are_refused(manager: PluginManager, name: object) -> None:
    with pytest.raises(PluginError, match="plugin name"):
        manager.load(name, "os")
    with pytest.raises(PluginError, match="plugin name"):
        manager.enable(name)
    with pytest.raises(PluginError, match="plugin name"):
        PluginStore().data_folder(name)


def test_events_tell_of_every_step(manager: PluginManager, modules: Path) -> None:
    heard: list[tuple[str, dict]] = []
    for event in EVENTS:
        manager.events.register_hook(event, lambda event=event, **facts: heard.append((event, facts)))
    path = write_module(modules, "first", plugin_source("first"))
    module = manager.load_plugin("first", path)
    manager.reload_plugin("first")
    manager.unload_plugin("first")
    manager.load_plugin("bad", "no_such_module_at_all")
    assert [event for event, _ in heard] == [
        *("pre_load", "post_load"),
        *("pre_reload", "pre_unload", "post_unload", "pre_load", "post_load", "post_reload"),
        *("pre_unload", "post_unload"),
        *("pre_load", "failed_load"),
    ]
    assert heard[0][1] == {"name": "first", "path": path}
    assert heard[1][1] == {"name": "first", "path": path, "module": module}
    assert heard[2][1] == {"name": "first"}
    assert isinstance(heard[-1][1]["error"], PluginError)


def test_a_failing_shutdown_and_reload_are_told(manager: PluginManager, modules: Path) -> None:
    heard: list[str] = []
    for event in ("failed_unload", "failed_reload"):
        manager.events.register_hook(event, lambda event=event, **facts: heard.append(event))
    body = """
        def shutdown(self):
            raise RuntimeError("no")
    """
    manager.load("bad", write_module(modules, "bad", plugin_source("bad", body=body)))
    (modules / "bad.py").write_text("1/0")
    assert manager.reload_plugin("bad") is False
    assert heard == ["failed_unload", "failed_reload"]
    assert manager.list_plugins() == [] and "bad" not in sys.modules


@pytest.mark.parametrize(
    "body",
    [
        "def initialize(self, context):\n    raise RuntimeError('not today')",
        "def initialize(self, context):\n    raise SystemExit(3)",
        "@hookimpl\ndef register_samplers(self, register):\n    raise RuntimeError('not today')",
        "@hookimpl\ndef register_samplers(self, register):\n    register('../x', print)",
        "@hookimpl\ndef register_samplers(self, register):\n    register('x', 7)",
        "@hookimpl\ndef register_samplers(self, register):\n    register('x', print)\n    register('x', print)",
        "@hookimpl\ndef register_widgets(self, register):\n    pass",
        "@hookimpl\ndef pre_request(self, request):\n    pass",
        "@hookimpl\ndef no_such_hook(self):\n    pass",
        "@hookimpl\ndef register_samplers(self, something_else):\n    pass",
    ],
)
def test_a_plugin_that_cannot_start_leaves_nothing(manager: PluginManager, modules: Path, body: str) -> None:
    path = write_module(modules, "bad", plugin_source("bad", permissions=("samplers",), body=body))
    with pytest.raises(PluginError, match="bad"):
        manager.load("bad", path)
    assert manager.list_plugins() == [] and "bad" not in sys.modules
    assert manager.at("samplers") == {} and manager.pre_request_hooks == ()
    (modules / "bad.py").write_text(plugin_source("bad"))
    assert manager.load("bad", path)


@pytest.mark.parametrize("loop", ["while True: pass", "import time; time.sleep(3600)"])
def test_a_plugin_that_loops_at_import_is_stopped(modules: Path, loop: str) -> None:
    (modules / "endless.py").write_text(loop)
    with PluginManager(time_limit_s=1.0) as manager:
        with pytest.raises(PluginError, match="took longer than 1 s"):
            manager.load("endless", "endless:plugin")
    assert "endless" not in sys.modules


def test_one_that_ends_the_process_at_import_ends_a_child_only(modules: Path) -> None:
    (modules / "deadly.py").write_text("import os; os._exit(7)")
    with PluginManager(time_limit_s=60) as manager:
        with pytest.raises(PluginError, match="cannot be imported: exit code 7"):
            manager.load("deadly", "deadly:plugin")


def test_one_that_loops_in_initialize_is_left_behind(modules: Path, no_trial: list[str]) -> None:
    body = """
        def initialize(self, context):
            import threading
            threading.Event().wait(30)
    """
    path = write_module(modules, "slow", plugin_source("slow", body=body))
    with PluginManager(time_limit_s=1) as manager:
        with pytest.raises(PluginError, match="initialize took longer"):
            manager.load("slow", path)
        assert manager.list_plugins() == []


def test_an_import_is_tried_once_for_the_same_files(manager: PluginManager, modules: Path, no_trial: list[str]) -> None:
    path = write_module(modules, "first", plugin_source("first"))
    manager.load("first", path)
    manager.reload_plugin("first")
    assert no_trial == ["first"]
    write_module(modules, "first", plugin_source("first", "2.0.0"))
    manager.reload_plugin("first")
    assert no_trial == ["first", "first"]


FAILING = """
    count = 0
    @hookimpl
    def register_samplers(self, register):
        register("failing", lambda options: None)
    @hookimpl
    def pre_request(self, request):
        raise RuntimeError("always")
"""


def test_a_plugin_that_keeps_failing_is_disabled(manager: PluginManager, modules: Path) -> None:
    path = write_module(modules, "bad", plugin_source("bad", permissions=("samplers", "requests"), body=FAILING))
    manager.load("bad", path)
    assert len(manager.pre_request_hooks) == 1
    for count in (1, 2):
        assert manager.attempt("bad", "pre_request", lambda: 1 / 0, "instead") == "instead"
        assert manager.failure("bad").count == count and manager.is_active("bad")
    assert "failures: 2" in manager.get_plugin_status("bad")
    assert "ZeroDivisionError" in manager.failure("bad").details
    assert manager.attempt("bad", "pre_request", lambda: 1 / 0, "instead") == "instead"
    assert not manager.is_active("bad")
    assert manager.attempt("bad", "pre_request", lambda: "never called", "instead") == "instead"
    assert manager.worker.wait_until_idle(60)
    assert manager.list_plugins() == [] and manager.at("samplers") == {}
    assert "disabled after 3 failures" in manager.get_plugin_status("bad")
    assert "disabled after 3 failures" in manager.store.read().disabled["bad"]


def test_what_is_enabled_is_loaded_by_later_managers(workbench_home: Path) -> None:
    with PluginManager() as first:
        assert first.scan_available_plugins() == ["min-p-floor", "request-logger", "stop-phrases"]
        first.enable("min-p-floor")
        first.enable("request-logger", {"texts": True})
    with PluginManager() as second:
        second.load_enabled()
        second.load_enabled()
        assert second.list_plugins() == ["min-p-floor", "request-logger"]
        second.disable("min-p-floor")
    with PluginManager() as third:
        third.load_enabled()
        assert third.list_plugins() == ["request-logger"]
        assert third.store.read().settings == {"request-logger": {"texts": True}}


def test_settings_that_a_plugin_refuses_are_not_kept(manager: PluginManager) -> None:
    manager.enable("request-logger", {"texts": True})
    with pytest.raises(PluginError, match="'colour' is not known"):
        manager.enable("request-logger", {"colour": 1})
    assert manager.store.read().settings == {"request-logger": {"texts": True}}
    with pytest.raises(PluginError, match="there are min-p-floor"):
        manager.enable("no-such-plugin")
    assert manager.store.read().enabled == ("request-logger",)


def test_one_that_cannot_be_loaded_does_not_keep_the_others_out(manager: PluginManager) -> None:
    with manager.store.changing() as change:
        change.update(enabled=("gone", "min-p-floor"))
    manager.load_enabled()
    assert manager.list_plugins() == ["min-p-floor"]
    assert "there is no plugin 'gone'" in manager.problem("gone")


def test_the_allow_list_keeps_all_others_out(workbench_home: Path) -> None:
    with PluginManager(allow=["stop-phrases"]) as manager:
        manager.enable("stop-phrases")
        with pytest.raises(PluginError, match="not on the allow-list"):
            manager.enable("min-p-floor")
        assert manager.load_plugin("other", "other:plugin") is None
    store = PluginStore()
    with store.changing() as change:
        change.update(allowed=("min-p-floor",))
    with PluginManager() as manager:
        manager.load_enabled()
        assert manager.list_plugins() == []
        assert "allow-list" in manager.problem("stop-phrases")
        manager.enable("min-p-floor")


def test_a_damaged_state_loads_nothing(manager: PluginManager, caplog: pytest.LogCaptureFixture) -> None:
    manager.enable("min-p-floor")
    (manager.store.folder / "state.json").write_text("{")
    with PluginManager() as other:
        other.load_enabled()
        assert other.list_plugins() == []
    assert "cannot be read" in caplog.text


class _OwnParts:
    @hookimpl
    def register_load_balancers(self, register):
        register("round_robin", dict)


def test_our_own_parts_come_through_the_same_door(manager: PluginManager, modules: Path) -> None:
    own = _OwnParts()
    found = manager.find("load_balancers", "round_robin", own)
    assert found.is_built_in and found.value is dict
    body = """
        @hookimpl
        def register_load_balancers(self, register):
            register("round_robin", dict)
    """
    path = write_module(modules, "thief", plugin_source("thief", permissions=("load_balancers",), body=body))
    with pytest.raises(PluginError, match="'round_robin' is taken already, by workbench"):
        manager.load("thief", path)
    with pytest.raises(ConfigError, match="there are round_robin"):
        manager.find("load_balancers", "fastest", own)


def test_a_plugin_with_a_name_of_ours_is_put_out_when_ours_comes(manager: PluginManager, modules: Path) -> None:
    body = """
        @hookimpl
        def register_load_balancers(self, register):
            register("round_robin", dict)
    """
    path = write_module(modules, "thief", plugin_source("thief", permissions=("load_balancers",), body=body))
    manager.load("thief", path)
    assert manager.find("load_balancers", "round_robin", _OwnParts()).is_built_in
    assert manager.list_plugins() == [] and "the workbench's own" in manager.get_plugin_status("thief")


def test_a_plugin_that_needs_what_is_not_here_is_refused(manager: PluginManager, modules: Path) -> None:
    for number, (field, value, words) in enumerate(
        [
            ("requires_workbench", ">=99", "needs workbench >=99"),
            ("dependencies", ("no-such-package>=1",), "not installed"),
            ("dependencies", ("pluggy>=99",), "installed is"),
        ]
    ):
        source = plugin_source("picky").replace("permissions=()", f"{field}={value!r}")
        with pytest.raises(PluginError, match=words):
            manager.load("picky", write_module(modules, f"picky{number}", source))


def test_loading_twice_is_refused(manager: PluginManager, modules: Path) -> None:
    path = write_module(modules, "first", plugin_source("first", "1.0"))
    manager.load("first", path)
    with pytest.raises(PluginError, match=r"loaded already \(version 1.0\)"):
        manager.load("first", path)
    assert manager.is_active("first")


def test_plugins_hear_of_other_plugins_and_engines(manager: PluginManager, modules: Path) -> None:
    body = """
        heard = []
        @hookimpl
        def post_load(self, name, module):
            self.heard.append(("post_load", name, module.__name__))
        @hookimpl
        def engine_start(self, name, device):
            self.heard.append(("engine_start", name, device))
        @hookimpl
        def engine_stop(self):
            raise RuntimeError("not my day")
    """
    manager.load("ear", write_module(modules, "ear", plugin_source("ear", permissions=("events",), body=body)))
    manager.load("first", write_module(modules, "first", plugin_source("first")))
    manager.events.dispatch("engine_start", name="m", device="cpu")
    manager.events.dispatch("engine_stop", name="m", device="cpu")
    heard = manager.object_of("ear").heard
    assert ("post_load", "first", "first") in heard and heard[-1] == ("engine_start", "m", "cpu")
    assert manager.failure("ear").message.startswith("engine_stop: RuntimeError")


def test_a_name_that_is_not_there_yet_is_looked_for_among_the_enabled(manager: PluginManager) -> None:
    with manager.store.changing() as change:
        change.update(enabled=("min-p-floor",))
    assert "min-p-floor" not in manager.at("samplers")
    assert manager.lookup("samplers", "min-p-floor").plugin == "min-p-floor"
    assert manager.lookup("samplers", "nobody") is None
    with pytest.raises(ConfigError, match="there is no 'nobody'; there are min-p-floor"):
        manager.find("samplers", "nobody")
