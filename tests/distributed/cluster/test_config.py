"""How many replicas, and what each takes."""

from __future__ import annotations

import pytest

from workbench.distributed.cluster import ClusterConfig
from workbench.errors import ConfigError


def test_bounds() -> None:
    assert (ClusterConfig(replicas=3).fewest, ClusterConfig(replicas=3).most) == (3, 3)
    scaled = ClusterConfig(autoscale=(1, 4))
    assert (scaled.fewest, scaled.most) == (1, 4)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"replicas": 0}, "replicas=0: must be an integer of at least 1"),
        ({"autoscale": (3, 2)}, "autoscale="),
        ({"replicas": 2, "autoscale": (1, 2)}, "give one of the two"),
        ({"gpus_per_replica": 2}, "runs on one GPU"),
        ({"autoscale": 4}, "autoscale=4: must be"),
    ],
)
def test_what_makes_no_sense_is_named(settings, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        ClusterConfig(**settings)
