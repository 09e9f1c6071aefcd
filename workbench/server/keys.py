"""API keys: made at random, stored as hashes in one file, compared in constant time. Knows no requests."""

from __future__ import annotations

import enum
import hashlib
import hmac
import json
import os
import secrets
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock

from workbench.errors import ConfigError
from workbench.paths import settings_folder
from workbench.server.settings import RateLimits

__all__ = ["ApiKey", "KeyFile", "KeyRing", "NewKey", "Scope", "default_key_file", "static_key"]

# 32 random bytes: nothing to guess, so a slow password hash would only cost time on every request.
_SECRET_BYTES = 32
_MAX_NAME_CHARS = 64


class Scope(enum.StrEnum):
    """What a key may do. ADMIN includes USE."""

    USE = "use"
    ADMIN = "admin"


@dataclass(frozen=True)
class ApiKey:
    """One key as it is stored. `digest` is the SHA-256 of its secret in hex; `created_s` counts from the epoch."""

    key_id: str
    name: str
    scope: Scope
    digest: str
    created_s: float = 0.0
    limits: RateLimits | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "scope", Scope(self.scope))
        if isinstance(self.limits, dict):
            object.__setattr__(self, "limits", RateLimits(**self.limits))

    def allows(self, scope: Scope) -> bool:
        """Whether the key may do what needs `scope`."""
        return self.scope is Scope.ADMIN or self.scope is scope

    def __repr__(self) -> str:
        return f"ApiKey({self.key_id!r}, {self.name!r}, scope={self.scope.value!r})"


@dataclass(frozen=True)
class NewKey:
    """A key at the moment it is made, the only one at which its secret is known."""

    key: ApiKey
    secret: str

    def __repr__(self) -> str:
        return f"NewKey({self.key!r})"


class KeyFile:
    """The keys of this user, in a JSON file that only they may read. Several processes may change it at once."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self._clock = clock

    def list(self) -> list[ApiKey]:
        """All keys, oldest first. Raises ConfigError when the file is damaged."""
        try:
            text = self.path.read_text("utf-8")
        except FileNotFoundError:
            return []
        try:
            return [ApiKey(**entry) for entry in json.loads(text)["keys"]]
        except (ValueError, TypeError, KeyError) as error:
            raise ConfigError(f"{self.path} is damaged ({type(error).__name__}): restore it or remove it") from error

    def create(self, name: str, scope: Scope = Scope.USE, limits: RateLimits | None = None) -> NewKey:
        """Make a key and store its hash."""
        if not name.isprintable() or not 0 < len(name.strip()) <= _MAX_NAME_CHARS:
            raise ConfigError(f"name={name!r}: must be 1 to {_MAX_NAME_CHARS} printable characters")
        secret = _new_secret()
        key = ApiKey(secrets.token_hex(4), name.strip(), scope, digest_of(secret), self._clock(), limits)
        with self._locked():
            self._write([*self.list(), key])
        return NewKey(key, secret)

    def revoke(self, key_id: str) -> ApiKey:
        """Take a key away, for running servers too. Raises ConfigError for an unknown id."""
        with self._locked():
            keys = self.list()
            gone = next((key for key in keys if key.key_id == key_id), None)
            if gone is None:
                known = ", ".join(key.key_id for key in keys) or "none"
                raise ConfigError(f"key_id={key_id!r}: there is no such key; known are: {known}")
            self._write([key for key in keys if key is not gone])
        return gone

    def version(self) -> tuple[int, int] | None:
        """Changes whenever the file does; None while there is none."""
        try:
            stat = self.path.stat()
        except FileNotFoundError:
            return None
        return stat.st_mtime_ns, stat.st_ino

    def _locked(self) -> FileLock:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(f"{self.path}.lock", timeout=10, mode=0o600)

    def _write(self, keys: Iterable[ApiKey]) -> None:
        content = json.dumps({"keys": [asdict(key) for key in keys]}, indent=2)
        # mkstemp makes the file readable by its owner only, and the rename puts it there whole.
        handle, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=self.path.name)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(content)
        os.replace(temporary, self.path)


class KeyRing:
    """The keys that a running server accepts: fixed ones, and those of a file as it is now. Safe between threads."""

    def __init__(self, fixed: Iterable[ApiKey] = (), file: KeyFile | None = None) -> None:
        self._fixed = tuple(fixed)
        self._file = file
        self._lock = threading.Lock()
        self._version: tuple[int, int] | None = None
        self._from_file: tuple[ApiKey, ...] = ()

    @property
    def keys(self) -> tuple[ApiKey, ...]:
        """All keys that are accepted now."""
        if self._file is None:
            return self._fixed
        with self._lock:
            version = self._file.version()
            if version != self._version:
                self._from_file = tuple(self._file.list()) if version else ()
                self._version = version
            return self._fixed + self._from_file

    def find(self, secret: bytes) -> ApiKey | None:
        """The key with this secret. Takes the same time whichever key it is, and whether or not there is one."""
        digest = hashlib.sha256(secret).hexdigest().encode()
        found = None
        for key in self.keys:
            if hmac.compare_digest(digest, key.digest.encode()):
                found = key
        return found

    def is_valid(self, key: ApiKey) -> bool:
        """Whether a key that was found earlier still is one."""
        return key in self.keys


def static_key(name: str, scope: Scope, secret: str | None = None) -> NewKey:
    """A key that lives as long as this process; a random one unless `secret` is given.

    `name` is its id too. Raises ConfigError for a secret that is too short, or cannot stand in a header.
    """
    if secret is not None and (len(secret) < 8 or not secret.isascii() or not secret.isprintable() or " " in secret):
        raise ConfigError(f"{name.replace('-', '_')}: must be at least 8 printable ASCII characters without blanks")
    secret = secret or _new_secret()
    return NewKey(ApiKey(name, name, scope, digest_of(secret)), secret)


def default_key_file() -> KeyFile:
    """The key file of this user."""
    return KeyFile(settings_folder() / "api-keys.json")


def digest_of(secret: str) -> str:
    """What is stored of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _new_secret() -> str:
    return f"wb-{secrets.token_urlsafe(_SECRET_BYTES)}"
