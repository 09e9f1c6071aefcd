"""`workbench plugins ...` as a user types it; and commands that plugins add."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from plugin_packages import plugin_source, write_module, write_wheel

from workbench.cli import main
from workbench.plugins import PluginStore, default_plugins


@pytest.fixture(autouse=True)
def no_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.plugins.loader.try_import", lambda candidate, limit_s: None)


def run(*args: str) -> int:
    return main(["plugins", *args])


def test_the_shipped_ones_are_listed_and_switched(capsys: pytest.CaptureFixture) -> None:
    assert run("ls", "--json") == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert {name: row["status"] for name, row in rows.items()} == {
        "min-p-floor": "off",
        "request-logger": "off",
        "stop-phrases": "off",
    }
    assert run("enable", "request-logger", "--set", "texts=true", "--set", "max_bytes=1000") == 0
    assert "request-logger 1.0.0 is on" in capsys.readouterr().err
    assert run("ls") == 0
    assert "active" in next(line for line in capsys.readouterr().out.splitlines() if line.startswith("request-logger"))
    assert run("info", "request-logger", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["settings"] == {"texts": True, "max_bytes": 1000} and facts["permissions"] == ["requests", "files"]
    assert run("info", "request-logger") == 0
    assert "permissions    requests, files" in capsys.readouterr().out
    assert run("disable", "request-logger") == 0
    assert run("disable", "request-logger") == 1
    assert "is not enabled; enabled are: none" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["enable", "nobody"], "there is no plugin 'nobody'"),
        (["enable", "../x"], "plugin name '../x'"),
        (["info", "nobody"], "there is no plugin 'nobody'"),
        (["remove", "nobody"], "is not installed"),
        (["rollback", "nobody"], "is not installed"),
        (["install", "x", "--index", "/no/where"], "is no index"),
        (["install", "x"], "WORKBENCH_PLUGIN_INDEX"),
        (["new", "x", "--kind", "poem"], "must be one of sampler"),
        (["new", "../x"], "plugin name"),
        (["trust", "nobody"], "no key is called"),
        (["trust", "me", "AAAA"], "32 bytes"),
        (["index", "/no/where"], "has no wheels"),
    ],
)
def test_what_is_wrong_is_said(capsys: pytest.CaptureFixture, args: list[str], words: str) -> None:
    assert run(*args) == 1
    assert words in capsys.readouterr().err


def test_wrong_settings_are_wrong_usage(capsys: pytest.CaptureFixture) -> None:
    assert run("enable", "request-logger", "--set", "texts") == 2


def test_from_an_index_to_gone_again(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    shelf, key = tmp_path / "shelf", tmp_path / "key"
    write_wheel(shelf, "hello", "1.0", permissions=("cli_commands",), description="says hello")
    assert run("index", str(shelf), "--key", str(key)) == 0
    printed = capsys.readouterr()
    assert printed.out == "hello 1.0\n"
    public_key = printed.err.split()[-1]
    assert run("ls", "--index", str(shelf)) == 0 and "says hello" in capsys.readouterr().out
    assert run("install", "hello", "--index", str(shelf)) == 1
    assert "trusted are: none" in capsys.readouterr().err
    assert run("trust", "me", public_key) == 0 and run("trust") == 0
    assert public_key in capsys.readouterr().out
    assert run("install", "hello", "--index", str(shelf)) == 0
    assert "signed by me" in (words := capsys.readouterr().err) and "it wants: cli_commands" in words
    write_wheel(shelf, "hello", "1.1", permissions=("cli_commands",))
    assert run("index", str(shelf), "--key", str(key)) == 0
    assert run("update", "--index", str(shelf)) == 0
    assert "hello: 1.1" in capsys.readouterr().err
    assert run("update", "hello", "--index", str(shelf)) == 0
    assert "is the newest that fits" in capsys.readouterr().err
    assert run("rollback", "hello") == 0 and "1.0 is in use again" in capsys.readouterr().err
    assert run("remove", "hello") == 0
    assert PluginStore().read().installed == {}


def test_a_new_plugin_is_written(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert run("new", "mine", "--kind", "widget", "--folder", str(tmp_path)) == 0
    paths = capsys.readouterr().out.splitlines()
    assert str(tmp_path / "mine" / "src" / "mine" / "__init__.py") in paths and all(map(Path.exists, map(Path, paths)))


BODY = """
@hookimpl
def register_cli_commands(self, register):
    register("greet", greet, "Greet somebody.")
"""
GREET = """
def greet(name: str, loud: bool = False) -> None:
    if name == "nobody":
        raise RuntimeError("nobody is there")
    print(f"Hello, {name}" + "!" * loud)
"""


def test_plugins_add_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    source = GREET + plugin_source("greeter", permissions=("cli_commands",), body=BODY)
    manager = default_plugins()
    manager.load("greeter", write_module(tmp_path, "greeter_plugin", source))
    assert main(["greet", "you", "--loud"]) == 0
    assert capsys.readouterr().out == "Hello, you!\n"
    assert main(["--help"]) == 0
    assert "Greet somebody." in capsys.readouterr().out
    assert main(["greet", "nobody"]) == 1
    assert "the plugin greeter failed: RuntimeError: nobody is there" in capsys.readouterr().err
    assert manager.failure("greeter").count == 1
    manager.unload_plugin("greeter")
    assert main(["greet", "you"]) == 2


def test_a_name_of_ours_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    source = GREET + plugin_source("thief", permissions=("cli_commands",), body=BODY.replace('"greet"', '"info"'))
    default_plugins().load("thief", write_module(tmp_path, "thief_plugin", source))
    assert main(["info", "--help"]) == 0
    assert "Greet" not in capsys.readouterr().out
