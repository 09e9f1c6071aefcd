"""Random text that hides how long a piece of a stream is from whoever sees only the sizes of encrypted packets."""

from __future__ import annotations

import secrets

__all__ = ["padding_for"]

_STEP = 64


def padding_for(num_chars: int) -> str:
    """So much text that with it `num_chars` become a multiple of 64."""
    missing = -num_chars % _STEP
    return secrets.token_urlsafe(_STEP)[:missing]
