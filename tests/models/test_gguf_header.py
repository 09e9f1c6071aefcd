import struct
from pathlib import Path

import pytest
from tiny_gguf import write_tiny_gguf

from workbench.errors import ModelFormatError
from workbench.models.gguf_header import read_gguf_header


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_tiny_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf").read_bytes()


def _string(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


_ARCHITECTURE = _string("general.architecture") + struct.pack("<I", 8) + _string("llama")


def _file(path: Path, *, version: int = 3, pairs: list[bytes] = (), rows: list[bytes] = (), tail: bytes = b"") -> Path:
    head = b"GGUF" + struct.pack("<IQQ", version, len(rows), len(pairs))
    path.write_bytes(head + b"".join([*pairs, *rows]) + tail)
    return path


def _row(name: str = "w", shape: tuple[int, ...] = (32,), kind: int = 0, offset: int = 0) -> bytes:
    return _string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def test_it_reads_names_types_and_sizes(tmp_path: Path, intact: bytes) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(intact)

    header = read_gguf_header(path)

    tensors = {tensor.name: tensor for tensor in header.tensors}
    assert header.architecture == "llama"
    assert header.metadata["llama.context_length"] == 256
    assert header.metadata["tokenizer.ggml.tokens"] == 261
    assert tensors["blk.1.ffn_down.weight"].type_name == "Q4_1"
    assert tensors["blk.1.ffn_down.weight"].shape == (96, 64)
    # 32 weights take a scale, a minimum and 16 bytes of 4-bit numbers.
    assert tensors["blk.1.ffn_down.weight"].num_bytes == 96 * 64 // 32 * 20
    assert header.num_parameters == sum(tensor.num_elements for tensor in header.tensors)


@pytest.mark.parametrize("keep", [0, 3, 4, 10, 24, 100, 3000, -32, -5000])
def test_a_truncated_file_is_refused(tmp_path: Path, intact: bytes, keep: int) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(intact[:keep])

    with pytest.raises(ModelFormatError, match="a.gguf (is truncated|is not a GGUF file)"):
        read_gguf_header(path)


_LIES = {
    "another format": (dict(version=1), "has GGUF version 1; versions 2 and 3"),
    "the other byte order": (dict(version=3 << 24), "has GGUF version 50331648"),
    "text past the end": (dict(pairs=[struct.pack("<Q", 1 << 60)]), "goes on past the end"),
    "an endless array": (dict(pairs=[_string("a") + struct.pack("<IIQ", 9, 4, 1 << 61)]), "goes on past the end"),
    "endless strings": (dict(pairs=[_string("a") + struct.pack("<IIQ", 9, 8, 1 << 61)]), "goes on past the end"),
    "an unknown value": (dict(pairs=[_string("a") + struct.pack("<I", 99)]), "a metadata value of type 99"),
    "an array of arrays": (dict(pairs=[_string("a") + struct.pack("<IIQ", 9, 9, 1)]), "metadata array of type 9"),
    "no text": (dict(pairs=[struct.pack("<Q", 1) + b"\xff"]), "text that is not UTF-8"),
    "no architecture": (dict(), "does not say its general.architecture"),
    "many dimensions": (dict(pairs=[_ARCHITECTURE], rows=[_row(shape=(1,) * 5)]), "tensor 'w' with 5 dimensions"),
    "an unknown type": (dict(pairs=[_ARCHITECTURE], rows=[_row(kind=77)]), "tensor 'w' of the unknown type 77"),
    "half a block": (dict(pairs=[_ARCHITECTURE], rows=[_row(shape=(33,), kind=3)]), "rows of 33 do not fill blocks"),
    "a huge tensor": (dict(pairs=[_ARCHITECTURE], rows=[_row(shape=(1 << 40,))]), "truncated: tensor 'w' ends at"),
    "a far offset": (dict(pairs=[_ARCHITECTURE], rows=[_row(offset=1 << 50)], tail=b"x" * 999), "tensor 'w' ends at"),
    "one part of many": (
        dict(pairs=[_ARCHITECTURE, _string("split.count") + struct.pack("<IH", 2, 3)]),
        "one of 3 parts of a split model",
    ),
}


@pytest.mark.parametrize("lie", _LIES)
def test_a_lying_header_is_refused(tmp_path: Path, lie: str) -> None:
    content, message = _LIES[lie]

    with pytest.raises(ModelFormatError, match=message):
        read_gguf_header(_file(tmp_path / "a.gguf", **content))


def test_another_file_is_not_gguf(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"PK\x03\x04" + b"x" * 100)

    with pytest.raises(ModelFormatError, match="is not a GGUF file: it does not start with 'GGUF'"):
        read_gguf_header(tmp_path / "a.gguf")
