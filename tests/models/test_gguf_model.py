import os
from pathlib import Path

import gguf
import pytest
import torch
from tiny_gguf import CHAT_TEMPLATE, HEAD_DIM, NUM_HEADS, NUM_KV_HEADS, write_tiny_gguf

from workbench.errors import LoadCancelled, ModelFormatError, OutOfMemoryError
from workbench.models import Catalogue, LoadedModel, load_model
from workbench.models.gguf_header import read_gguf_header
from workbench.models.gguf_model import gguf_folder
from workbench.paths import models_cache
from workbench.progress import Progress


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, LoadedModel]:
    """The file and the model made from it: one conversion for all tests that only look."""
    home = tmp_path_factory.mktemp("home")
    path = write_tiny_gguf(home / "tiny model.gguf")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_HOME", str(home))
        return path, load_model(Catalogue().resolve(path), device="cpu", dtype="fp32")


def _half_rotated(weight: torch.Tensor, num_heads: int) -> torch.Tensor:
    """llama.cpp pairs neighbouring rows of a head for the rotation; transformers pairs row i with row i + half."""
    pairs = weight.view(num_heads, HEAD_DIM // 2, 2, -1)
    return pairs.transpose(1, 2).reshape(weight.shape)


def test_every_weight_is_the_unpacked_one_to_the_last_bit(converted: tuple[Path, LoadedModel]) -> None:
    path, loaded = converted
    packed = {
        tensor.name: torch.from_numpy(gguf.dequantize(tensor.data, tensor.tensor_type).copy())
        for tensor in gguf.GGUFReader(path).tensors
    }
    names = {
        "attn_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm",
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    }
    weights = loaded.module.state_dict()
    for layer in range(2):
        for theirs, ours in names.items():
            expected = packed[f"blk.{layer}.{theirs}.weight"]
            if theirs in ("attn_q", "attn_k"):
                expected = _half_rotated(expected, NUM_HEADS if theirs == "attn_q" else NUM_KV_HEADS)
            assert torch.equal(weights[f"model.layers.{layer}.{ours}.weight"], expected), (layer, ours)
    assert torch.equal(weights["model.embed_tokens.weight"], packed["token_embd.weight"])
    assert loaded.spec.tied_embeddings


def test_tokenizer_template_and_context_come_along(converted: tuple[Path, LoadedModel]) -> None:
    path, loaded = converted

    assert loaded.tokenizer.hf.chat_template == CHAT_TEMPLATE
    assert [loaded.tokenizer.id_to_token(i) for i in loaded.eos_token_ids] == ["<e>"]
    assert [loaded.tokenizer.id_to_token(i) for i in loaded.tokenizer.encode("a  7")] == ["a", "\u0120\u0120", "7"]
    assert loaded.spec.max_context == 256
    assert loaded.files.gguf_path == path
    assert loaded.files.name == "tiny model"


def test_a_file_is_converted_once_until_it_changes(
    converted: tuple[Path, LoadedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, loaded = converted
    monkeypatch.setenv("WORKBENCH_HOME", str(path.parent))
    seen: list[Progress] = []

    assert Catalogue().path(path, seen.append) == loaded.files.path
    assert seen == []
    (entry,) = [entry for entry in Catalogue().list() if entry.kind == "gguf"]
    assert (entry.name, entry.ready, entry.path) == (str(path), True, loaded.files.path)
    assert entry.size_bytes > loaded.weight_bytes

    os.utime(path, ns=(0, 0))
    assert not gguf_folder(path).is_ready()


def test_a_conversion_can_be_removed_when_its_file_is_gone(tmp_path: Path) -> None:
    folder = gguf_folder(tmp_path / "gone.gguf")
    folder.ensure(lambda temporary: (temporary / "weights").write_bytes(b"x" * 1000))

    assert Catalogue().remove(tmp_path / "gone.gguf") > 1000
    assert not folder.path.exists()


def test_cancelling_a_conversion_leaves_nothing(tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "tiny.gguf")

    def cancel(progress: Progress) -> None:
        raise LoadCancelled("stop")

    with pytest.raises(LoadCancelled):
        Catalogue().resolve(path, progress=cancel)

    assert [file for file in models_cache().rglob("*") if file.is_file() and file.suffix != ".lock"] == []


def test_an_architecture_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "odd.gguf"
    writer = gguf.GGUFWriter(path, "no-such-family")
    writer.add_context_length(8)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    with pytest.raises(ModelFormatError, match="odd.gguf could not be converted .*no-such-family"):
        Catalogue().resolve(path)


def test_weights_beyond_the_memory_are_refused_before_the_conversion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_tiny_gguf(tmp_path / "tiny.gguf")

    def refuse(needed_bytes: int, device: str, dtype: str) -> None:
        raise OutOfMemoryError("too large", needed_bytes=needed_bytes)

    monkeypatch.setattr("workbench.models.gguf_model.check_memory", refuse)

    with pytest.raises(OutOfMemoryError) as caught:
        Catalogue().resolve(path)

    assert caught.value.needed_bytes == 4 * read_gguf_header(path).num_parameters
