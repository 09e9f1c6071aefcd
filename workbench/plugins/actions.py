"""What surfaces with buttons do to plugins, as `workbench plugins` does it; each action gives a sentence."""

from __future__ import annotations

import json
from typing import Any

from workbench.errors import ConfigError, PluginError
from workbench.plugins.manager import PluginManager
from workbench.plugins.marketplace import PluginMarketplace
from workbench.plugins.overview import plugin_rows

__all__ = ["PluginActions"]

_RESTART = " Its tab is there when the app is started anew."


class PluginActions:
    """Changes which plugins there are, and which are on. What raises PluginError or ConfigError changes nothing."""

    def __init__(self, manager: PluginManager) -> None:
        self.manager = manager

    def offered(self, index: str) -> list[tuple[str, str, str]]:
        """Name, version and description of what an index offers. Runs nothing of it."""
        found = self._market(index).read_index()
        return [(entry.name, entry.version, entry.metadata.description) for entry in found.entries]

    def install(
        self, name: str, index: str, *, version: str = "", allow_unsigned: bool = False, allow_downgrade: bool = False
    ) -> str:
        """Get a plugin from an index. It is checked and unpacked, and not run before it is enabled."""
        market = self._market(index, allow_unsigned)
        market.install_plugin(_required(name), version.strip() or None, allow_downgrade=allow_downgrade)
        record = self.manager.store.read().installed[name]
        signed = f"signed by {record.signed_by}" if record.signed_by else "not signed"
        wants = ", ".join(record.permissions) or "nothing"
        return f"{name} {record.version} is installed ({signed}); it wants: {wants}.{self._take_up(name)}"

    def update(self, name: str, index: str, *, allow_unsigned: bool = False) -> str:
        """The newest version that fits, of one plugin or, with an empty name, of all that are installed."""
        market = self._market(index, allow_unsigned)
        words = []
        for each in [name] if name else market.list_installed_plugins():
            try:
                is_new = market.update_plugin(each)
            except PluginError as error:
                if name:
                    raise
                words.append(f"{each}: {error}")
                continue
            version = self.manager.store.read().installed[each].version
            words.append(f"{each}: {version}" + (self._take_up(each) if is_new else " is the newest that fits."))
        return " ".join(words) or "No plugin is installed from an index."

    def roll_back(self, name: str) -> str:
        """Back to the version before the installed one."""
        version = self._market("").rollback_plugin(_required(name))
        return f"{name} is at {version} again.{self._take_up(name)}"

    def remove(self, name: str) -> str:
        """An installed plugin's files go; what it has written itself stays."""
        market = self._market("")
        if _required(name) not in market.list_installed_plugins():
            installed = ", ".join(market.list_installed_plugins()) or "none"
            raise PluginError(f"plugin {name} is not installed from an index; installed are: {installed}")
        self.manager.unload_plugin(name)
        market.uninstall_plugin(name)
        return f"{name} is removed."

    def enable(self, name: str, settings: str = "") -> str:
        """Try a plugin's import, load it, and have it loaded from now on. `settings` are a JSON object, or empty."""
        self.manager.enable(_required(name), _settings(settings))
        version = self.manager.get_plugin_metadata(name)["version"]
        brings_tab = any(found.plugin == name for found in self.manager.at("dashboard_tabs").values())
        return f"{name} {version} is on.{_RESTART if brings_tab else ''}"

    def disable(self, name: str) -> str:
        """Do not load a plugin any more; it stays installed."""
        state = self.manager.store.read()
        if _required(name) not in state.enabled and name not in state.disabled:
            raise PluginError(f"plugin {name} is not enabled; enabled are: {', '.join(state.enabled) or 'none'}")
        self.manager.disable(name)
        return f"{name} is off."

    def info(self, name: str) -> dict[str, Any]:
        """Everything about one plugin, as plain values."""
        self.manager.load_enabled()
        rows = {row.name: row.as_dict() for row in plugin_rows(self.manager)}
        if _required(name) not in rows:
            raise PluginError(f"there is no plugin {name!r}; there are {', '.join(rows)}")
        return {**rows[name], "settings": dict(self.manager.store.read().settings.get(name, {}))}

    def _take_up(self, name: str) -> str:
        """Use the files that are there now, where an earlier version runs."""
        if name not in self.manager.list_plugins():
            return ""
        is_up = self.manager.reload_plugin(name)
        return " It is in use." if is_up else f" It cannot be loaded: {self.manager.problem(name)}."

    def _market(self, index: str, allow_unsigned: bool = False) -> PluginMarketplace:
        return PluginMarketplace(index.strip() or None, store=self.manager.store, allow_unsigned=allow_unsigned)


def _required(name: str | None) -> str:
    if not name:
        raise ConfigError("choose a plugin")
    return name


def _settings(text: str) -> dict[str, Any] | None:
    if not text.strip():
        return None
    try:
        settings = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"settings: not JSON ({error})") from None
    if not isinstance(settings, dict):
        raise ConfigError("settings: must be a JSON object")
    return settings
