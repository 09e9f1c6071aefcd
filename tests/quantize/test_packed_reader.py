"""All tensors of a file at once, on a CPU and by the way to a GPU: the bytes that were written, or an error."""

from __future__ import annotations

import hashlib
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from workbench.errors import ModelFormatError
from workbench.quantize import packed_reader
from workbench.quantize.checksum import file_checksum
from workbench.quantize.packed_reader import PackedReader

PIECE_BYTES = 1000  # ends within tensors, and within their numbers


@pytest.fixture(scope="module")
def tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {
        "large": torch.randn(600, 500),
        "half": torch.randn(33, 7).half(),
        "bytes": torch.randint(0, 256, (77,), dtype=torch.uint8),
        "floats": torch.randn(16, 16).to(torch.float8_e4m3fn),
        "number": torch.tensor(3.5),
        "nothing": torch.empty(0, 4),
    }


@pytest.fixture(scope="module")
def path(tensors, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("packed") / "model.safetensors"
    save_file(tensors, path)
    return path


@pytest.fixture(params=["cpu", "gpu"])
def device(request, monkeypatch: pytest.MonkeyPatch) -> str:
    """A GPU is one whose memory is the host's, and whose copies are done at once."""
    if request.param == "gpu":
        stream = SimpleNamespace(synchronize=lambda: None)
        monkeypatch.setattr(PackedReader, "_is_on_cpu", False)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
        monkeypatch.setattr(torch.cuda, "Stream", lambda device: stream)
        monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
        monkeypatch.setattr(packed_reader, "_page_locked", lambda size: torch.empty(size, dtype=torch.uint8))
    return "cpu"


@pytest.mark.parametrize("by_pieces", [True, False])
def test_every_tensor_is_there(path: Path, tensors, device: str, by_pieces: bool) -> None:
    wanted = file_checksum(path, PIECE_BYTES) if by_pieces else hashlib.sha256(path.read_bytes()).hexdigest()
    read_bytes: list[int] = []
    with PackedReader(path, wanted, device) as reader:
        found = reader.tensors(read_bytes.append)
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
        assert found[name].view(-1).view(torch.uint8).tolist() == tensor.view(-1).view(torch.uint8).tolist()
    assert sum(read_bytes) == path.stat().st_size


@pytest.mark.parametrize("at", [20, 2000, -1])
def test_a_changed_byte_is_told(path: Path, tmp_path: Path, device: str, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    damaged = tmp_path / "model.safetensors"
    damaged.write_bytes(content)
    with pytest.raises(ModelFormatError, match="damaged|truncated|header"):
        with PackedReader(damaged, file_checksum(path, PIECE_BYTES), device) as reader:
            reader.tensors()


def test_who_leaves_early_waits_for_no_piece(path: Path, device: str) -> None:
    with pytest.raises(KeyboardInterrupt), PackedReader(path, file_checksum(path, PIECE_BYTES), device):
        raise KeyboardInterrupt


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelFormatError, match="cannot be read: No such file"):
        PackedReader(tmp_path / "model.safetensors", "pieces:16:00", "cpu").__enter__()
