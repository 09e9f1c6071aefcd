"""Byte counts as people read them."""

from __future__ import annotations

__all__ = ["byte_size", "memory_size"]


def byte_size(num_bytes: int | None) -> str:
    """ "98.4 MB" in powers of 1000, as disks and downloads are sized; "?" for None."""
    if num_bytes is None:
        return "?"
    size = float(num_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def memory_size(num_bytes: int) -> str:
    """ "742 MB" or "1.25 GB", in powers of 1000: what a model takes, where tenths of a MB say nothing."""
    return f"{num_bytes / 1e9:.2f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.0f} MB"
