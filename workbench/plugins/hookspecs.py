"""The hooks that a plugin may implement, as pluggy specifications. Says when each is called and with what."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from workbench.plugins.requests import FinishedRequest, RequestInfo

__all__ = ["PROJECT", "HookSpecs", "hookimpl"]

PROJECT = "workbench"
hookimpl = pluggy.HookimplMarker(PROJECT)
_hookspec = pluggy.HookspecMarker(PROJECT)

# register(name, value, description=""): a name that is taken raises PluginError.
Register = Callable[..., None]


class HookSpecs:
    """Every `register_...` hook is called once, after `initialize`, with a `register(name, value, description="")`."""

    @_hookspec
    def register_model_sources(self, register: Register) -> None:
        """`value(location, progress) -> Path`: a folder that transformers can load, for models named "name:location"
        or "name://location"."""

    @_hookspec
    def register_engines(self, register: Register) -> None:
        """`value(loaded, backend, device_index, config, **options) -> StartedEngine`, for
        `EngineConfig(engine_name=name)`; `options` are those of `workbench.engine.build.start_engine`."""

    @_hookspec
    def register_backends(self, register: Register) -> None:
        """`value`: a subclass of `workbench.backends.Backend`, taken where it is asked for by name."""

    @_hookspec
    def register_quantization_methods(self, register: Register) -> None:
        """`value`: a `workbench.quantize.methods.Method`, or a function without arguments that makes one."""

    @_hookspec
    def register_load_balancers(self, register: Register) -> None:
        """`value`: a subclass of `workbench.parallel.Balancer`."""

    @_hookspec
    def register_samplers(self, register: Register) -> None:
        """`value(options) -> LogitsProcessor or TokenSampler`, made for each answer whose request names it."""

    @_hookspec
    def register_stream_filters(self, register: Register) -> None:
        """`value(options) -> StreamFilter`, made for each answer whose request names it."""

    @_hookspec
    def register_routes(self, register: Register) -> None:
        """`value`: a FastAPI router, served below /plugins/<name> to callers with a key."""

    @_hookspec
    def register_cli_commands(self, register: Register) -> None:
        """`value`: a function as typer takes it, called as `workbench <name>`."""

    @_hookspec
    def register_widgets(self, register: Register) -> None:
        """`value(session) -> ipywidgets.Widget`."""

    @_hookspec
    def register_dashboard_tabs(self, register: Register) -> None:
        """`value(session)`: called inside a Gradio tab, where it lays out its components."""

    @_hookspec
    def register_telemetry_sinks(self, register: Register) -> None:
        """`value(time_s, values)`: called after each beat of a sampler with the newest number of every series."""

    @_hookspec
    def pre_request(self, request: RequestInfo) -> Mapping[str, Any] | None:
        """Before a request goes to the engine. Gives sampling settings to change, or None; raising PluginRefusal
        refuses the request."""

    @_hookspec
    def post_request(self, request: FinishedRequest) -> None:
        """After each answer of a request has ended, on a thread of its own."""

    @_hookspec
    def engine_start(self, name: str, device: str) -> None:
        """A model is loaded and its engine runs."""

    @_hookspec
    def engine_stop(self, name: str, device: str) -> None:
        """An engine has ended."""

    @_hookspec
    def pre_load(self, name: str, path: str) -> None:
        """A plugin is about to be loaded."""

    @_hookspec
    def post_load(self, name: str, path: str, module: Any) -> None:
        """A plugin is active."""

    @_hookspec
    def failed_load(self, name: str, path: str, error: Exception) -> None:
        """A plugin could not be loaded."""

    @_hookspec
    def pre_unload(self, name: str) -> None:
        """A plugin is about to be unloaded."""

    @_hookspec
    def post_unload(self, name: str) -> None:
        """A plugin is gone."""

    @_hookspec
    def failed_unload(self, name: str, error: Exception) -> None:
        """A plugin's `shutdown` failed; it is gone all the same."""

    @_hookspec
    def pre_reload(self, name: str) -> None:
        """A plugin is about to be loaded afresh."""

    @_hookspec
    def post_reload(self, name: str) -> None:
        """A plugin was loaded afresh."""

    @_hookspec
    def failed_reload(self, name: str, error: Exception) -> None:
        """A plugin could not be loaded afresh."""
