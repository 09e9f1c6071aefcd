"""A tab that a plugin brings, built apart from the page: one that fails leaves nothing in it but its error."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr

from dashboards.parts import shown_error
from workbench.errors import PluginError, WorkbenchError
from workbench.plugins import Contribution, PluginManager
from workbench.session import Session

__all__ = ["ContributedTab"]


@dataclass(frozen=True)
class ContributedTab:
    """What a plugin has laid out; `blocks` is None where that failed, and `problem` says how."""

    name: str
    plugin: str
    blocks: gr.Blocks | None
    problem: str = ""

    @classmethod
    def build_all(cls, manager: PluginManager, session: Session) -> list[ContributedTab]:
        """The tabs of all plugins that are on. To be called while no Blocks is open."""
        manager.load_enabled()
        return [_built(manager, found, session) for found in manager.at("dashboard_tabs").values()]

    def render(self) -> None:
        """Put it into the tab that is open."""
        if self.blocks is None:
            gr.Markdown(f"**The plugin {self.plugin} failed here.** {self.problem}", elem_id=f"wb-failed-{self.name}")
        else:
            self.blocks.render()


def _built(manager: PluginManager, found: Contribution, session: Session) -> ContributedTab:
    try:
        with gr.Blocks(analytics_enabled=False) as blocks:
            found.value(session)
    # Boundary: it is anybody's code, and the app opens without it.
    except Exception as error:
        manager.report_failure(found.plugin, f"dashboard tab {found.name}", error)
        return ContributedTab(found.name, found.plugin, None, f"{type(error).__name__}: {error}")
    for event in blocks.fns.values():
        # What the app offers to programs is its own.
        event.api_visibility = "private"
        if event.fn is not None:
            event.fn = _Guard(manager, found).around(event.fn)
    return ContributedTab(found.name, found.plugin, blocks)


class _Guard:
    """Counts what a plugin's functions raise as its failures, and does not call them once it is off."""

    def __init__(self, manager: PluginManager, found: Contribution) -> None:
        self._manager = manager
        self._found = found

    def around(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """A function of the same kind (plain, coroutine, generator): Gradio treats each in its own way."""
        if inspect.isasyncgenfunction(fn):

            async def called(*args: Any, **kwargs: Any) -> Any:
                with self:
                    async for value in fn(*args, **kwargs):
                        yield value

        elif inspect.isgeneratorfunction(fn):

            def called(*args: Any, **kwargs: Any) -> Any:
                with self:
                    yield from fn(*args, **kwargs)

        elif inspect.iscoroutinefunction(fn):

            async def called(*args: Any, **kwargs: Any) -> Any:
                with self:
                    return await fn(*args, **kwargs)

        else:

            def called(*args: Any, **kwargs: Any) -> Any:
                with self:
                    return fn(*args, **kwargs)

        return functools.wraps(fn)(called)

    def __enter__(self) -> None:
        if not self._manager.is_active(self._found.plugin):
            raise shown_error(PluginError(f"the plugin {self._found.plugin} is off"))

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        # What a plugin tells its user on purpose is no failure, nor what the model refuses, nor a page that has gone.
        if isinstance(error, WorkbenchError):
            raise shown_error(error) from None
        if isinstance(error, Exception) and not isinstance(error, gr.Error):
            self._manager.report_failure(self._found.plugin, f"dashboard tab {self._found.name}", error)
