"""Real models of many families: the paged, batched engine gives what transformers gives, token for token."""

from __future__ import annotations

import pytest
import torch
from engine.tiny_engine import build, engine_around, greedy, logits_of, random_prompt

from workbench.engine.attention import register_attention
from workbench.engine.layer_probe import probe_layers
from workbench.engine.sampling_params import SamplingParams
from workbench.errors import InferenceError, ModelFormatError

FAMILIES = {
    "llama": {},
    "mistral": {"sliding_window": 20},
    "qwen2": {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1},
    "qwen3": {},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
    "gemma2": {"sliding_window": 16, "query_pre_attn_scalar": 16, "attn_logit_softcapping": 5.0},
    "gpt_oss": {"sliding_window": 16, "num_local_experts": 4, "rope_parameters": {"rope_type": "default"}},
    "deepseek_v2": {
        "q_lora_rank": 16,
        "kv_lora_rank": 16,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 16,
        "v_head_dim": 16,
        "num_key_value_heads": 4,
        "first_k_dense_replace": 2,
    },
    "gpt2": {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256},
    "opt": {"ffn_dim": 128, "word_embed_proj_dim": 64},
}
POOLS = {
    "roomy": {},
    "no prefixes, odd chunks": {
        "enable_prefix_caching": False,
        "max_num_batched_tokens": 13,
        "max_prompt_tokens_beside_decodes": 7,
        "block_size": 5,
    },
    "preempting": {"kv_cache_tokens": 128, "block_size": 4},
}
LENGTHS = (1, 5, 17, 33, 90, 40)
NUM_TOKENS = 14


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    """A model, prompts, and the answers of `generate`."""
    module = build(request.param, **FAMILIES[request.param])
    prompts = [random_prompt(length) for length in LENGTHS]
    prompts.append(prompts[-1][:35] + [7, 8])
    return module, prompts, [greedy(module, prompt, NUM_TOKENS) for prompt in prompts]


@pytest.mark.parametrize("pool", POOLS)
def test_greedy_tokens_are_those_of_generate(family, pool):
    module, prompts, expected = family
    params = SamplingParams(max_tokens=NUM_TOKENS)
    with engine_around(module, **POOLS[pool]) as client:
        alone = [list(client.submit(prompt, params).result().token_ids) for prompt in prompts]
        assert alone == expected
        generations = [client.submit(prompt, params) for prompt in prompts + prompts]
        assert [list(generation.result().token_ids) for generation in generations] == expected + expected
        stats = client.stats()
    assert (stats.preemptions_total > 0) == (pool == "preempting")
    assert (stats.prefix_hit_tokens_total > 0) == (pool != "no prefixes, odd chunks")


@pytest.fixture(scope="module")
def llama():
    return build("llama")


def test_logprobs_are_those_of_a_plain_forward(llama):
    prompt = random_prompt(40)
    with engine_around(llama, max_num_batched_tokens=16) as client:
        params = SamplingParams(max_tokens=8, logprobs=True, top_logprobs=4, prompt_logprobs=3)
        beside = [client.submit(random_prompt(n), SamplingParams(max_tokens=20)) for n in (3, 50)]
        answer = client.submit(prompt, params).result()
        [generation.result() for generation in beside]
        # Alone, so that its first chunk chooses nothing.
        scored = client.submit(prompt, SamplingParams(max_tokens=0, prompt_logprobs=0)).result()
    expected = torch.log_softmax(logits_of(llama, [*prompt, *answer.token_ids]), -1)
    assert [answer.prompt_logprobs[0], len(answer.prompt_logprobs)] == [None, 40]
    told = [*answer.prompt_logprobs[1:], *answer.logprobs]
    tokens = [*prompt[1:], *answer.token_ids]
    for position, (entry, token_id) in enumerate(zip(told, tokens, strict=True)):
        top = expected[position].topk(len(entry.top))
        assert entry.token_id == token_id
        assert entry.logprob == pytest.approx(expected[position, token_id].item(), abs=1e-4)
        assert [i for i, _ in entry.top] == top.indices.tolist()
        assert [p for _, p in entry.top] == pytest.approx(top.values.tolist(), abs=1e-4)
    assert [len(entry.top) for entry in told] == [3] * 39 + [4] * 8
    assert [entry.logprob for entry in scored.prompt_logprobs[1:]] == pytest.approx(
        [entry.logprob for entry in answer.prompt_logprobs[1:]], abs=1e-4
    )
    assert (scored.text, scored.token_ids, scored.finish_reason) == ("", (), "length")


def test_a_prompt_of_one_token_is_scored(llama):
    with engine_around(llama) as client:
        assert client.submit([5], SamplingParams(max_tokens=0, prompt_logprobs=1)).result().prompt_logprobs == (None,)


