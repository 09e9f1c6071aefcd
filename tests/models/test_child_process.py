import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from workbench.errors import LoadCancelled
from workbench.models.child_process import log_tail, python_environment, run_child

_FOREVER = [sys.executable, "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(600)"]


def test_it_gives_the_exit_status_and_keeps_the_output(tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = [sys.executable, "-c", "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"]

    assert run_child(command, log=log) == 3
    assert set(log_tail(log).splitlines()) == {"out", "err"}


@pytest.mark.parametrize("error", [LoadCancelled, KeyboardInterrupt])
def test_whatever_the_poll_raises_ends_the_child(tmp_path: Path, error: type[BaseException]) -> None:
    log = tmp_path / "log"

    def stop_once_it_runs() -> None:
        if log.read_text().endswith("\n"):
            raise error

    with pytest.raises(error):
        run_child(_FOREVER, log=log, on_poll=stop_once_it_runs)

    assert not psutil.pid_exists(int(log.read_text()))


def test_a_child_that_ignores_the_polite_signal_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.models.child_process._STOP_TIMEOUT_S", 0.2)
    log = tmp_path / "log"
    ignore = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); "

    def stop_once_it_runs() -> None:
        if log.read_text().endswith("\n"):
            raise LoadCancelled

    with pytest.raises(LoadCancelled):
        run_child([*_FOREVER[:2], ignore + _FOREVER[2]], log=log, on_poll=stop_once_it_runs)

    assert not psutil.pid_exists(int(log.read_text()))


def test_a_child_leaves_when_its_parent_is_gone() -> None:
    code = (
        "import time; from workbench.models.child_process import exit_with_parent; exit_with_parent(); "
        "print('up', flush=True); time.sleep(600)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=python_environment()
    )
    assert child.stdout.readline() == b"up\n"

    # What the kernel does to the pipe when the parent is killed.
    child.stdin.close()

    assert child.wait(timeout=20) == 1
    child.stdout.close()


def test_a_child_that_watches_its_parent_still_ends_well() -> None:
    code = "from workbench.models.child_process import exit_with_parent; exit_with_parent()"

    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, env=python_environment())

    assert child.wait(timeout=20) == 0
    child.stdin.close()


def test_children_find_the_package_and_what_the_user_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/somewhere")

    environment = python_environment(EXTRA="1")

    root, theirs = environment["PYTHONPATH"].split(os.pathsep)
    assert Path(root, "workbench", "__init__.py").is_file()
    assert (theirs, environment["EXTRA"]) == ("/somewhere", "1")


def test_a_progress_bar_in_the_log_counts_as_its_last_state(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("a 1%\ra 50%\ra 100%\n\nValueError: no\n")

    assert log_tail(tmp_path / "log") == "a 100%\nValueError: no"
    assert log_tail(tmp_path / "gone") == ""
