"""Whose the memory of a device is, part by part, adding up to what the device says is in use. Pure arithmetic."""

from __future__ import annotations

from dataclasses import dataclass, fields

__all__ = ["MemoryOwners", "share_out"]


@dataclass(frozen=True)
class MemoryOwners:
    """Bytes of a device by owner; they add up to `used`.

    `weights` and `kv` are the model's; `activations` the most that steps took beside them so far; `slack` what the
    allocator holds and nobody uses now; `context` what the runtime takes by itself (on a CPU: the rest of this
    process); `others` what is not this process's.
    """

    weights: int = 0
    kv: int = 0
    activations: int = 0
    slack: int = 0
    context: int = 0
    others: int = 0

    @property
    def used(self) -> int:
        """All together."""
        return sum(getattr(self, field.name) for field in fields(self))

    def to_dict(self) -> dict[str, int]:
        """Owner -> bytes."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def share_out(
    *,
    used_bytes: int,
    process_bytes: int,
    weight_bytes: int,
    kv_bytes: int,
    allocated_bytes: int,
    allocated_peak_bytes: int,
    reserved_bytes: int,
) -> MemoryOwners:
    """Deal out `used_bytes` of a device.

    `process_bytes` is this process's part of them; `reserved_bytes` of those the allocator holds, `allocated_bytes` are
    handed out now and `allocated_peak_bytes` were at most. Figures of different clocks may contradict each other by a
    little; each owner then gets no more than is left, so that the sum is always right.
    """
    left = _Rest(used_bytes)
    others = left.take(used_bytes - min(process_bytes, used_bytes))
    weights = left.take(weight_bytes)
    kv = left.take(kv_bytes)
    activations = left.take(max(allocated_bytes, allocated_peak_bytes) - weight_bytes - kv_bytes)
    slack = left.take(reserved_bytes - weights - kv - activations)
    return MemoryOwners(weights, kv, activations, slack, context=left.take(used_bytes), others=others)


class _Rest:
    def __init__(self, num_bytes: int) -> None:
        self._num_bytes = max(0, num_bytes)

    def take(self, wanted_bytes: int) -> int:
        taken = min(self._num_bytes, max(0, int(wanted_bytes)))
        self._num_bytes -= taken
        return taken
