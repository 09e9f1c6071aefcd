import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from model_folders import copy_folder, edit_header, save_preset
from safetensors import safe_open

from workbench.errors import ModelFormatError
from workbench.safetensors_header import INDEX_NAME, read_folder_headers, read_header, weight_files

_NORM = "model.norm.weight"


@pytest.fixture
def file(tiny_model_folder: Path, tmp_path: Path) -> Path:
    return copy_folder(tiny_model_folder, tmp_path / "model") / "model.safetensors"


@pytest.fixture(scope="module")
def sharded_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_preset("tiny", tmp_path_factory.mktemp("sharded") / "model", shard_size="150KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 2
    return folder


def test_it_sees_what_the_formats_own_reader_sees(file: Path) -> None:
    entries = read_header(file)

    with safe_open(file, "np") as theirs:
        assert entries.keys() == set(theirs.keys())
        for name, entry in entries.items():
            values = theirs.get_tensor(name)
            assert entry.shape == values.shape
            assert file.read_bytes()[entry.offset : entry.offset + entry.num_bytes] == values.tobytes()


def test_shards_are_read_as_one(sharded_folder: Path, tiny_model_folder: Path) -> None:
    assert len(weight_files(sharded_folder)) > 2
    assert read_folder_headers(sharded_folder).keys() == read_folder_headers(tiny_model_folder).keys()


@pytest.mark.parametrize("keep", [0, 5, 8, 100, 3000, -1, -70_000])
def test_a_truncated_file_is_refused(file: Path, keep: int) -> None:
    file.write_bytes(file.read_bytes()[:keep])

    with pytest.raises(ModelFormatError, match=f"{file} is truncated"):
        read_header(file)


def test_bytes_too_many_are_refused(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"x")

    with pytest.raises(ModelFormatError, match="the last tensor ends at byte"):
        read_header(file)


def test_another_file_is_refused(file: Path) -> None:
    file.write_bytes(b"PK\x03\x04" * 1000)
    with pytest.raises(ModelFormatError, match="truncated or not safetensors: it has 4,000 bytes and its header"):
        read_header(file)

    file.write_bytes((20).to_bytes(8, "little") + b"{" * 20)
    with pytest.raises(ModelFormatError, match="damaged header"):
        read_header(file)

    file.write_bytes((2).to_bytes(8, "little") + b"[]")
    with pytest.raises(ModelFormatError, match="damaged header: it holds a list"):
        read_header(file)


def _shift(header: dict[str, Any]) -> None:
    begin, end = header[_NORM]["data_offsets"]
    header[_NORM]["data_offsets"] = [begin - 4, end - 4]


_LIES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "larger shape": (lambda h: h[_NORM].update(shape=[65]), r"shape \[65\] in F32 takes 260 bytes, .* span 256"),
    "other dtype": (lambda h: h[_NORM].update(dtype="F16"), r"shape \[64\] in F16 takes 128 bytes, .* span 256"),
    "unknown dtype": (lambda h: h[_NORM].update(dtype="F7"), "unknown dtype 'F7'"),
    "past the end": (lambda h: h[_NORM].update(data_offsets=[0, 1 << 50]), "truncated: tensor 'model.norm.weight'"),
    "overlap": (_shift, "starts at byte"),
    "backwards": (lambda h: h[_NORM].update(data_offsets=[256, 0]), "entry of tensor 'model.norm.weight' is damaged"),
    "negative": (lambda h: h[_NORM].update(shape=[-64]), "entry of tensor 'model.norm.weight' is damaged"),
    "no shape": (lambda h: h[_NORM].pop("shape"), "entry of tensor 'model.norm.weight' is damaged"),
    "text as shape": (lambda h: h[_NORM].update(shape="64"), "entry of tensor 'model.norm.weight' is damaged"),
    "a hole": (lambda h: h.pop(_NORM), "byte"),
}


@pytest.mark.parametrize("lie", _LIES)
def test_a_lying_header_is_refused_naming_file_and_tensor(file: Path, lie: str) -> None:
    edit, message = _LIES[lie]
    edit_header(file, edit)

    with pytest.raises(ModelFormatError, match=message) as caught:
        read_header(file)

    assert str(file) in str(caught.value)


def _set_weight(index: Path, name: str, shard: object) -> None:
    content = json.loads(index.read_text())
    content["weight_map"][name] = shard
    index.write_text(json.dumps(content))


def test_an_index_that_lies_is_refused(sharded_folder: Path, tmp_path: Path) -> None:
    folder = copy_folder(sharded_folder, tmp_path / "model")
    index = folder / INDEX_NAME
    shards = sorted(path.name for path in folder.glob("model-*.safetensors"))
    intact = index.read_text()

    _set_weight(index, "extra.weight", shards[0])
    with pytest.raises(ModelFormatError, match=f"says tensor 'extra.weight' is in {shards[0]}, and it is not"):
        read_folder_headers(folder)

    index.write_text(intact)
    _set_weight(index, "model.norm.weight", "model-9.safetensors")
    with pytest.raises(ModelFormatError, match=f"names the shard model-9.safetensors, and {folder} has no such file"):
        read_folder_headers(folder)

    _set_weight(index, "model.norm.weight", "../other.safetensors")
    with pytest.raises(ModelFormatError, match="'../other.safetensors', which is not a plain file name"):
        read_folder_headers(folder)

    index.write_text(intact)
    (folder / shards[1]).unlink()
    with pytest.raises(ModelFormatError, match=f"names the shard {shards[1]}"):
        read_folder_headers(folder)

    for text in ("{", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": []}}'):
        index.write_text(text)
        with pytest.raises(ModelFormatError, match="is not a weight index"):
            read_folder_headers(folder)
