"""docs/plugins.md by its own words: a plugin written, built, indexed, installed, and used everywhere."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from workbench.cli import main
from workbench.plugins import PERMISSIONS, POINTS, default_plugins
from workbench.plugins.points import CALLED_HOOKS

PROJECT = Path(__file__).parents[2]
PAGE = (PROJECT / "docs" / "plugins.md").read_text()
STEPS = PAGE.split("## Write one")[1].split("### What a plugin is")[0]
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", STEPS, re.DOTALL) for line in block.splitlines()]


def _run(line: str) -> None:
    """One command of the page, as a shell would run it."""
    words = shlex.split(line)
    if words[0] == "pip":
        done = subprocess.run([sys.executable, "-m", *words, "--no-index"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    else:
        assert words[0] == "workbench" and main(words[1:]) == 0, line


def test_the_steps_of_the_page_lead_to_a_plugin_that_works(
    tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    new, build, index, trust, install, enable, generate = COMMANDS
    for line in (new, build, index):
        _run(line)
    public_key = capsys.readouterr().err.split()[-1]
    for line in (trust.replace("PUBLIC_KEY", public_key), install, enable):
        _run(line)
    words = capsys.readouterr().err
    assert "shy 0.1.0 is installed (signed by me); it wants: samplers" in words and "shy 0.1.0 is on" in words

    # The command line and the engine.
    options = f"--model {shlex.quote(str(tiny_model_folder))} --no-prefer-gpu --max-tokens 4 --ignore-eos --json"
    _run(generate.partition(" --plugins")[0] + f" {options}")
    plain = json.loads(capsys.readouterr().out)["token_ids"]
    ban = {"token_ids": [plain[0]], "amount": 1000.0}
    _run(f"{generate.partition(' --plugins')[0]} {options} --plugins {shlex.quote('shy=' + json.dumps(ban))}")
    other = json.loads(capsys.readouterr().out)["token_ids"]
    assert plain[0] not in other and len(other) == 4

    # The widget.
    from widgets.plugins_card import PluginsCard

    card = PluginsCard()
    assert ("shy", "active") in card.twin().rows
    card.disable("shy")
    assert card.wait(60) and ("shy", "off") in card.twin().rows
    card.close()


def test_every_hook_and_permission_is_on_the_page() -> None:
    for hook in POINTS.values():
        assert f"`{hook}`" in PAGE, hook
    for hook in CALLED_HOOKS:
        when, _, what = hook.partition("_")
        assert f"`{hook}`" in PAGE or (f"`{what}`" in PAGE and f"`{when}_load`" in PAGE), hook
    for permission in PERMISSIONS:
        assert f"`{permission}`" in PAGE, permission


def test_the_plugin_of_the_page_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    block = next(b for b in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "class Shy" in b)
    (tmp_path / "shy_of_the_page.py").write_text(block)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("workbench.plugins.loader.try_import", lambda candidate, limit_s: None)
    manager = default_plugins()
    assert manager.load_plugin("shy", "shy_of_the_page:plugin") is not None
    assert "shy" in manager.at("samplers")
    manager.unload_plugin("shy")


def test_the_shipped_plugins_are_on_the_page() -> None:
    for name in default_plugins().scan_available_plugins():
        assert f"| `{name}` |" in PAGE
