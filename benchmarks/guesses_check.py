"""Whether guessing ahead changes anything: tokens with and without, and the distribution of tokens after guesses.

python benchmarks/guesses_check.py --device cuda
"""

from __future__ import annotations

import argparse
from collections import Counter

import torch

from workbench import EngineConfig, LlamaGPU
from workbench.engine.guess_price import GuessPrice
from workbench.engine.measured_lookup import MeasuredLookup
from workbench.engine.sampling_params import SamplingParams
from workbench.engine.structure import StructureSpec

_SETTINGS: dict[str, dict] = {
    "greedy": {},
    "sampled": {"temperature": 0.7, "top_k": 2, "seed": 1},
    "filtered": {"temperature": 1.0, "top_p": 0.6, "min_p": 0.1, "seed": 2},
    "penalised": {"repetition_penalty": 1.05, "presence_penalty": 0.1, "logprobs": True},
    "few tokens": {"temperature": 1.0, "logit_bias": {7: 60.0, 8: 60.0, 9: 60.0}, "seed": 3},
    "structured": {"structure": StructureSpec("regex", "(ab|ba|cc){12}"), "seed": 4, "ignore_eos": False},
}


class _Nothing(GuessPrice):
    """A price that every guess is worth."""

    def of(self, num_answers: int) -> float:
        return -1.0


def check_texts(device: str, preset: str, tokens: int) -> None:
    """Answers of 1, 2 and 4 streams at once, in float32, with every kind of setting."""
    prompts = [[n + 5 + i % (n + 2) for i in range(20 + 9 * n)] for n in range(4)]

    def answers(llm: LlamaGPU, settings: dict) -> list:
        found = []
        for streams in (1, 2, 4):
            options = {"max_tokens": tokens, "ignore_eos": True, **settings}
            running = [llm.submit(prompt, **options) for prompt in prompts[:streams]]
            found += [generation.result().token_ids for generation in running]
        return found

    def load(draft_tokens: int) -> LlamaGPU:
        config = EngineConfig(draft_tokens=draft_tokens, kv_cache_tokens=8192, max_num_seqs=8, isolation="thread")
        return LlamaGPU(f"random:{preset}", backend=device, quant_type="fp32", engine=config, check_plan=False)

    with load(0) as plain, load(7) as guessing:
        drafter = guessing._client._core._engine.scheduler.drafter
        if isinstance(drafter, MeasuredLookup):
            drafter._price = _Nothing()
        for name, settings in _SETTINGS.items():
            try:
                expected, found = answers(plain, settings), answers(guessing, settings)
            except Exception as error:  # the other settings are worth a look all the same
                print(preset, name, "FAILED", repr(error), flush=True)
                continue
            same = sum(one == other for one, other in zip(expected, found, strict=True))
            stats = guessing.stats()
            right = f"{stats.accepted_draft_tokens_total} of {stats.draft_tokens_total} guesses right so far"
            print(f"{preset}, {name}: {same} of {len(found)} answers the same; {right}", flush=True)


def check_distribution(device: str, num_draws: int) -> None:
    """Three tokens after a prompt in which every pair came before, drawn with many seeds, against what the model's own
    forward in float32 on the CPU says: chi-square over all 512 outcomes of a vocabulary of 8."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(
        vocab_size=8, num_key_value_heads=2, head_dim=16, initializer_range=0.15, max_position_embeddings=512,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, tie_word_embeddings=False, **shape,
    )  # fmt: skip
    module = LlamaForCausalLM(config).eval()
    # Each of the 64 pairs, one after the other.
    prompt = [token for one in range(8) for other in range(8) for token in (one, other)]
    firsts = torch.cartesian_prod(torch.arange(8), torch.arange(8))
    ids = torch.cat((torch.tensor([prompt]).repeat(64, 1), firsts), dim=1)
    with torch.inference_mode():
        chances = torch.softmax(module(ids).logits[:, -3:].double(), -1)
    each = chances[torch.arange(64), 0, firsts[:, 0]] * chances[torch.arange(64), 1, firsts[:, 1]]
    expected = each[:, None] * chances[:, 2] * num_draws
    client = _client(module, device)
    drawn: Counter = Counter()
    for begin in range(0, num_draws, 200):
        params = [
            SamplingParams(max_tokens=3, temperature=1.0, ignore_eos=True, seed=seed)
            for seed in range(begin, begin + 200)
        ]
        running = [client.submit(prompt, one) for one in params]
        drawn.update(generation.result(120).token_ids for generation in running)
    stats = client.stats()
    client.stop()
    counts = torch.tensor(
        [[drawn[int(one), int(other), last] for last in range(8)] for one, other in firsts], dtype=torch.float64
    )
    often = expected > 5
    chi_square = float(((counts - expected) ** 2 / expected)[often].sum())
    freedom = int(often.sum())
    print(
        f"distribution: chi-square {chi_square:.0f} over {freedom} outcomes (its mean {freedom}, its deviation "
        f"{(2 * freedom) ** 0.5:.0f}), {num_draws} draws; {stats.accepted_draft_tokens_total} of "
        f"{stats.draft_tokens_total} guesses right",
        flush=True,
    )


def _client(module, device: str):
    """A client to an engine that guesses whenever it can."""
    from workbench.engine.attention import register_attention
    from workbench.engine.client import EngineClient
    from workbench.engine.config import resolve_limits
    from workbench.engine.core import EngineCore
    from workbench.engine.engine import Engine
    from workbench.engine.layer_probe import probe_layers
    from workbench.engine.paged_step import KVPool
    from workbench.engine.runner_choice import plan_runner

    module.set_attn_implementation(register_attention())
    module = module.to(device)
    layers = probe_layers(module, device)
    limits = resolve_limits(
        EngineConfig(kv_cache_tokens=8192, max_num_seqs=4, draft_tokens=3),
        on_gpu=device == "cuda",
        model_max_context=512,
        kv_bytes_per_token=sum(shape.elements_per_token for shape in layers.values()) * 4,
        free_bytes=2**30,
    )
    pool = KVPool(layers, limits.num_blocks + 1, limits.block_size, torch.float32, device)
    runner = plan_runner(module, layers, device).build(pool, limits, native_kernels=False).runner
    engine = Engine(
        runner, limits, decode=lambda ids, skip: "", vocab_size=8, eos_token_ids=frozenset(),
        drafter=MeasuredLookup(3, _Nothing()),
    )  # fmt: skip

    def connect(emit):
        core = EngineCore(engine, emit)
        core.start()
        return core

    return EngineClient(connect, max_context=512, vocab_size=8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--presets", default="tiny,tiny-qwen3,tiny-mistral,tiny-gemma2")
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--draws", type=int, default=20_000)
    arguments = parser.parse_args()
    check_distribution(arguments.device, arguments.draws)
    for preset in arguments.presets.split(","):
        check_texts(arguments.device, preset, arguments.tokens)


if __name__ == "__main__":
    main()
