"""ed25519 signatures of index entries, and whose keys are trusted. Knows bytes and names, no files to install."""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workbench.errors import PluginError, PluginVerificationError

__all__ = ["KeyRing", "SigningKey", "signed_bytes"]

# All that matters of an entry: no part of it can be changed without breaking the signature.
_SIGNED_FIELDS = ("name", "version", "file", "sha256", "requires_workbench", "requires", "permissions")


def signed_bytes(entry: Mapping[str, Any]) -> bytes:
    """What a signature of an index entry covers."""
    covered = {name: entry.get(name) for name in _SIGNED_FIELDS}
    return json.dumps(covered, sort_keys=True, separators=(",", ":")).encode()


@dataclass(frozen=True)
class SigningKey:
    """A private key, 32 bytes. Not in its repr."""

    secret: bytes = field(repr=False)

    @classmethod
    def generate(cls) -> SigningKey:
        """A new key."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return cls(Ed25519PrivateKey.generate().private_bytes_raw())

    @classmethod
    def read(cls, path: Path) -> SigningKey:
        """The key in a file that `write` made. Raises PluginError."""
        try:
            secret = base64.b64decode(path.read_text("ascii").strip(), validate=True)
        except (OSError, ValueError) as error:
            raise PluginError(f"{path} holds no signing key ({error})") from error
        if len(secret) != 32:
            raise PluginError(f"{path} holds no signing key (it must be 32 bytes in base64)")
        return cls(secret)

    def write(self, path: Path) -> None:
        """Keep it in a new file that only its owner can read. Raises PluginError if the file exists."""
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as error:
            raise PluginError(f"{path}: {error.strerror}") from error
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(base64.b64encode(self.secret).decode() + "\n")

    @property
    def public_key(self) -> str:
        """The public half in base64, to give to those who are to trust it."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        public = Ed25519PrivateKey.from_private_bytes(self.secret).public_key()
        return base64.b64encode(public.public_bytes_raw()).decode()

    def sign(self, entry: Mapping[str, Any]) -> str:
        """The signature of an index entry, in base64."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        signature = Ed25519PrivateKey.from_private_bytes(self.secret).sign(signed_bytes(entry))
        return base64.b64encode(signature).decode()


class KeyRing:
    """The public keys that this user trusts, by a name of the user's own, in one JSON file."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def read(self) -> dict[str, str]:
        """Name -> public key in base64. Raises PluginError for a damaged file."""
        try:
            keys = json.loads(self._file.read_text("utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise PluginError(f"{self._file} cannot be read: {error}") from error
        if not isinstance(keys, dict) or not all(isinstance(key, str) for key in keys.values()):
            raise PluginError(f"{self._file} is damaged: it must map names to keys")
        return keys

    def trust(self, name: str, public_key: str) -> None:
        """Trust a key from now on. Raises PluginError for what is none."""
        _public_bytes(public_key)
        self._write({**self.read(), name: public_key})

    def distrust(self, name: str) -> None:
        """Trust it no longer. Raises PluginError for an unknown name."""
        keys = self.read()
        if name not in keys:
            raise PluginError(f"no key is called {name!r}; trusted are: {', '.join(keys) or 'none'}")
        del keys[name]
        self._write(keys)

    def signer(self, entry: Mapping[str, Any]) -> str | None:
        """Whose trusted key signed the entry; None when it has no signature.

        Raises PluginVerificationError for a signature that no trusted key made, or that is not of this entry.
        """
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        text = entry.get("signature")
        if not text:
            return None
        signature = _bytes_of(text, "signature")
        keys = self.read()
        for name, key in keys.items():
            try:
                Ed25519PublicKey.from_public_bytes(_public_bytes(key)).verify(signature, signed_bytes(entry))
            except InvalidSignature:
                continue
            return name
        raise PluginVerificationError(
            f"plugin {entry.get('name')}: its signature is not of this entry by a trusted key "
            f"(trusted are: {', '.join(keys) or 'none'})"
        )

    def _write(self, keys: Mapping[str, str]) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._file.with_suffix(".new")
        temporary.write_text(json.dumps(keys, indent=2), "utf-8")
        os.replace(temporary, self._file)


def _public_bytes(text: str) -> bytes:
    key = _bytes_of(text, "public key")
    if len(key) != 32:
        raise PluginError("a public key must be 32 bytes in base64")
    return key


def _bytes_of(text: object, what: str) -> bytes:
    try:
        return base64.b64decode(str(text), validate=True)
    except (binascii.Error, ValueError) as error:
        raise PluginVerificationError(f"the {what} is not base64 ({error})") from error
