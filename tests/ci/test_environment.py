"""The set-up script does what is missing, no more, and is never fooled by a run that was cut off."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

PROJECT = Path(__file__).parents[2]


def _load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ci_environment", PROJECT / ".ci" / "environment.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SCRIPT = _load_script()


class Machine:
    """Stands for venv, pip and the model command: it notes each call, leaves what they leave, and breaks on request."""

    def __init__(self, project: Path) -> None:
        self.project = project
        self.model = project / "cache" / "default"
        self.calls: list[str] = []
        self.fail_at: str | None = None
        self.failure: BaseException = SCRIPT.SetupError("no network")

    def __call__(self, command: list[str], folder: Path, *, capture: bool = False) -> str:
        assert folder == self.project
        call = self._name(command)
        self.calls.append(call)
        if call == "venv":
            self._make_venv(Path(command[-1]))
        if call == self.fail_at:
            raise self.failure
        if call == "fetch":
            self.model.mkdir(parents=True, exist_ok=True)
        return f"{self.model}\n" if capture else ""

    @staticmethod
    def _name(command: list[str]) -> str:
        if command[1:3] == ["-m", "venv"]:
            return "venv"
        if command[1:3] == ["-m", "pip"]:
            return "install" if command[-2:] == ["-e", ".[dev,docs]"] else "pip"
        return command[4]

    @staticmethod
    def _make_venv(folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "bin").mkdir(parents=True)
        (folder / "bin" / "python").symlink_to(sys.executable)


FROM_NOTHING = ["venv", "pip", "install", "fetch", "path"]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(PROJECT / name, tmp_path)
    return Machine(tmp_path)


def _set_up(machine: Machine, **variables: str) -> list[str]:
    """Run the set-up as a new process would, and give the calls it made."""
    machine.calls.clear()
    SCRIPT.Environment(machine.project, execute=machine, variables=variables).set_up()
    return list(machine.calls)


def test_a_fresh_checkout_gets_everything_and_a_second_run_does_nothing(machine: Machine) -> None:
    assert _set_up(machine) == FROM_NOTHING
    assert _set_up(machine) == []


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_changed_pins_are_installed_into_the_environment_that_is_there(machine: Machine, name: str) -> None:
    _set_up(machine)
    with open(machine.project / name, "a") as file:
        file.write("# changed\n")
    assert _set_up(machine) == ["pip", "install", "fetch", "path"]
    assert _set_up(machine) == []


def test_touching_the_pins_without_a_change_installs_nothing(machine: Machine) -> None:
    _set_up(machine)
    os.utime(machine.project / "constraints.txt", (2e9, 2e9))
    assert _set_up(machine) == []


def test_a_lost_model_is_fetched_again_without_installing(machine: Machine) -> None:
    _set_up(machine)
    shutil.rmtree(machine.model)
    assert _set_up(machine) == ["fetch", "path"]


def test_another_cache_folder_is_looked_into(machine: Machine) -> None:
    _set_up(machine)
    assert _set_up(machine, WORKBENCH_HOME="/elsewhere") == ["fetch", "path"]
    assert _set_up(machine, WORKBENCH_HOME="/elsewhere") == []


@pytest.mark.parametrize("step", ["venv", "pip", "install"])
def test_an_interrupted_installation_starts_afresh(machine: Machine, step: str) -> None:
    machine.fail_at, machine.failure = step, KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        _set_up(machine)
    machine.fail_at = None
    assert _set_up(machine) == FROM_NOTHING
    assert _set_up(machine) == []


def test_an_upgrade_that_was_interrupted_starts_afresh(machine: Machine) -> None:
    _set_up(machine)
    with open(machine.project / "constraints.txt", "a") as file:
        file.write("# changed\n")
    machine.fail_at, machine.failure = "install", KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        _set_up(machine)
    machine.fail_at = None
    assert _set_up(machine) == FROM_NOTHING


def test_a_failed_installation_is_tried_again_in_place(machine: Machine) -> None:
    machine.fail_at = "install"
    with pytest.raises(SCRIPT.SetupError, match="no network"):
        _set_up(machine)
    machine.fail_at = None
    assert _set_up(machine) == FROM_NOTHING[1:]


def test_a_failed_fetch_keeps_the_packages(machine: Machine) -> None:
    machine.fail_at = "fetch"
    with pytest.raises(SCRIPT.SetupError):
        _set_up(machine)
    machine.fail_at = None
    assert _set_up(machine) == ["fetch", "path"]


def test_a_moved_checkout_gets_a_new_environment(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> None:
    _set_up(machine)
    moved = tmp_path_factory.mktemp("moved") / "project"
    machine.project.rename(moved)
    assert _set_up(Machine(moved)) == FROM_NOTHING


def test_a_removed_environment_is_made_again(machine: Machine) -> None:
    _set_up(machine)
    shutil.rmtree(machine.project / ".venv")
    assert _set_up(machine) == FROM_NOTHING


def test_a_broken_stamp_counts_as_none(machine: Machine) -> None:
    _set_up(machine)
    (machine.project / ".venv" / ".setup.json").write_text('{"pins": "')
    assert _set_up(machine) == ["pip", "install", "fetch", "path"]


def test_an_old_python_is_refused_in_words(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SCRIPT.sys, "version_info", (3, 10, 13))
    with pytest.raises(SCRIPT.SetupError, match=r"Python 3\.11 or later is needed, this is 3\.10\.13"):
        _set_up(machine)
    assert machine.calls == []


def test_a_failing_command_is_named_with_its_status(tmp_path: Path) -> None:
    with pytest.raises(SCRIPT.SetupError, match="status 3"):
        SCRIPT.execute([sys.executable, "-c", "raise SystemExit(3)"], tmp_path)
    assert SCRIPT.execute([sys.executable, "-c", "print('here')"], tmp_path, capture=True) == "here\n"


@pytest.fixture
def finished_checkout(machine: Machine) -> Path:
    """A checkout whose set-up is done, with the project's own Makefile and script."""
    shutil.copy(PROJECT / "Makefile", machine.project)
    (machine.project / ".ci").mkdir()
    shutil.copy(PROJECT / ".ci" / "environment.py", machine.project / ".ci")
    _set_up(machine, **os.environ)
    return machine.project


