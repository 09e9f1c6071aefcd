"""A file's checksum by pieces tells every change, and older ones of whole files still count."""

import hashlib
from pathlib import Path

import pytest

from workbench.quantize.checksum import file_checksum, has_checksum

BYTES = bytes(range(256)) * 9000  # more than a chunk, and no multiple of a piece


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "weights"
    path.write_bytes(BYTES)
    return path


@pytest.mark.parametrize("piece_bytes", [1_000_000, 1 << 30])
def test_every_change_is_told(file: Path, piece_bytes: int) -> None:
    wanted = file_checksum(file, piece_bytes)
    assert has_checksum(file, wanted)
    for changed in (BYTES[:-1] + b"x", b"x" + BYTES[1:], BYTES[:-1], BYTES + b"x", b""):
        file.write_bytes(changed)
        assert not has_checksum(file, wanted)


def test_sha256_of_the_whole_still_counts(file: Path) -> None:
    assert has_checksum(file, hashlib.sha256(BYTES).hexdigest())
    assert not has_checksum(file, hashlib.sha256(b"other").hexdigest())


@pytest.mark.parametrize("wanted", ["", "pieces:", "pieces:0:ab", "pieces:-1:ab", "pieces:x:ab"])
def test_what_is_no_checksum_is_no_file_s(file: Path, wanted: str) -> None:
    assert not has_checksum(file, wanted)


def test_an_empty_file_has_one(tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.touch()
    assert has_checksum(path, file_checksum(path))
