"""What the tabs share: where replies come from, who works on what, who may change the model. Knows no components."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import gradio as gr

from dashboards.cluster import ClusterReader
from dashboards.desk import Desk, Desks
from dashboards.gate import key_of
from dashboards.sources import ChatSource
from dashboards.toolbox import Toolbox
from workbench.conversation import PresetShelf
from workbench.errors import ConfigError, RequestError
from workbench.failure import Failure
from workbench.plugins import PluginManager
from workbench.server.keys import KeyRing, Scope
from workbench.session import Session
from workbench.telemetry import Sampler

if TYPE_CHECKING:
    from dashboards.bench import Bench

__all__ = ["AppParts", "shown_error", "warn_of"]

_TITLE = "That did not work"

# Updates of one page come at most so often; with many replies at once each page gets fewer.
_FASTEST_UPDATE_S = 1 / 12
_UPDATES_PER_S = 60.0


@dataclass
class AppParts:
    """The app's parts. `session`, `sampler`, `bench` and `plugins` are None where the model is behind an endpoint
    somewhere else; `ring` is None where everybody may do everything."""

    source: ChatSource
    shelf: PresetShelf
    toolbox: Toolbox
    cluster: ClusterReader
    session: Session | None = None
    sampler: Sampler | None = None
    bench: Bench | None = None
    plugins: PluginManager | None = None
    ring: KeyRing | None = None
    desks: Desks = field(default_factory=Desks)

    def desk(self, request: gr.Request) -> Desk:
        """What the page of this request works on."""
        return self.desks.of(request.session_hash)

    @property
    def update_interval_s(self) -> float:
        """Seconds between two updates of a running reply on one page."""
        return max(_FASTEST_UPDATE_S, self.desks.num_running / _UPDATES_PER_S)

    def is_admin(self, request: gr.Request) -> bool:
        """Whether this page may change what others use."""
        if self.ring is None:
            return True
        key = key_of(request.request.scope) if request.request is not None else None
        return key is not None and key.allows(Scope.ADMIN)

    def require_admin(self, request: gr.Request) -> None:
        """Raise ConfigError where `is_admin` is false."""
        if not self.is_admin(request):
            raise ConfigError("this needs a key with the admin scope")

    def require_session(self) -> Session:
        """The session, for what a remote endpoint has not. Raises ConfigError."""
        if self.session is None:
            raise ConfigError("the model is behind an endpoint: load and unload it there")
        return self.session


def shown_error(error: Exception) -> gr.Error:
    """The error as a notice on the page: cause and next step. Nothing is logged, as it was expected.

    Gradio marks every output of the event with it: where one of them is the chat, `warn_of` leaves that readable.
    """
    return gr.Error(_notice(error), title=_TITLE, print_exception=False)


def warn_of(error: Exception) -> None:
    """The same as a notice alone."""
    gr.Warning(_notice(error), title=_TITLE)


def _notice(error: Exception) -> str:
    failure = Failure.of(error)
    cause = failure.cause if failure.cause.endswith((".", "!", "?")) else f"{failure.cause}."
    # What is wrong with what was asked for says itself what to change.
    return cause if type(error) in (RequestError, ConfigError) else f"{cause} {failure.next_step}"
