"""Whether this machine can be an EC2 instance at all, from files the kernel shows. Costs no network; knows no types."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

__all__ = ["HintVerdict", "LocalHint", "read_local_hint"]

_VENDOR_FILES = ("sys_vendor", "board_vendor", "bios_vendor", "chassis_vendor")
_VERSION_FILES = ("bios_version", "product_version")


class HintVerdict(Enum):
    """What the files say. Only NO is certain enough to spare the network."""

    EC2 = "ec2"
    NO = "no"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class LocalHint:
    """The verdict, and the reason in words."""

    verdict: HintVerdict
    reason: str


def read_local_hint(sys_folder: Path = Path("/sys")) -> LocalHint:
    """What the vendor files below `sys_folder` say.

    Nitro and metal instances name "Amazon EC2" as vendor; older Xen ones have a BIOS version that ends in "amazon"
    or a hypervisor id that starts with "ec2". Other vendors exclude EC2; files that are absent or unreadable (some
    sandboxes hide them) say nothing.
    """
    dmi = sys_folder / "class" / "dmi" / "id"
    vendors = [text for text in (_read(dmi / name) for name in _VENDOR_FILES) if text]
    versions = [text for text in (_read(dmi / name) for name in _VERSION_FILES) if text]
    hypervisor_id = _read(sys_folder / "hypervisor" / "uuid")
    if any(vendor.lower().startswith("amazon") for vendor in vendors):
        return LocalHint(HintVerdict.EC2, "the firmware names Amazon EC2 as vendor")
    if hypervisor_id.lower().startswith("ec2") or any(version.lower().endswith("amazon") for version in versions):
        return LocalHint(HintVerdict.EC2, "the Xen hypervisor is Amazon's")
    if vendors:
        return LocalHint(HintVerdict.NO, f"the firmware's vendor is {vendors[0]!r}, not Amazon EC2")
    return LocalHint(HintVerdict.UNKNOWN, f"{dmi} says nothing about the vendor")


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", errors="replace").strip().strip("\0")
    except OSError:
        return ""
