"""The native decoder: the logits of the dequantised model, and the same greedy text however a request is run."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from workbench.engine.attention import register_attention
from workbench.engine.client import EngineClient
from workbench.engine.config import EngineConfig, resolve_limits
from workbench.engine.core import EngineCore
from workbench.engine.draft_model import DraftModel
from workbench.engine.engine import Engine
from workbench.engine.native.decoder import NativeDecoder, model_obstacle, native_layers
from workbench.engine.native.runner import NativeRunner
from workbench.engine.native.structs import StepStruct
from workbench.engine.paged_step import KVPool
from workbench.engine.sampling_params import SamplingParams
from workbench.models import load_model

BLOCK_SIZE = 16
PROMPTS = [[(7 * i + n) % 140 + 5 for i in range(n)] for n in (3, 40, 18, 1, 33, 70)]


def _decoder(library, module, *, num_blocks: int = 64, num_threads: int = 2) -> NativeDecoder:
    pool = KVPool(native_layers(module.config), num_blocks, BLOCK_SIZE, module.dtype, "cpu")
    return NativeDecoder(library, module, pool, max_rows=128, max_context=256, num_threads=num_threads)


def _logits(decoder: NativeDecoder, ids: list[int], chunks: list[int]) -> torch.Tensor:
    """Logits of every position [len(ids), vocab], computed chunk by chunk."""
    table = np.arange(-(-len(ids) // BLOCK_SIZE), dtype=np.int32)[::-1].copy()
    parts, begin = [], 0
    for size in chunks:
        arrays = [
            np.asarray(ids[begin : begin + size], dtype=np.int32),
            np.arange(begin, begin + size, dtype=np.int32),
            np.zeros(size, dtype=np.int32),
            table,
            np.arange(size, dtype=np.int32),
        ]
        out, likeliest = torch.empty(size, decoder.vocab_size), np.empty(size, dtype=np.int32)
        addresses = (array.ctypes.data for array in arrays)
        decoder.run(StepStruct(size, size, size == 1, 0, *addresses, out.data_ptr(), likeliest.ctypes.data))
        assert likeliest.tolist() == out.argmax(dim=-1).tolist()
        parts.append(out)
        begin += size
    assert begin == len(ids)
    return torch.cat(parts)


def _small_model(kind: str, dtype: torch.dtype = torch.bfloat16) -> torch.nn.Module:
    import transformers as hf

    torch.manual_seed(0)
    sizes = dict(
        vocab_size=150, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, head_dim=32, max_position_embeddings=256, initializer_range=0.2, pad_token_id=0,
    )  # fmt: skip
    config, model = {
        "llama": (hf.LlamaConfig, hf.LlamaForCausalLM),
        "qwen2": (hf.Qwen2Config, hf.Qwen2ForCausalLM),
        "qwen3": (hf.Qwen3Config, hf.Qwen3ForCausalLM),
        "mistral": (hf.MistralConfig, hf.MistralForCausalLM),
    }[kind]
    extra = {
        "mistral": {"sliding_window": 12},
        "llama": {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True},
    }
    made = config(**sizes, **extra.get(kind, {}))
    module = model(made).eval().requires_grad_(False).to(dtype)
    for name, parameter in module.named_parameters():
        if "norm" in name or name.endswith("bias"):
            parameter.data += torch.rand_like(parameter) * 0.5
    return module


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.04), (torch.float32, 3e-6)])
@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "mistral"])
def test_small_models_have_the_logits_of_their_float_selves(library, kind: str, dtype, tolerance: float) -> None:
    module = _small_model(kind, dtype)
    ids = [(11 * i + 3) % 150 for i in range(50)]
    actual = _logits(_decoder(library, module), ids, [50])
    with torch.inference_mode():
        expected = module.float()(torch.tensor([ids])).logits[0]
    assert (actual - expected).norm() / expected.norm() < tolerance


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_chunks_and_threads_change_no_bit(library, dtype) -> None:
    module = _small_model("qwen3", dtype)
    ids = [(11 * i + 3) % 150 for i in range(60)]
    whole = _logits(_decoder(library, module), ids, [60])
    for chunks in ([1] * 60, [17, 1, 1, 25, 16], [8] * 7 + [4]):
        assert torch.equal(_logits(_decoder(library, module), ids, chunks), whole)
    assert torch.equal(_logits(_decoder(library, module, num_threads=1), ids, [60]), whole)
    assert torch.equal(_logits(_decoder(library, module, num_threads=5), ids, [31, 29]), whole)


def test_other_architectures_and_precisions_are_told_apart() -> None:
    import transformers as hf

    small = dict(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2)
    assert model_obstacle(hf.GPTNeoXForCausalLM(hf.GPTNeoXConfig(**small))).startswith("gpt_neox is not one of")
    llama = hf.LlamaForCausalLM(hf.LlamaConfig(**small, head_dim=32))
    assert "float16" in model_obstacle(llama.half())
    assert model_obstacle(llama.float()) is model_obstacle(llama.bfloat16()) is None
    odd = hf.LlamaForCausalLM(hf.LlamaConfig(**(small | {"hidden_size": 48}), head_dim=32)).bfloat16()
    assert "48" in model_obstacle(odd)


@pytest.fixture(scope="module")
def embedded(embedded_files):
    """The embedded model with its packed weights."""
    return load_model(
        embedded_files, device="cpu", dtype="bf16", attn_implementation=register_attention(), keep_packed=True
    )


def test_the_embedded_model_has_the_logits_of_its_dequantised_file(library, embedded, embedded_model_folder) -> None:
    from transformers import AutoModelForCausalLM

    text = "The sea is wide and the ships are small, and in the harbour of Lisbon, the capital of Portugal, they rest."
    ids = embedded.tokenizer.encode(text)
    actual = _logits(_decoder(library, embedded.module), ids, [len(ids)])
    reference = AutoModelForCausalLM.from_pretrained(embedded_model_folder, dtype=torch.float32)
    with torch.inference_mode():
        expected = reference(torch.tensor([ids])).logits[0]
    # Activations are rounded to 8 bits before each of 211 products, as llama.cpp does.
    assert (actual - expected).norm() / expected.norm() < 0.06
    log_p, log_q = expected.log_softmax(-1), actual.log_softmax(-1)
    assert (log_p.exp() * (log_p - log_q)).sum(-1).mean() < 5e-3
    assert (expected.argmax(-1) == actual.argmax(-1)).float().mean() > 0.9


def _client(library, loaded, *, drafts_itself=False, **knobs) -> EngineClient:
    config = EngineConfig(context_length=256, **({"max_num_batched_tokens": 128} | knobs))
    layers = native_layers(loaded.module.config)
    bytes_per_token = sum(shape.elements_per_token for shape in layers.values()) * 2
    limits = resolve_limits(
        config, on_gpu=False, model_max_context=256, kv_bytes_per_token=bytes_per_token, free_bytes=2**30
    )

    def runner() -> NativeRunner:
        pool = KVPool(layers, limits.num_blocks + 1, limits.block_size, torch.bfloat16, "cpu")
        context = limits.max_context
        decoder = NativeDecoder(library, loaded.module, pool, max_rows=128, max_context=context, num_threads=2)
        return NativeRunner(decoder, limits.max_num_seqs)

    drafting = {}
    if drafts_itself:
        # By a clock for which no step takes time, so that it never rests.
        drafting = {"drafter": DraftModel(runner(), limits, limits.max_context), "clock": lambda: 0.0}
    engine = Engine(
        runner(), limits, decode=lambda ids, _: " ".join(map(str, ids)),
        vocab_size=loaded.spec.vocab_size, eos_token_ids=frozenset(), **drafting,
    )  # fmt: skip

    def connect(emit):
        core = EngineCore(engine, emit)
        core.start()
        return core

    return EngineClient(connect, max_context=limits.max_context, vocab_size=loaded.spec.vocab_size)


def _answers(client: EngineClient, prompts) -> list[tuple[int, ...]]:
    running = [client.submit(prompt, SamplingParams(max_tokens=40, ignore_eos=True)) for prompt in prompts]
    return [generation.result(timeout_s=120).token_ids for generation in running]


def test_greedy_text_is_the_same_however_a_request_is_run(library) -> None:
    small = SimpleNamespace(module=_small_model("llama"), spec=SimpleNamespace(vocab_size=150))
    roomy = _client(library, small)
    alone = [_answers(roomy, [prompt])[0] for prompt in PROMPTS]
    # Now from the prefix cache, all at once.
    assert _answers(roomy, PROMPTS) == alone
    assert roomy.stats().prefix_hit_tokens_total > 0
    roomy.stop()
    chunked = _client(library, small, max_num_batched_tokens=7, enable_prefix_caching=False)
    assert _answers(chunked, PROMPTS) == alone
    chunked.stop()
    tight = _client(library, small, kv_cache_tokens=112, block_size=4, enable_prefix_caching=False)
    assert _answers(tight, PROMPTS) == alone
    assert tight.stats().preemptions_total > 0
    tight.stop()


def test_guesses_change_no_answer(library, embedded) -> None:
    text = "The sea is wide. The ships are small. The sea is wide. The ships are"
    prompts = [embedded.tokenizer.encode(text), *PROMPTS[:3]]
    settings = (
        SamplingParams(max_tokens=24, ignore_eos=True),
        SamplingParams(max_tokens=24, temperature=0.7, seed=5, ignore_eos=True),
    )
    guessers = [_client(library, embedded, draft_tokens=6)]
    guessers.append(_client(library, embedded, draft_tokens=4, drafts_itself=True))
    plain = _client(library, embedded)
    for params in settings:
        expected, *actual = (
            [one.result(timeout_s=120).token_ids for one in [client.submit(prompt, params) for prompt in prompts]]
            for client in (plain, *guessers)
        )
        assert actual == [expected, expected]
    looked_up, drafted = (client.stats() for client in guessers)
    assert 0 < looked_up.accepted_draft_tokens_total <= looked_up.draft_tokens_total
    assert drafted.accepted_draft_tokens_total > 0.9 * drafted.draft_tokens_total > 20
    for client in (plain, *guessers):
        client.stop()
