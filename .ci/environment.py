"""Makes .venv hold the pinned set and fetches the embedded model, each only when something changed.

Runs on the machine's Python before anything is installed: standard library only. A stamp inside .venv says what the
last finished run installed; a marker stands there while packages are being installed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

__all__ = ["Environment", "SetupError", "execute", "main"]

MINIMUM_PYTHON = (3, 11)
# What decides which packages are installed.
PIN_FILES = ("pyproject.toml", "constraints.txt")
# What decides where the model cache lies.
CACHE_VARIABLES = ("WORKBENCH_HOME", "XDG_CACHE_HOME", "HOME")


class SetupError(Exception):
    """The environment could not be made. The message says which step failed."""


def execute(command: list[str], folder: Path, *, capture: bool = False) -> str:
    """Run one command in `folder` and give what it printed if `capture`, else show it and give "".

    Raises `SetupError` when the command does not end with status 0.
    """
    print("+", shlex.join(command), file=sys.stderr, flush=True)
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE if capture else None, text=True, check=False)
    if done.returncode != 0:
        raise SetupError(f"this step ended with status {done.returncode}: {shlex.join(command)}")
    return done.stdout or ""


class Environment:
    """The virtual environment of one checkout: what it should hold, and the steps that are still missing.

    `execute` runs the commands; `variables` are the environment variables that the cache's place depends on.
    """

    def __init__(
        self,
        project: Path,
        *,
        execute: Callable[..., str] = execute,
        variables: Mapping[str, str] = os.environ,
    ) -> None:
        self.project = project
        self.folder = project / ".venv"
        self.python = self.folder / "bin" / "python"
        self._stamp_file = self.folder / ".setup.json"
        # Beside the folder, since making a virtual environment empties it.
        self._incomplete_marker = project / ".venv.incomplete"
        self._execute = execute
        self._variables = variables

    def set_up(self) -> list[str]:
        """Do what is missing and give the names of the steps done: "packages", "model", both or none."""
        steps = []
        if not self.has_packages():
            self.install_packages()
            steps.append("packages")
        if not self.has_model():
            self.fetch_model()
            steps.append("model")
        return steps

    def has_packages(self) -> bool:
        """Whether the last finished installation was from the present pins, at the present place."""
        stamp = self._read_stamp()
        return (
            self.python.exists()
            and not self._incomplete_marker.exists()
            and stamp.get("pins") == self._pins()
            and stamp.get("project") == str(self.project)
        )

    def has_model(self) -> bool:
        """Whether the folder that the last fetch named is still there, and the cache is still at that place."""
        stamp = self._read_stamp()
        model = stamp.get("model")
        return bool(model) and stamp.get("cache") == self._cache_variables() and os.path.isdir(model)

    def install_packages(self) -> None:
        """Make .venv where it is missing, half-made or moved, and install the pinned set into it.

        Raises `SetupError` for a link: what it leads to belongs to somebody else, and would be emptied.
        """
        if self.folder.is_symlink():
            raise SetupError(f"{self.folder} is a link to {self.folder.resolve()}: remove it, and run this again")
        stamp = self._read_stamp()
        self._stamp_file.unlink(missing_ok=True)
        moved = stamp.get("project", str(self.project)) != str(self.project)
        make_anew = moved or self._incomplete_marker.exists() or not self.python.exists()
        self._incomplete_marker.touch()
        if make_anew:
            self._make_venv()
        self._install_pinned_set()
        self._write_stamp({"pins": self._pins(), "project": str(self.project)})

    def fetch_model(self) -> None:
        """Have the embedded model ready in the cache. Its own command checks, converts and locks."""
        models = [str(self.python), "-m", "workbench.cli", "models"]
        self._execute([*models, "fetch", "default"], self.project)
        folder = self._execute([*models, "path", "default"], self.project, capture=True).strip()
        self._write_stamp({**self._read_stamp(), "model": folder, "cache": self._cache_variables()})

    def _install_pinned_set(self) -> None:
        pip = [str(self.python), "-m", "pip", "install", "--disable-pip-version-check", "-c", "constraints.txt"]
        try:
            # The build back end is pinned too, so the project is built with the one just installed.
            self._execute([*pip, "pip", "setuptools"], self.project)
            self._execute([*pip, "--no-build-isolation", "-e", ".[dev,docs]"], self.project)
        except SetupError:
            # pip gave up by itself (no network, say) and has put back what it was replacing: no reason to start afresh.
            self._incomplete_marker.unlink()
            raise
        self._incomplete_marker.unlink()

    def _make_venv(self) -> None:
        if sys.version_info < MINIMUM_PYTHON:
            version = ".".join(map(str, sys.version_info[:3]))
            raise SetupError(
                f"Python 3.11 or later is needed, this is {version}: make setup PYTHON=/path/to/python3.11"
            )
        # When this runs on .venv's own Python (the venv is activated), the one it was made from has to do it.
        base_python = getattr(sys, "_base_executable", None) or sys.executable
        self._execute([base_python, "-m", "venv", "--clear", str(self.folder)], self.project)

    def _pins(self) -> str:
        digest = hashlib.sha256()
        for name in PIN_FILES:
            content = (self.project / name).read_bytes()
            digest.update(f"{name} {len(content)}\n".encode() + content)
        return digest.hexdigest()

    def _cache_variables(self) -> list[str | None]:
        return [self._variables.get(name) for name in CACHE_VARIABLES]

    def _read_stamp(self) -> dict:
        try:
            stamp = json.loads(self._stamp_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return stamp if isinstance(stamp, dict) else {}

    def _write_stamp(self, stamp: dict) -> None:
        # Replaced in one step: an interrupted write leaves the old stamp or none, never half of one.
        draft = self._stamp_file.with_suffix(".draft")
        draft.write_text(json.dumps(stamp, indent=1), encoding="utf-8")
        draft.replace(self._stamp_file)


@contextlib.contextmanager
def _only_one(project: Path) -> Iterator[None]:
    """Let a second set-up of the same checkout wait for the first."""
    with open(project / ".venv.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main() -> int:
    """Set up the checkout this file lies in; the exit status is 0 when everything is there."""
    environment = Environment(Path(__file__).resolve().parent.parent)
    try:
        with _only_one(environment.project):
            steps = environment.set_up()
    except SetupError as error:
        print(f"set-up failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("set-up interrupted; the same command starts it again", file=sys.stderr)
        return 130
    print("set-up done: " + ", ".join(steps) if steps else "set-up: nothing to do")
    return 0


if __name__ == "__main__":
    sys.exit(main())
