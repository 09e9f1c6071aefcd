"""The plugins that are here, got from an index, switched on and off, and the widgets that they bring."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

import ipywidgets

from widgets.part import Part
from widgets.plugin_shelf import PluginShelf
from workbench.errors import ConfigError, WorkbenchError
from workbench.plugins import PluginActions, PluginManager, PluginRow, default_plugins, plugin_rows
from workbench.session import Session
from workbench.twin import Twin

__all__ = ["PluginsCard"]

_IS_ON = ("active", "enabled", "failed")


class PluginsCard(Part, ipywidgets.VBox):
    """One row a plugin: its name, version and state, a button that switches it, and what is wrong with it if anything.

    Below stand an index to get plugins from, and the widgets that active plugins bring; `session` is what those work
    on. Switching a plugin on tries its import in a process of its own, and installing may read the network: both run on
    a thread, and `wait()` waits for it.
    """

    _worker: threading.Thread | None = None

    def __init__(self, session: Session | None = None, *, manager: PluginManager | None = None) -> None:
        self._session = session or Session()
        self._manager = manager or default_plugins()
        self._actions = PluginActions(self._manager)
        self._lock = threading.RLock()
        self._opened: dict[str, ipywidgets.Widget] = {}
        self._message = ipywidgets.Label("")
        self._rows = ipywidgets.VBox([])
        self._contributed = ipywidgets.VBox([])
        self._shelf = PluginShelf(self._act)
        title = ipywidgets.Label("Plugins")
        super().__init__([title, self._rows, self._shelf, self._message, self._contributed])
        self.add_class("wb-plugins")
        self._manager.load_enabled()
        self.refresh()

    @property
    def message(self) -> str:
        """What is going on or went wrong, in words."""
        return self._message.value

    def refresh(self) -> None:
        """Show the plugins as they are now."""
        with self._lock:
            old = self._rows.children
            self._rows.children = [self._row(row) for row in plugin_rows(self._manager)]
            _close_all(old)
            self._show_contributed()

    def enable(self, name: str) -> None:
        """Switch a plugin on, as a click does; returns at once."""
        self._start(f"switching {name} on", partial(self._manager.enable, name))

    def disable(self, name: str) -> None:
        """Switch a plugin off, as a click does; returns at once."""
        self._start(f"switching {name} off", partial(self._manager.disable, name))

    def look(self, index: str = "") -> None:
        """Say what an index offers, and suggest its names. Like all below returns at once; `message` has the outcome.

        An empty `index` is what WORKBENCH_PLUGIN_INDEX says.
        """
        self._start("reading the index", partial(self._look, index))

    def install(self, name: str, index: str = "", *, allow_unsigned: bool = False) -> None:
        """Get a plugin from an index, checked and switched off."""
        work = partial(self._actions.install, name, index, allow_unsigned=allow_unsigned)
        self._start(f"installing {name}", work)

    def update(self, name: str = "", index: str = "", *, allow_unsigned: bool = False) -> None:
        """Get a newer version of one plugin or, without a name, of all that are installed."""
        work = partial(self._actions.update, name, index, allow_unsigned=allow_unsigned)
        self._start(f"updating {name or 'all'}", work)

    def roll_back(self, name: str) -> None:
        """Use the version before again."""
        self._start(f"going back with {name}", partial(self._actions.roll_back, name))

    def remove(self, name: str) -> None:
        """Delete an installed plugin's files; what it has written itself stays."""
        self._start(f"removing {name}", partial(self._actions.remove, name))

    def wait(self, timeout_s: float | None = None) -> bool:
        """Whether what was started has ended within the time."""
        worker = self._worker
        if worker is None:
            return True
        worker.join(timeout_s)
        return not worker.is_alive()

    def contributed(self, name: str) -> ipywidgets.Widget:
        """The widget that a plugin registered under this name, made once. Raises ConfigError listing the names.

        A plugin that fails to make it is reported like any other failure; then a line of words stands in its place.
        """
        found = self._manager.at("widgets").get(name)
        if found is None:
            names = ", ".join(self._manager.at("widgets")) or "none"
            raise ConfigError(f"no active plugin brings a widget {name!r}; there are: {names}")
        with self._lock:
            if name not in self._opened:
                made = self._manager.attempt(
                    found.plugin, f"widget {name}", partial(_made, found.value, self._session), None
                )
                if made is None:
                    return ipywidgets.Label(f"{name}: {self._manager.failure(found.plugin).message}")
                self._opened[name] = made
            return self._opened[name]

    def close(self) -> None:
        """Take the card and the plugins' widgets away. The plugins stay as they are."""
        self.wait(5.0)
        for widget in self._opened.values():
            widget.close()
        self._opened.clear()
        _close_all(self._rows.children)
        for part in self.children:
            part.close()
        super().close()

    def twin(self) -> Twin:
        """Name and state of each plugin."""
        rows = tuple((row.name, row.status) for row in plugin_rows(self._manager))
        return Twin(f"PluginsCard ({len(rows)} plugins)", rows)

    def _row(self, row: PluginRow) -> ipywidgets.HBox:
        is_on = row.status in _IS_ON
        button = ipywidgets.Button(description="Disable" if is_on else "Enable", tooltip=f"{row.name} on or off")
        button.on_click(lambda _: self.disable(row.name) if is_on else self.enable(row.name))
        words = f"{row.name} {row.version}: {row.status}. {row.problem or row.description}"
        return ipywidgets.HBox([button, ipywidgets.Label(words)])

    def _show_contributed(self) -> None:
        here = self._manager.at("widgets")
        for name in [name for name in self._opened if name not in here]:
            self._opened.pop(name).close()
        self._contributed.children = [self.contributed(name) for name in here]

    def _act(self, action: str) -> None:
        shelf = self._shelf
        if action == "look":
            self.look(shelf.index)
        elif action in ("install", "update"):
            getattr(self, action)(shelf.name, shelf.index, allow_unsigned=shelf.allows_unsigned)
        else:
            getattr(self, action)(shelf.name)

    def _look(self, index: str) -> str:
        offered = self._actions.offered(index)
        self._shelf.offer([name for name, _, _ in offered])
        return "; ".join(f"{name} {version}: {words}" for name, version, words in offered) or "the index is empty"

    def _start(self, words: str, work: Callable[[], str | None]) -> None:
        with self._lock:
            if not self.wait(0):
                self._message.value = "one thing at a time: wait for the last switch to end"
                return
            self._message.value = f"{words} ..."
            self._worker = threading.Thread(target=self._work, args=(work,), name="workbench-plugins-card", daemon=True)
            self._worker.start()

    def _work(self, work: Callable[[], str | None]) -> None:
        try:
            outcome = work() or ""
        except WorkbenchError as error:
            outcome = str(error)
        self.refresh()
        self._message.value = outcome


def _made(make, session: Session) -> ipywidgets.Widget:
    widget = make(session)
    if not isinstance(widget, ipywidgets.Widget):
        raise TypeError(f"it gave {type(widget).__name__}, not a widget")
    return widget


def _close_all(rows: tuple) -> None:
    for row in rows:
        for part in row.children:
            part.close()
        row.close()
