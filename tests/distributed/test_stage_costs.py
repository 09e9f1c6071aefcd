"""Before a pipeline is cut its parts are timed, on a shell that needs no files of weights."""

from __future__ import annotations

from distributed.group_model import files_of

from workbench.distributed.stage_costs import StageCosts, measure_costs
from workbench.models.loader import load_shell


def test_every_part_of_a_model_is_timed() -> None:
    loaded = load_shell(files_of("random:tiny"), dtype="fp32")
    costs = measure_costs(loaded.module, "cpu")
    # Of the same shapes, they count as equal.
    assert len(costs.layers_s) == loaded.spec.num_layers and len(set(costs.layers_s)) == 1
    assert min(costs.embedding_s, costs.head_s) > 0
    assert [i for span in costs.spans(2) for i in span] == list(range(loaded.spec.num_layers))


def test_ends_take_fewer_layers() -> None:
    costs = StageCosts(layers_s=(0.001,) * 8, embedding_s=0.0, head_s=0.002)
    assert costs.spans(2) == [range(0, 5), range(5, 8)]
    assert StageCosts((0.001,) * 8, embedding_s=0.004, head_s=0.0).spans(2) == [range(0, 2), range(2, 8)]
    assert str(costs) == "a layer takes 1.00 ms, the head 2.00"
