"""No request leaks a block, however it ends; a long prompt lets running streams go on between its chunks."""

from __future__ import annotations

from engine.random_aborts import run_random_aborts
from engine.tiny_engine import build, engine_around, random_prompt

from workbench.engine.sampling_params import SamplingParams


def test_random_requests_and_aborts_leave_the_pool_whole():
    # `engine_around` checks the pool's integrity on the way out.
    with engine_around(build("llama"), kv_cache_tokens=512, max_num_seqs=8, max_num_batched_tokens=64) as client:
        ended = run_random_aborts(client, 300, num_at_once=16)
        stats = client.stats()
    assert ended["abort"] > 50 and ended["length"] > 50
    assert (stats.num_running, stats.num_waiting, stats.kv_blocks_used) == (0, 0, 0)


def test_a_long_prompt_does_not_hold_up_running_streams_between_its_chunks():
    chunk = 16
    with engine_around(build("llama"), max_prompt_tokens_beside_decodes=chunk) as client:
        stream = client.submit(random_prompt(5), SamplingParams(max_tokens=200, ignore_eos=True))
        pieces = iter(stream)
        next(pieces)
        before = client.stats()
        long = client.submit(random_prompt(160), SamplingParams(max_tokens=1))
        long.result(60)
        after = client.stats()
        stream.abort()
        list(pieces)
    steps = after.steps_total - before.steps_total
    # Ten chunks take ten steps at least, and the stream has its token in every one of them.
    assert steps >= 160 // chunk
    assert after.generated_tokens_total - before.generated_tokens_total >= steps
