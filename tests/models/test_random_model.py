import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from workbench.errors import LoadCancelled, ModelNotFoundError
from workbench.models import Catalogue, ModelSpec, load_model
from workbench.models.byte_tokenizer import make_byte_tokenizer
from workbench.models.presets import PRESETS, get_preset
from workbench.models.random_model import make_random_model, preset_config
from workbench.progress import Progress
from workbench.shell import build_shell, place, restore_buffers

_TINY = [name for name in PRESETS if name.startswith("tiny")]
# Parameters as the models' authors publish them, in thousands.
_PUBLISHED = {
    "smollm2-135m": 134_515,
    "smollm2-360m": 361_821,
    "smollm2-1.7b": 1_711_376,
    "llama-3.2-1b": 1_235_814,
    "llama-3.2-3b": 3_212_750,
    "llama-3.1-8b": 8_030_261,
    "llama-3.1-70b": 70_553_706,
    "qwen3-0.6b": 596_050,
    "qwen3-4b": 4_022_468,
    "qwen3-8b": 8_190_735,
    "mistral-7b": 7_248_024,
    "gemma-2-2b": 2_614_342,
}


def _tensors(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return dict([*module.named_parameters(), *module.named_buffers()])


@pytest.mark.parametrize("preset", sorted(PRESETS.keys() - set(_TINY)))
def test_a_preset_has_the_size_of_the_model_it_is_named_after(preset: str) -> None:
    shell = build_shell(preset_config(preset, make_byte_tokenizer(512)), torch.bfloat16, None)

    assert round(sum(parameter.numel() for parameter in shell.parameters()) / 1000) == _PUBLISHED[preset]


@pytest.mark.parametrize("preset", _TINY)
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_norms_and_tables_are_those_of_a_fresh_model(preset: str, dtype: str) -> None:
    made = make_random_model(preset, device="cpu", dtype=dtype)
    fresh = AutoModelForCausalLM.from_config(made.module.config, dtype=made.module.dtype)

    ours, theirs = _tensors(made.module), _tensors(fresh)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert tensor.dtype == theirs[name].dtype, name
        if tensor.dim() < 2:
            assert torch.equal(tensor, theirs[name]), name
        else:
            assert tensor.float().std().item() == pytest.approx(0.2, rel=0.1), name
    assert made.module(torch.tensor([[5, 6, 7]])).logits.isfinite().all()


def test_a_scaled_rotation_is_computed_not_drawn() -> None:
    fields = {**get_preset("llama-3.1-8b").fields, "num_hidden_layers": 1, "hidden_size": 64, "intermediate_size": 64}
    fields |= {"num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 300}
    config = AutoConfig.for_model("llama", **fields)
    shell = build_shell(config, torch.float32, None)
    for name, parameter in dict(shell.named_parameters()).items():
        place(shell, name, torch.zeros(parameter.shape))
    restore_buffers(shell, "cpu")

    expected = AutoModelForCausalLM.from_config(config).model.rotary_emb
    assert torch.equal(shell.model.rotary_emb.inv_freq, expected.inv_freq)
    assert torch.equal(shell.model.rotary_emb.original_inv_freq, expected.original_inv_freq)
    assert all(not parameter.any() for parameter in shell.parameters())


def test_the_seed_decides() -> None:
    def weights(seed: int) -> torch.Tensor:
        return make_random_model("tiny", device="cpu", dtype="fp32", seed=seed).module.lm_head.weight

    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    first = weights(3)
    assert torch.equal(torch.random.get_rng_state(), state), "the global generator is the user's"
    torch.manual_seed(2)

    assert torch.equal(first, weights(3))
    assert not torch.equal(first, weights(4))


@pytest.mark.parametrize("preset", _TINY)
def test_it_loads_by_name_and_speaks(preset: str) -> None:
    loaded = load_model(Catalogue().resolve(f"random:{preset}"), device="cpu", dtype="fp32")

    assert loaded.spec.vocab_size == loaded.tokenizer.vocab_size == 512
    assert loaded.files.path is None
    assert loaded.eos_token_ids == {2}
    assert loaded.spec.tied_embeddings == (preset == "tiny-tied")
    assert not any(parameter.requires_grad for parameter in loaded.module.parameters())
    assert loaded.spec.num_parameters == sum(parameter.numel() for parameter in loaded.module.parameters())


def test_windows_and_caps_reach_the_model() -> None:
    mistral = load_model(Catalogue().resolve("random:tiny-mistral"), device="cpu", dtype="fp32")
    gemma = load_model(Catalogue().resolve("random:tiny-gemma2"), device="cpu", dtype="fp32")

    assert mistral.spec.sliding_window == gemma.spec.sliding_window == 32
    assert gemma.spec.layer_types == ("sliding_attention", "full_attention")
    assert gemma.module.config.attn_logit_softcapping == 50.0


def test_a_preset_has_a_spec_without_weights() -> None:
    spec = ModelSpec.from_config(get_preset("llama-3.1-8b").config_fields())

    assert (spec.num_layers, spec.num_kv_heads, spec.head_dim, spec.max_context) == (32, 8, 128, 131_072)


def test_an_unknown_preset_lists_the_known_ones() -> None:
    with pytest.raises(ModelNotFoundError, match="no preset is called 'llama-9b'; .*: tiny, .*llama-3.1-8b"):
        Catalogue().resolve("random:llama-9b")


def test_it_can_be_cancelled() -> None:
    def cancel(progress: Progress) -> None:
        if progress.completed > progress.total / 2:
            raise LoadCancelled("stop")

    with pytest.raises(LoadCancelled):
        load_model(Catalogue().resolve("random:tiny"), device="cpu", dtype="fp32", progress=cancel)
