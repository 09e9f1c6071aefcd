"""Limits that a container puts on this process: memory and CPU time, from cgroup v1 and v2. Linux only; None elsewhere.

A limit may sit on any folder between the process's own group and the root, so all of them are read and the least wins.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

__all__ = ["Cgroup", "MemoryLimit"]


@dataclass(frozen=True)
class MemoryLimit:
    """A memory limit and what of it is still free, page cache that can be dropped counted as free."""

    limit_bytes: int
    free_bytes: int


@dataclass(frozen=True)
class _MemoryFiles:
    limit: str
    usage: str
    # Line of memory.stat with the page cache that the kernel can drop, children included.
    reclaimable: str


_MEMORY_V1 = _MemoryFiles("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_MEMORY_V2 = _MemoryFiles("memory.max", "memory.current", "inactive_file")


class Cgroup:
    """The control groups of this process. `root` is where /proc and /sys are looked for (tests pass a folder)."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def memory_limit(self) -> MemoryLimit | None:
        """The tightest memory limit, or None without one. A limit beyond the machine's memory is returned as it is."""
        limits = [_read_memory(folder, _MEMORY_V1) for folder in self._folders("memory")]
        limits += [_read_memory(folder, _MEMORY_V2) for folder in self._folders(None)]
        found = [limit for limit in limits if limit is not None]
        if not found:
            return None
        return MemoryLimit(min(x.limit_bytes for x in found), min(x.free_bytes for x in found))

    def cpu_quota(self) -> float | None:
        """CPUs' worth of time this process may use ("1.5"), or None without a quota."""
        quotas = [_read_quota_v1(folder) for folder in self._folders("cpu")]
        quotas += [_read_quota_v2(folder) for folder in self._folders(None)]
        return min((quota for quota in quotas if quota is not None), default=None)

    def _folders(self, controller: str | None) -> Iterator[Path]:
        """Folders from the process's group up to the mount point. `controller` None means the v2 tree."""
        own = self._own_path(controller)
        mount = self._mount(controller)
        if own is None or mount is None:
            return
        mount_root, mount_point = mount
        # In a container the mount shows only the part of the tree at or below `mount_root`.
        below = own.relative_to(mount_root) if own.is_relative_to(mount_root) else PurePosixPath()
        base = self._root / mount_point.relative_to("/")
        yield base
        for part_count in range(1, len(below.parts) + 1):
            yield base.joinpath(*below.parts[:part_count])

    def _own_path(self, controller: str | None) -> PurePosixPath | None:
        # Lines look like "4:memory:/docker/ab12" (v1) and "0::/user.slice" (v2).
        for line in _lines(self._root / "proc/self/cgroup"):
            _, controllers, path = line.split(":", 2)
            if (controller or "") in controllers.split(","):
                return PurePosixPath(path)
        return None

    def _mount(self, controller: str | None) -> tuple[PurePosixPath, PurePosixPath] | None:
        # "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory": root, mount point, type, super options.
        for line in _lines(self._root / "proc/self/mountinfo"):
            before, _, after = line.partition(" - ")
            fields, tail = before.split(), after.split()
            if len(fields) < 5 or len(tail) < 3:
                continue
            is_v2 = controller is None and tail[0] == "cgroup2"
            is_v1 = tail[0] == "cgroup" and controller in tail[2].split(",")
            if is_v1 or is_v2:
                return PurePosixPath(fields[3]), PurePosixPath(fields[4])
        return None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _number(path: Path) -> int | None:
    lines = _lines(path)
    # "max" and "-1" both mean no limit.
    return int(lines[0]) if lines and lines[0].strip().isdigit() else None


def _read_memory(folder: Path, files: _MemoryFiles) -> MemoryLimit | None:
    limit = _number(folder / files.limit)
    used = _number(folder / files.usage)
    if limit is None or used is None:
        return None
    stat = dict(line.split() for line in _lines(folder / "memory.stat") if line.count(" ") == 1)
    reclaimable = int(stat.get(files.reclaimable, 0))
    return MemoryLimit(limit, max(0, limit - max(0, used - reclaimable)))


def _read_quota_v1(folder: Path) -> float | None:
    quota = _number(folder / "cpu.cfs_quota_us")
    period = _number(folder / "cpu.cfs_period_us")
    return quota / period if quota and period else None


def _read_quota_v2(folder: Path) -> float | None:
    lines = _lines(folder / "cpu.max")
    quota, _, period = lines[0].partition(" ") if lines else ("max", "", "")
    return int(quota) / int(period) if quota.isdigit() and period.strip().isdigit() else None
