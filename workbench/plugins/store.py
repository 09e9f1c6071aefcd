"""What is installed and enabled, in one JSON file that changes whole or not at all. Runs nothing, imports no plugin.

plugins/
  state.json               the file
  .lock                    held while something changes
  versions/<name>/<id>/    one installed version, as pip unpacked it
  data/<name>/             what the plugin itself keeps
  .building/<id>/          under construction; swept by the next holder of the lock
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from workbench.errors import PluginError
from workbench.paths import home
from workbench.plugins.metadata import check_plugin_name

__all__ = ["InstalledRecord", "PluginState", "PluginStore"]

_LOCK_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class InstalledRecord:
    """One installed plugin. `folder` is its version's id, `earlier` are records to go back to, the newest last."""

    name: str
    version: str
    folder: str
    entry_point: str
    sha256: str
    source: str
    signed_by: str = ""
    permissions: tuple[str, ...] = ()
    requires_workbench: str = ""
    description: str = ""
    earlier: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class PluginState:
    """The file's content.

    Attributes:
        installed: by name.
        enabled: names that are loaded when they are needed, in order.
        allowed: if not None, no other plugin is ever installed, enabled or loaded.
        settings: by name, what the user set for a plugin.
        disabled: name -> why it was switched off by itself.
        tried: fingerprints of plugin files whose import was seen to end.
    """

    installed: Mapping[str, InstalledRecord] = field(default_factory=dict)
    enabled: tuple[str, ...] = ()
    allowed: tuple[str, ...] | None = None
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    disabled: Mapping[str, str] = field(default_factory=dict)
    tried: tuple[str, ...] = ()

    def require_allowed(self, name: str) -> None:
        """Raise PluginError for a plugin outside of the allow-list."""
        if self.allowed is not None and name not in self.allowed:
            raise PluginError(f"plugin {name} is not on the allow-list ({', '.join(self.allowed) or 'it is empty'})")


class PluginStore:
    """The folder of all that concerns plugins, below WORKBENCH_HOME unless given."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or home() / "plugins"

    def read(self) -> PluginState:
        """The state as it is. Raises PluginError for a file that is damaged, since guessing could enable something."""
        try:
            content = json.loads(self._file.read_text("utf-8"))
        except FileNotFoundError:
            return PluginState()
        except (OSError, ValueError) as error:
            raise PluginError(f"{self._file} cannot be read: {error}") from error
        try:
            return _parse(content)
        except (TypeError, KeyError, AttributeError) as error:
            raise PluginError(f"{self._file} is damaged ({error}): repair it, or delete it to begin anew") from error

    @contextmanager
    def changing(self) -> Iterator[_Change]:
        """Holds the lock; what is set as `state` inside is written at the end, unless something was raised.

        Processes wait for each other, at most two minutes. Raises PluginError.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / ".lock", timeout=_LOCK_TIMEOUT_S)
            lock.acquire()
        except Timeout:
            raise PluginError(f"another process has been changing plugins for {_LOCK_TIMEOUT_S:g} s") from None
        except OSError as error:
            raise PluginError(f"cannot write to {self.folder} ({error.strerror or error})") from error
        try:
            change = _Change(self.read())
            before = change.state
            yield change
            if change.state != before:
                self._write(change.state)
        finally:
            lock.release()

    def keep_settings(self, name: str, settings: Mapping[str, Any] | None) -> None:
        """Note what the user set for a plugin, in place of what was there; None forgets it."""
        with self.changing() as change:
            kept = {key: value for key, value in change.state.settings.items() if key != name}
            change.update(settings={**kept, name: dict(settings)} if settings is not None else kept)

    def version_folder(self, name: str, folder_id: str) -> Path:
        """Where a version lies. Raises PluginError for a name or an id that could leave the folder."""
        return self.folder / "versions" / check_plugin_name(name) / check_plugin_name(folder_id)

    def data_folder(self, name: str) -> Path:
        """Where a plugin keeps what is its own."""
        return self.folder / "data" / check_plugin_name(name)

    @contextmanager
    def building(self) -> Iterator[Path]:
        """An empty folder that is gone afterwards, unless it was renamed. Only the holder of the lock may call this."""
        root = self.folder / ".building"
        shutil.rmtree(root, ignore_errors=True)
        temporary = root / uuid.uuid4().hex
        temporary.mkdir(parents=True)
        try:
            yield temporary
        finally:
            shutil.rmtree(root, ignore_errors=True)

    @property
    def _file(self) -> Path:
        return self.folder / "state.json"

    def _write(self, state: PluginState) -> None:
        temporary = self._file.with_suffix(".new")
        content = asdict(state)
        try:
            with temporary.open("w", encoding="utf-8") as file:
                json.dump(content, file, indent=2)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self._file)
        except OSError as error:
            raise PluginError(f"cannot write {self._file} ({error.strerror or error})") from error


@dataclass
class _Change:
    """The state inside of a change; assign to `state`, or use the two shortcuts."""

    state: PluginState

    def update(self, **values: Any) -> None:
        """Replace fields of the state."""
        self.state = replace(self.state, **values)

    def disable(self, name: str, reason: str | None = None) -> None:
        """Take a name off the enabled ones; `reason` is kept where it was not the user's wish."""
        disabled = {key: why for key, why in self.state.disabled.items() if key != name}
        if reason is not None:
            disabled[name] = reason
        self.update(enabled=tuple(each for each in self.state.enabled if each != name), disabled=disabled)


def _parse(content: Mapping[str, Any]) -> PluginState:
    names = {field.name for field in fields(PluginState)}
    values = {key: value for key, value in content.items() if key in names}
    installed = {name: _record(record) for name, record in values.pop("installed", {}).items()}
    for key in ("enabled", "tried"):
        values[key] = tuple(values.get(key, ()))
    if values.get("allowed") is not None:
        values["allowed"] = tuple(values["allowed"])
    return PluginState(installed=installed, **values)


def _record(values: Mapping[str, Any]) -> InstalledRecord:
    lists = {key: tuple(values.get(key, ())) for key in ("permissions", "earlier")}
    return InstalledRecord(**{**values, **lists})
