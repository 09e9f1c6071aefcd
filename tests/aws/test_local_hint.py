"""What the kernel's vendor files say, read from folders that look like /sys."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench.aws.local_hint import HintVerdict, read_local_hint


def _sys_folder(root: Path, **files: str) -> Path:
    dmi = root / "class" / "dmi" / "id"
    dmi.mkdir(parents=True)
    (root / "hypervisor").mkdir()
    for name, text in files.items():
        (root / "hypervisor" / "uuid" if name == "hypervisor_uuid" else dmi / name).write_text(text + "\n")
    return root


@pytest.mark.parametrize(
    "files",
    [
        {"sys_vendor": "Amazon EC2", "bios_vendor": "Amazon EC2"},
        {"sys_vendor": "Xen", "bios_vendor": "Xen", "bios_version": "4.11.amazon"},
        {"hypervisor_uuid": "ec2b5e1a-0c0f-4d2a-a3ff-7a2c0e7b6c11"},
    ],
)
def test_nitro_and_xen_instances_are_recognised(tmp_path: Path, files: dict[str, str]):
    assert read_local_hint(_sys_folder(tmp_path, **files)).verdict is HintVerdict.EC2


def test_other_vendors_exclude_ec2_and_are_named(tmp_path: Path):
    hint = read_local_hint(_sys_folder(tmp_path, sys_vendor="LENOVO", bios_version="N2IET98W"))
    assert hint.verdict is HintVerdict.NO
    assert "LENOVO" in hint.reason


def test_xen_without_amazons_mark_is_not_ec2(tmp_path: Path):
    assert read_local_hint(_sys_folder(tmp_path, sys_vendor="Xen", bios_version="4.17")).verdict is HintVerdict.NO


def test_absent_and_empty_files_say_nothing(tmp_path: Path):
    assert read_local_hint(tmp_path / "nowhere").verdict is HintVerdict.UNKNOWN
    assert read_local_hint(_sys_folder(tmp_path, sys_vendor="")).verdict is HintVerdict.UNKNOWN
