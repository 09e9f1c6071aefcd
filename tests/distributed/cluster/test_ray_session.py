"""Joining a Ray that is not there."""

from __future__ import annotations

import socket

import pytest

from workbench import LlamaGPU
from workbench.distributed.cluster import ClusterConfig
from workbench.errors import BackendUnavailableError, ConfigError

pytest.importorskip("ray", reason="replicas on a cluster need Ray: pip install '.[cluster]'")


def test_an_address_that_nobody_has_is_refused_at_once() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(BackendUnavailableError, match="no Ray answers there .*ray start --head"):
            LlamaGPU("random:tiny", cluster=ClusterConfig(address=address))


def test_what_is_no_config_is_named() -> None:
    with pytest.raises(ConfigError, match="must be a ClusterConfig"):
        LlamaGPU("random:tiny", cluster="auto")
