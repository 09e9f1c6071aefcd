"""Children of this package leave with their parent, and how one ended is told in words."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from workbench.child_lifetime import exit_in_words, python_environment


def test_a_child_leaves_when_its_parent_is_gone() -> None:
    code = (
        "import time; from workbench.child_lifetime import exit_with_parent; exit_with_parent(); "
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
    code = "from workbench.child_lifetime import exit_with_parent; exit_with_parent()"

    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, env=python_environment())

    assert child.wait(timeout=20) == 0
    child.stdin.close()


def test_children_find_the_package_and_what_the_user_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/somewhere")

    environment = python_environment(EXTRA="1")

    root, theirs = environment["PYTHONPATH"].split(os.pathsep)
    assert Path(root, "workbench", "__init__.py").is_file()
    assert (theirs, environment["EXTRA"]) == ("/somewhere", "1")


@pytest.mark.parametrize(
    "exit_status, told",
    [
        (0, "exit status 0"),
        (3, "exit status 3"),
        (-signal.SIGKILL, "memory runs out"),
        (-signal.SIGSEGV, "crashed (SIGSEGV)"),
        (-signal.SIGTERM, "SIGTERM"),
        (-64, "SIGRTMAX"),
        (-100, "signal 100"),
    ],
)
def test_an_exit_status_in_words(exit_status: int, told: str) -> None:
    assert told in exit_in_words(exit_status)