def _make(checkout: Path, target: str) -> subprocess.Popen[str]:
    # These tests may themselves run under make, whose options and ARGS travel in such variables.
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "ARGS"))}
    command = ["make", target, f"PYTHON={sys.executable}"]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=checkout, env=variables, stdout=pipe, stderr=pipe, text=True)


def test_make_setup_starts_nothing_when_nothing_changed(finished_checkout: Path) -> None:
    output, errors = _make(finished_checkout, "setup").communicate(timeout=60)
    # Each command that it runs is told on stderr.
    assert (output, errors) == ("set-up: nothing to do\n", "")


def test_make_setup_waits_for_the_one_that_runs(finished_checkout: Path) -> None:
    with open(finished_checkout / ".venv.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = _make(finished_checkout, "setup")
        with pytest.raises(subprocess.TimeoutExpired):
            second.wait(timeout=0.5)
    assert second.communicate(timeout=30)[0] == "set-up: nothing to do\n"


def test_a_failing_setup_fails_the_command_that_needed_it(finished_checkout: Path) -> None:
    python = finished_checkout / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to(shutil.which("false"))
    (finished_checkout / "constraints.txt").write_text("# changed\n")
    run = _make(finished_checkout, "test")
    output, errors = run.communicate(timeout=30)
    assert run.returncode != 0
    assert "set-up failed: this step ended with status 1" in errors
    assert "pytest" not in output


def test_a_link_to_another_environment_is_refused_and_not_emptied(tmp_path: Path) -> None:
    for name in ("own", "other"):
        (tmp_path / name).mkdir()
        for file in ("pyproject.toml", "constraints.txt"):
            shutil.copy(PROJECT / file, tmp_path / name)
    theirs = Machine(tmp_path / "other")
    SCRIPT.Environment(theirs.project, execute=theirs, variables={}).set_up()
    link = tmp_path / "own" / ".venv"
    link.symlink_to(theirs.project / ".venv", target_is_directory=True)
    machine = Machine(tmp_path / "own")
    with pytest.raises(SCRIPT.SetupError, match="is a link to .*other"):
        SCRIPT.Environment(machine.project, execute=machine, variables={}).set_up()
    assert machine.calls == []
    assert SCRIPT.Environment(theirs.project, execute=theirs, variables={}).set_up() == []
