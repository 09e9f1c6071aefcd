"""What the probe found on this machine, remembered beside the versions and the device that it holds for."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from workbench.paths import settings_folder
from workbench.quantize.probe import Capability, CapabilityState

__all__ = ["known_capabilities", "remember_capabilities"]

_VERSIONED = ("torch", "bitsandbytes")


def known_capabilities(device: str = "cpu") -> dict[str, Capability]:
    """By type what an earlier probe of torch device `device` found; {} before one, or after other versions came."""
    try:
        found = json.loads(_path().read_text("utf-8"))
        if found.get("valid_for") != _valid_for():
            return {}
        return {
            one["name"]: Capability(**{**one, "state": CapabilityState(one["state"])})
            for one in found["devices"].get(device, [])
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def remember_capabilities(capabilities: Sequence[Capability]) -> None:
    """Keep what `probe_capabilities` gave. Where nothing can be written, the next probe measures anew."""
    try:
        found = json.loads(_path().read_text("utf-8"))
        devices = found["devices"] if found.get("valid_for") == _valid_for() else {}
    except (OSError, ValueError, KeyError, AttributeError):
        devices = {}
    for device in {one.device for one in capabilities}:
        devices[device] = [{**asdict(one), "state": one.state.value} for one in capabilities if one.device == device]
    try:
        _path().parent.mkdir(parents=True, exist_ok=True)
        temporary = _path().with_suffix(".new")
        temporary.write_text(json.dumps({"valid_for": _valid_for(), "devices": devices}, indent=2), "utf-8")
        temporary.replace(_path())
    except OSError:
        pass


def _path() -> Path:
    return settings_folder() / "quantization-capabilities.json"


def _valid_for() -> dict[str, str | None]:
    return {
        **{package: _version(package) for package in _VERSIONED},
        "machine": f"{platform.machine()} {platform.node()}",
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