def test_a_scored_prompt_that_was_preempted_is_scored_once(llama):
    prompts = [random_prompt(60, seed) for seed in range(3)]
    params = SamplingParams(max_tokens=30, prompt_logprobs=0)
    with engine_around(llama, kv_cache_tokens=128, block_size=4) as client:
        expected = [client.submit(prompt, params).result() for prompt in prompts]
        answers = [generation.result() for generation in [client.submit(prompt, params) for prompt in prompts]]
        assert client.stats().preemptions_total > 0
    for answer, alone in zip(answers, expected, strict=True):
        assert answer.token_ids == alone.token_ids
        assert [e.logprob for e in answer.prompt_logprobs[1:]] == pytest.approx(
            [e.logprob for e in alone.prompt_logprobs[1:]], abs=1e-4
        )


SAMPLED = {
    "plain": {},
    "filtered": {"top_p": 0.9, "top_k": 40, "min_p": 0.01},
    "penalised": {"repetition_penalty": 1.2, "presence_penalty": 0.5, "frequency_penalty": 0.3},
    "typical": {"typical_p": 0.8},
    "several": {"n": 3},
}


@pytest.mark.parametrize("name", SAMPLED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_same_seed_same_tokens_whatever_else_is_in_the_batch(llama, name, dtype):
    module = build("llama").to(dtype) if dtype is not torch.float32 else llama
    params = SamplingParams(max_tokens=25, temperature=1.0, seed=11, **SAMPLED[name])
    prompt = random_prompt(20)

    def tokens(generation):
        return [answer.token_ids for answer in generation.results()]

    with engine_around(module, kv_cache_tokens=320, block_size=16) as client:
        alone = tokens(client.submit(prompt, params))
        others = [client.submit(random_prompt(n), SamplingParams(max_tokens=40, temperature=1.0)) for n in (3, 60, 9)]
        crowded = tokens(client.submit(prompt, params))
        other_seed = tokens(client.submit(prompt, SamplingParams(max_tokens=25, temperature=1.0, seed=12)))
        [other.result() for other in others]
    assert crowded == alone
    assert len(set(alone)) == len(alone)
    assert other_seed[0] not in alone


def test_what_is_not_a_number_in_one_request_does_not_reach_those_that_use_its_blocks_later():
    module, broken = build("llama"), 5
    module.get_input_embeddings().weight[broken] = float("nan")
    params = SamplingParams(max_tokens=10, logit_bias={broken: -100})
    innocent = [7] * 30
    with engine_around(module, kv_cache_tokens=64) as client:
        expected = client.submit(innocent, params).result().token_ids
        with pytest.raises(InferenceError, match="not a number"):
            client.submit([broken] * 50, params).result()
        assert client.submit(innocent, params).result().token_ids == expected
        assert client.submit([8] * 17, params).result().finish_reason == "length"


@pytest.mark.parametrize(
    "model_type, fields, told",
    [
        ("mamba", {}, "not supported by the paged cache|not keys and values"),
        ("bloom", {"n_layer": 2, "n_head": 4}, "not keys and values"),
        ("stablelm", {}, "does not hand its keywords"),
        ("diffllama", {}, "more than once"),
        ("llama4_text", {"attention_chunk_size": 16, "num_local_experts": 2}, "chunked_attention"),
        (
            "falcon_h1",
            {"mamba_d_ssm": 64, "mamba_n_heads": 4, "mamba_d_head": 16},
            "not supported|outside of attention",
        ),
        ("bert", {"is_decoder": False}, "later tokens"),
    ],
)
def test_what_the_paged_cache_cannot_run_is_refused_in_words(model_type, fields, told):
    module = build(model_type, **fields)
    module.set_attn_implementation(register_attention())
    with pytest.raises(ModelFormatError, match=told):
        probe_layers(module, "cpu")


def test_a_state_outside_of_attention_is_noticed():
    class Leaking(torch.nn.Module):
        """Mixes each token with the one before it, as a convolution does."""

        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, hidden, *args, **options):
            out = self.inner(hidden, *args, **options)
            return out + out.roll(1, dims=1)

    module = build("llama")
    module.model.layers[0].mlp = Leaking(module.model.layers[0].mlp)
    module.set_attn_implementation(register_attention())
    with pytest.raises(ModelFormatError, match="outside of attention"):
        probe_layers(module, "cpu")


def test_a_bias_on_the_scores_is_refused_and_not_left_out():
    module = build("llama")
    attention = module.model.layers[0].self_attn
    inner = attention.forward
    attention.forward = lambda *args, **options: inner(*args, **options, position_bias=torch.zeros(1))
    module.set_attn_implementation(register_attention())
    with pytest.raises(ModelFormatError, match="position_bias"):
        probe_layers(module, "cpu")
