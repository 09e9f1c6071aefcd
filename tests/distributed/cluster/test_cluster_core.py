"""Requests to replicas elsewhere: followed past their deaths, aborted, ended. Without Ray, which only carries them."""

from __future__ import annotations

import time

import pytest
from distributed.cluster.scripted_deployment import ReplicaDied, ScriptedDeployment

from workbench.distributed.cluster.core import ClusterCore
from workbench.engine import SamplingParams
from workbench.engine.client import EngineClient
from workbench.errors import ConfigError, EngineStoppedError, InferenceError

_PROMPT = [5, 6, 7]


@pytest.fixture
def deployment() -> ScriptedDeployment:
    return ScriptedDeployment()


@pytest.fixture
def stops() -> list[str]:
    return []


@pytest.fixture
def client(deployment: ScriptedDeployment, stops: list[str]):
    client = EngineClient(
        lambda emit: ClusterCore(
            emit,
            deployment,
            is_death=lambda error: isinstance(error, ReplicaDied),
            stop=lambda: stops.append("stopped"),
        ),
        max_context=64,
        vocab_size=256,
    )
    yield client
    client.stop()


def test_an_answer_comes_through_with_times_of_this_machine(client, deployment) -> None:
    generation = client.submit(_PROMPT, SamplingParams())
    deployment.stream(0).say(*b"ab")
    deployment.stream(0).finish()
    answer = generation.result(60)
    assert (answer.text, answer.finish_reason) == ("ab", "stop")
    # The replica's clock said five thousand million seconds.
    assert 0 < answer.timings.total_s < 60 and 0 < answer.timings.ttft_s < 60
    assert client.stats().requests_total == 5


def test_another_replica_goes_on_behind_what_came(client, deployment) -> None:
    generation = client.submit(_PROMPT, SamplingParams(temperature=1.0, prompt_logprobs=1))
    deployment.stream(0).say(*b"ab")
    deployment.stream(0).fail(ReplicaDied("node lost"))
    second = deployment.stream(1)
    assert second.request.sent_token_ids == tuple(b"ab")
    assert second.request.seed == deployment.streams[0].request.seed
    assert second.request.params.prompt_logprobs is None
    second.say(*b"cd")
    second.finish()
    assert generation.result(60).text == "abcd"


def test_an_engine_that_died_in_a_living_replica_counts_as_dead(client, deployment) -> None:
    from workbench.engine.messages import Chunk
    from workbench.engine.sequence import FinishReason

    generation = client.submit(_PROMPT, SamplingParams())
    first = deployment.stream(0)
    error = EngineStoppedError("its loop died")
    first._put(Chunk(first.request.request_id, 0, finish_reason=FinishReason.ERROR, error=error))
    deployment.stream(1).finish()
    assert generation.result(60).finish_reason == "stop"


def test_what_cannot_be_resumed_ends_with_the_reason(client, deployment) -> None:
    generation = client.submit(_PROMPT, SamplingParams(n=2))
    deployment.stream(0).say(*b"a")
    deployment.stream(0).fail(ReplicaDied("node lost"))
    with pytest.raises(EngineStoppedError, match="node lost; and several answers"):
        generation.results(60)


def test_a_request_under_which_replicas_keep_dying_is_given_up(client, deployment) -> None:
    generation = client.submit(_PROMPT, SamplingParams())
    for number in range(3):
        deployment.stream(number).fail(ReplicaDied("killed"))
    with pytest.raises(EngineStoppedError, match="3 replicas have died under this request; the last: killed"):
        generation.result(60)
    assert client.is_alive


def test_an_error_of_the_model_is_the_requests_own(client, deployment) -> None:
    generation = client.submit(_PROMPT, SamplingParams())
    deployment.stream(0).fail(ZeroDivisionError("surprise"))
    with pytest.raises(InferenceError, match="surprise"):
        generation.result(60)


def test_abort_reaches_the_replica(client, deployment) -> None:
    generation = client.submit(_PROMPT, SamplingParams())
    deployment.stream(0).say(*b"a")
    next(pieces := iter(generation))
    pieces.close()
    assert deployment.stream(0).was_cancelled.wait(60)
    assert generation.result(60).finish_reason == "abort"


def test_stopping_ends_requests_and_the_deployment(client, deployment, stops) -> None:
    generation = client.submit(_PROMPT, SamplingParams())
    deployment.stream(0)
    started_s = time.monotonic()
    client.stop()
    with pytest.raises(EngineStoppedError):
        generation.result(60)
    assert time.monotonic() - started_s < 60
    assert stops == ["stopped"]
    with pytest.raises(EngineStoppedError):
        client.submit(_PROMPT, SamplingParams())


def test_a_profile_is_of_one_engine(client) -> None:
    with pytest.raises(ConfigError, match="without a cluster"):
        client.start_profile()
