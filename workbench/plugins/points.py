"""Where plugins can join in: the extension points, the hook of each, and the permissions that name them."""

from __future__ import annotations

from types import MappingProxyType

__all__ = ["CALLED_HOOKS", "PERMISSIONS", "POINTS"]

# Extension point -> the hook that registers things there. The name is also the permission that a plugin needs.
POINTS = MappingProxyType(
    {
        "model_sources": "register_model_sources",
        "engines": "register_engines",
        "backends": "register_backends",
        "quantization_methods": "register_quantization_methods",
        "load_balancers": "register_load_balancers",
        "samplers": "register_samplers",
        "stream_filters": "register_stream_filters",
        "routes": "register_routes",
        "cli_commands": "register_cli_commands",
        "widgets": "register_widgets",
        "dashboard_tabs": "register_dashboard_tabs",
        "telemetry_sinks": "register_telemetry_sinks",
    }
)

# Hooks that are called when something happens -> the permission that a plugin needs to be called.
CALLED_HOOKS = MappingProxyType(
    {
        "pre_request": "requests",
        "post_request": "requests",
        "engine_start": "events",
        "engine_stop": "events",
        **{f"{when}_{what}": "events" for what in ("load", "unload", "reload") for when in ("pre", "post", "failed")},
    }
)

# The last two cannot be enforced in one process: they tell a person what the plugin will do.
PERMISSIONS = (*POINTS, "requests", "events", "network", "files")
