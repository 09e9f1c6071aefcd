"""Starts JupyterLab for a test: own port, token, and folders, nothing of the user's touched."""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import sys
import threading
from pathlib import Path

__all__ = ["LabServer"]

_REPOSITORY = Path(__file__).resolve().parents[2]
_START_LIMIT_S = 90
# Lab asks the network for news and updates unless told not to.
_SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "apputils-extension/themes": {"theme": "JupyterLab Light"},
    "docmanager-extension/plugin": {"autosave": False},
}


class LabServer:
    """A running `jupyter lab` whose notebooks lie in `root`. Use as a context manager."""

    def __init__(self, home: Path) -> None:
        self.root = home / "notebooks"
        self.token = secrets.token_hex(16)
        self.url = ""
        self.log: list[str] = []
        self._home = home
        self._started = threading.Event()
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> LabServer:
        self.root.mkdir(parents=True)
        self._write_settings()
        command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root", "--expose-app-in-browser"]
        options = {
            "ServerApp.ip": "127.0.0.1",
            # Another server's port is stepped over; the log says which one it became.
            "ServerApp.port": 20_000 + secrets.randbelow(20_000),
            "ServerApp.root_dir": self.root,
            "IdentityProvider.token": self.token,
            "LabApp.extension_manager": "readonly",
        }
        self._process = subprocess.Popen(
            [*command, *(f"--{name}={value}" for name, value in options.items())],
            env=self._environment(),
            cwd=self._home,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        threading.Thread(target=self._read_log, name="lab-log", daemon=True).start()
        if not self._started.wait(_START_LIMIT_S) or not self.url:
            self.__exit__()
            raise RuntimeError("JupyterLab did not start:\n" + "\n".join(self.log))
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(20)
        self._process.stderr.close()

    def page_url(self, notebook: str) -> str:
        """Address that opens a notebook of `root` in a fresh workspace."""
        workspace = secrets.token_hex(4)
        return f"{self.url}lab/workspaces/{workspace}/tree/{notebook}?reset&token={self.token}"

    def _read_log(self) -> None:
        for line in self._process.stderr:
            self.log.append(line.rstrip())
            found = re.search(r"(http://127\.0\.0\.1:\d+/)lab\?token=", line)
            if found and not self.url:
                self.url = found[1]
                self._started.set()
        self._started.set()

    def _environment(self) -> dict[str, str]:
        folders = {f"JUPYTER_{kind}_DIR": str(self._home / kind.lower()) for kind in ("CONFIG", "DATA", "RUNTIME")}
        folders |= {
            "JUPYTERLAB_SETTINGS_DIR": str(self._home / "settings"),
            "JUPYTERLAB_WORKSPACES_DIR": str(self._home / "workspaces"),
            "IPYTHONDIR": str(self._home / "ipython"),
            "PYTHONPATH": os.pathsep.join(map(str, (_REPOSITORY, _REPOSITORY / "tests"))),
        }
        return {**os.environ, **folders}

    def _write_settings(self) -> None:
        for name, values in _SETTINGS.items():
            path = self._home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(values))
