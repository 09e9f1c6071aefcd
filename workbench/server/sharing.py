"""Serving a loaded model from the process that uses it: `serve(llm)`, for notebooks."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from workbench.errors import ConfigError
from workbench.server.access import Access
from workbench.server.endpoint import Endpoint
from workbench.server.endpoints import PROCESS_ENDPOINTS
from workbench.server.keys import default_key_file
from workbench.server.model_host import ModelHost
from workbench.server.settings import ServerSettings
from workbench.session import Session

if TYPE_CHECKING:
    from workbench.llm import LlamaGPU

__all__ = ["serve"]


def serve(
    llm: LlamaGPU,
    *,
    name: str = "default",
    api_key: str | None = None,
    admin_key: str | None = None,
    settings: ServerSettings | None = None,
    **options: Any,
) -> Endpoint:
    """Serve a loaded model from this process, and return once requests are answered.

    Its requests share one batch with those of the notebook. Serving the same model again under the same `name` and
    with the same settings gives the running endpoint; anything else takes its place, on its port and with its
    generated key unless others are given. `options` are fields of the settings' parts, such as `port=0` or
    `requests_per_minute=60`. Without `api_key` a random one is made: `endpoint.api_key`. Stored keys
    (`workbench keys`) work too.

    Raises ConfigError for a wrong setting, an address that cannot be listened on, or one that needs a key of your own.
    """
    settings = _with_options(settings or ServerSettings(), {"port": 0, **options} if settings is None else options)

    def make(before: Endpoint | None) -> Endpoint:
        access = Access.of(
            settings.listen,
            default_key_file(),
            api_key=api_key,
            admin_key=admin_key,
            always_generate=True,
            generated=before.api_key if before is not None and before.access.is_generated else None,
        )
        session = Session()
        session.adopt(llm)
        host = ModelHost.factory(session, may_change=False, drain_s=settings.queue.drain_s)
        return Endpoint(host, _on_port_of(before, settings), access)

    return PROCESS_ENDPOINTS.serve(name, (llm, settings, api_key, admin_key), make)


def _with_options(settings: ServerSettings, options: dict[str, Any]) -> ServerSettings:
    """The settings with single fields of their parts replaced. Raises ConfigError for a name that no part has."""
    for part in fields(settings):
        value = getattr(settings, part.name)
        own = {field.name: options.pop(field.name) for field in fields(value) if field.name in options}
        settings = replace(settings, **{part.name: replace(value, **own)}) if own else settings
    if options:
        valid = sorted(field.name for part in fields(settings) for field in fields(getattr(settings, part.name)))
        raise ConfigError(f"unknown setting {sorted(options)[0]!r}: valid are {', '.join(valid)}")
    return settings


def _on_port_of(before: Endpoint | None, settings: ServerSettings) -> ServerSettings:
    if before is None or settings.listen.port != 0 or settings.listen.host != before.settings.listen.host:
        return settings
    return replace(settings, listen=replace(settings.listen, port=before.port))
