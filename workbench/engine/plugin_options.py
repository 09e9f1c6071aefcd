"""Which plugins one request asks for, as a value that is checked once. Knows no plugin."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from workbench.errors import RequestError

__all__ = ["as_plugin_options"]

_MAX_PLUGINS = 16
_MAX_OPTION_CHARS = 64 * 1024


def as_plugin_options(plugins: object) -> Mapping[str, Mapping[str, object]]:
    """Name -> options, from a name, several names, or a mapping whose values may be None.

    Options are JSON values. Raises RequestError.
    """
    if isinstance(plugins, str):
        plugins = [plugins]
    if plugins is None:
        plugins = {}
    if isinstance(plugins, list | tuple):
        plugins = {name: None for name in plugins if isinstance(name, str)} if _all_texts(plugins) else plugins
    if not isinstance(plugins, Mapping):
        raise RequestError(f"plugins={plugins!r}: must be names, or an object of options by name")
    if len(plugins) > _MAX_PLUGINS:
        raise RequestError(f"plugins: {len(plugins)} are more than the {_MAX_PLUGINS} of one request")
    return {_name(name): _options(name, options) for name, options in plugins.items()}


def _all_texts(values: list[Any] | tuple[Any, ...]) -> bool:
    return all(isinstance(value, str) for value in values)


def _name(name: object) -> str:
    if not isinstance(name, str) or not name:
        raise RequestError(f"plugins: {name!r} is not a name")
    return name


def _options(name: object, options: object) -> Mapping[str, object]:
    if options is None:
        return {}
    if not isinstance(options, Mapping):
        raise RequestError(f"plugins: the options of {name!r} must be an object, not {options!r}"[:300])
    try:
        text = json.dumps(dict(options))
    except (TypeError, ValueError, RecursionError) as error:
        raise RequestError(f"plugins: the options of {name!r} are not JSON values: {error}") from None
    if len(text) > _MAX_OPTION_CHARS:
        raise RequestError(f"plugins: the options of {name!r} are longer than {_MAX_OPTION_CHARS} characters")
    # A copy that the caller cannot change while the request runs.
    copied: Mapping[str, object] = json.loads(text)
    return copied
