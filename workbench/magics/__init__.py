"""`%wb` and `%%chat` for notebooks: thin sugar over a session. `%load_ext workbench` registers them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["register", "unregister"]


def register(shell: InteractiveShell) -> None:
    """Make `%wb` and `%%chat` known to a shell. Does nothing the second time."""
    from workbench.magics.workbench_magics import WorkbenchMagics

    if not isinstance(shell.magics_manager.registry.get(WorkbenchMagics.__name__), WorkbenchMagics):
        shell.register_magics(WorkbenchMagics(shell))


def unregister(shell: InteractiveShell) -> None:
    """Unload what the magics loaded, and take them away."""
    magics = shell.magics_manager.registry.pop("WorkbenchMagics", None)
    if magics is None:
        return
    magics.close()
    for kind, names in magics.magics.items():
        for name in names:
            shell.magics_manager.magics[kind].pop(name, None)
