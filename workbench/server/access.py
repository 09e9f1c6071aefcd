"""Which keys a new endpoint accepts: those given to it, stored ones, or one made up for it."""

from __future__ import annotations

from dataclasses import dataclass

from workbench.server.keys import KeyFile, KeyRing, NewKey, Scope, static_key
from workbench.server.settings import ListenSettings

__all__ = ["GENERATED", "Access"]

# Id of a key that was made up because none was given.
GENERATED = "generated"


@dataclass(frozen=True)
class Access:
    """`ring` None serves everybody. `use_key` is the key that was given or made up, if there is one."""

    ring: KeyRing | None
    use_key: NewKey | None = None

    @property
    def is_generated(self) -> bool:
        """Whether the key was made up here, so that somebody must be told of it."""
        return self.use_key is not None and self.use_key.key.key_id == GENERATED

    @property
    def has_own_keys(self) -> bool:
        """Whether there is a key that somebody chose to give out."""
        return self.ring is not None and any(key.key_id != GENERATED for key in self.ring.keys)

    @classmethod
    def of(
        cls,
        listen: ListenSettings,
        file: KeyFile,
        *,
        api_key: str | None = None,
        admin_key: str | None = None,
        always_generate: bool = False,
        generated: str | None = None,
    ) -> Access:
        """The keys of a new endpoint.

        Without `api_key` one is made up (or `generated` is taken again), unless there are stored keys and not
        `always_generate`. Raises ConfigError for a key that is too short, or a damaged key file.
        """
        if listen.no_auth:
            return cls(None)
        fixed = [static_key("admin-key", Scope.ADMIN, admin_key).key] if admin_key else []
        use_key = None
        if api_key is not None:
            use_key = static_key("api-key", Scope.USE, api_key)
        elif always_generate or not (file.list() or fixed):
            use_key = static_key(GENERATED, Scope.USE, generated)
        ring = KeyRing([*([use_key.key] if use_key else []), *fixed], file)
        return cls(ring, use_key)
