"""The options of a cluster."""

import pytest

from workbench.cli.cluster_settings import ClusterSettings
from workbench.distributed.cluster.config import ClusterConfig
from workbench.errors import ConfigError


def test_what_the_options_mean() -> None:
    assert ClusterSettings().config() is None
    assert ClusterSettings(cluster=True).config() == ClusterConfig()
    given = ClusterSettings(cluster=True, autoscale="1:4", cluster_address="auto", cpus_per_replica=2)
    assert given.config() == ClusterConfig(autoscale=(1, 4), address="auto", cpus_per_replica=2)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (ClusterSettings(replicas=2), "--replicas is about replicas on a cluster: add --cluster"),
        (ClusterSettings(cluster_address="auto"), "--cluster-address is about"),
        (ClusterSettings(cluster=True, autoscale="4"), "write fewest:most, as in 1:4"),
        (ClusterSettings(cluster=True, replicas=2, autoscale="1:4"), "give one of the two"),
        (ClusterSettings(cluster=True, replicas=0), "replicas=0"),
    ],
)
def test_what_makes_no_sense_is_named(settings: ClusterSettings, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        settings.config()
