"""Which layers, heads and rows are a rank's own."""

from __future__ import annotations

import pytest

from workbench.distributed import Place, layer_spans, tensor_sizes
from workbench.distributed.place import check_tensor_size, share
from workbench.errors import ConfigError


def test_ranks_are_numbered_stage_by_stage() -> None:
    places = Place.all(num_stages=2, tensor_size=3)
    assert [place.rank for place in places] == list(range(6))
    assert [place.stage for place in places] == [0, 0, 0, 1, 1, 1]
    assert places[4].name == "rank 4 of 6 (stage 1 of 2, tensor rank 1 of 3)"
    assert Place(1, 2, 0, 1).name == "rank 1 of 2 (stage 1 of 2)"
    assert Place(0, 1, 1, 2).name == "rank 1 of 2"


def test_shares_cover_everything_once() -> None:
    spans = [share(10, index, 3) for index in range(3)]
    assert [i for span in spans for i in span] == list(range(10))
    assert {len(span) for span in spans} == {3, 4}


def test_a_size_divides_the_heads_and_deals_out_or_copies_the_kv_heads() -> None:
    assert tensor_sizes(32, 8) == [1, 2, 4, 8, 16, 32]
    assert tensor_sizes(9, 3) == [1, 3, 9]
    # 6 ranks would cut a KV head's queries apart unevenly.
    assert tensor_sizes(12, 4) == [1, 2, 4, 12]


def test_a_size_that_does_not_divide_is_refused_with_those_that_do() -> None:
    with pytest.raises(ConfigError, match=r"tensor_parallel_size=2: SmolLM2 has 9 .* one of 1, 3, 9"):
        check_tensor_size("SmolLM2", 9, 3, 2)


def test_equal_layers_are_dealt_out_evenly() -> None:
    assert layer_spans([1.0] * 8, 4) == [range(0, 2), range(2, 4), range(4, 6), range(6, 8)]


def test_the_last_stage_holds_fewer_layers_where_the_head_is_dear() -> None:
    assert layer_spans([1.0] * 8, 2, last_cost=4.0) == [range(0, 6), range(6, 8)]


def test_every_stage_holds_a_layer_however_dear_the_head_is() -> None:
    assert layer_spans([1.0] * 3, 3, last_cost=99.0) == [range(0, 1), range(1, 2), range(2, 3)]


def test_more_stages_than_layers_are_refused() -> None:
    with pytest.raises(ConfigError, match="pipeline_parallel_size=3: must be from 1 to 2"):
        layer_spans([1.0, 1.0], 3)
