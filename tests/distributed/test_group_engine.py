"""A model over several processes says what it says in one, in that share of the memory, and ends as a whole."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from distributed.group_model import PROMPTS, Said, answers, files_of, said_by, save_model, scores, start

from workbench.distributed.nursery import RankNursery
from workbench.distributed.stage_costs import StageCosts
from workbench.distributed.start import StartedGroup
from workbench.engine import SamplingParams
from workbench.errors import ConfigError, EngineStoppedError


@contextmanager
def _running(*arguments, **options):
    group = start(*arguments, **options)
    try:
        yield group
    finally:
        group.client.stop()


def _assert_says_the_same(group: StartedGroup, one: Said, num_tokens: int = 12) -> None:
    assert answers(group.client, num_tokens) == one.answers
    assert torch.allclose(scores(group.client), one.scores, atol=1e-4)
    assert sum(rank.weight_bytes for rank in group.built.ranks) < 1.1 * one.weight_bytes


def _assert_holds_equal_shares(group: StartedGroup, one: Said) -> None:
    share = one.weight_bytes / len(group.built.ranks)
    assert [rank.weight_bytes for rank in group.built.ranks] == pytest.approx([share] * len(group.built.ranks), rel=0.1)


def _kill_one_under_load(group: StartedGroup, rank: int) -> None:
    """All requests end in an error that names the rank, and no process stays. How soon, docs/performance.md says."""
    client = group.client
    generations = [client.submit(prompt, SamplingParams(max_tokens=400, ignore_eos=True)) for prompt in PROMPTS]
    next(iter(generations[0]))
    os.kill(group.built.ranks[rank].process_id, signal.SIGKILL)
    for generation in generations[1:]:
        with pytest.raises(EngineStoppedError, match=r"was killed \(SIGKILL\)") as raised:
            generation.result(60)
        assert raised.value.ended_process.startswith(f"{group.built.ranks[rank].place.name} was killed (SIGKILL)")
    assert not client.is_alive
    for figures in group.built.ranks:
        with pytest.raises(ProcessLookupError):
            os.kill(figures.process_id, 0)


def test_four_tensor_ranks_share_heads_cache_and_vocabulary(tmp_path: Path, nursery: RankNursery) -> None:
    model = save_model(tmp_path / "model", "qwen2")  # its projections have biases
    with _running(files_of(model), nursery, tensor_size=4) as group:
        _assert_says_the_same(group, said_by(str(model)))
        assert len({rank.kv_bytes for rank in group.built.ranks}) == 1
        assert sum(rank.kv_bytes for rank in group.built.ranks) == pytest.approx(group.built.limits.kv_bytes, rel=0.01)
        whole = sum(rank.weight_bytes for rank in group.built.ranks)
        assert all(rank.weight_bytes == pytest.approx(whole / 4, rel=0.02) for rank in group.built.ranks)
        _kill_one_under_load(group, 2)


def test_two_stages_compute_several_batches_at_once(tmp_path: Path, nursery: RankNursery) -> None:
    model = save_model(tmp_path / "model", "llama", num_hidden_layers=4)
    with _running(files_of(model), nursery, num_stages=2) as group:
        _assert_says_the_same(group, said_by(str(model)))
        whole = sum(rank.weight_bytes for rank in group.built.ranks)
        assert all(rank.weight_bytes == pytest.approx(whole / 2, rel=0.25) for rank in group.built.ranks)
        assert all(rank.kv_bytes < 0.8 * group.built.limits.kv_bytes for rank in group.built.ranks)
        assert group.built.runner.num_lanes == 4
        assert 0 < group.built.runner.figures.bubble_share < 1
        _kill_one_under_load(group, 0)


def test_stages_of_tensor_ranks_keep_windows_soft_caps_and_tied_vocabulary(
    tmp_path: Path, nursery: RankNursery
) -> None:
    fields = {"sliding_window": 16, "query_pre_attn_scalar": 16, "tie_word_embeddings": True}
    model = save_model(tmp_path / "model", "gemma2", num_hidden_layers=3, **fields)
    # The table that both ends need is two thirds of a layer.
    spans = [range(2), range(2, 3)]
    with _running(files_of(model), nursery, tensor_size=2, num_stages=2, spans=spans) as group:
        one = said_by(str(model))
        assert answers(group.client) == one.answers
        _assert_holds_equal_shares(group, one)


def test_sizes_that_do_not_divide_are_refused_before_a_process_starts(tmp_path: Path, nursery: RankNursery) -> None:
    model = save_model(tmp_path / "model", "llama")
    with pytest.raises(ConfigError, match=r"must be one of 1, 2, 4, 8"):
        start(files_of(model), nursery, tensor_size=3)
    with pytest.raises(ConfigError, match=r"from 1 to 2, the number of layers"):
        start(files_of(model), nursery, num_stages=3)


# What measuring a step finds on a processor: a head is as dear as some ten of the thirty layers.
_COSTS = StageCosts(layers_s=(0.0029,) * 30, embedding_s=0.0, head_s=0.028)


@pytest.mark.parametrize(
    "sizes",
    [{"tensor_size": 3}, {"num_stages": 4}],
    ids=["three ranks", "four stages"],
)
def test_the_embedded_model(
    sizes: dict[str, int], home_with_embedded_model: Path, embedded_alone: Said, nursery: RankNursery
) -> None:
    spans = _COSTS.spans(sizes["num_stages"]) if "num_stages" in sizes else None
    with _running(files_of("default"), nursery, **sizes, spans=spans) as group:
        _assert_says_the_same(group, embedded_alone, num_tokens=6)
        _assert_holds_equal_shares(group, embedded_alone)
