"""Starts a model's replicas on a Ray cluster and gives a client to them; ends what it started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from workbench.distributed.cluster.application import ReplicaApplication
from workbench.distributed.cluster.config import ClusterConfig
from workbench.distributed.cluster.core import ClusterCore
from workbench.distributed.cluster.ray_session import import_ray, join_ray
from workbench.engine.build import structure_compiler
from workbench.engine.client import EngineClient
from workbench.engine.config import EngineConfig
from workbench.engine.launch import EngineFacts
from workbench.engine.request_plugins import RequestPlugins
from workbench.engine.runner_status import RunnerStatus
from workbench.errors import ModelLoadError
from workbench.models import ModelFiles, Tokenizer
from workbench.models.doors_tokenizer import load_doors_tokenizer
from workbench.models.model_code import import_model_code
from workbench.plugins import PluginManager
from workbench.progress import Progress, ProgressCallback

__all__ = ["StartedCluster", "start_cluster"]

_MOST_QUESTIONS, _LONGEST_ANSWER_S = 6, 20.0


@dataclass(frozen=True)
class StartedCluster:
    """A client to all replicas, the facts of one of them, and what runs them."""

    client: EngineClient
    facts: EngineFacts
    tokenizer: Tokenizer
    runner_status: RunnerStatus
    application: ReplicaApplication


def start_cluster(
    files: ModelFiles,
    config: ClusterConfig,
    options: Mapping[str, Any],
    *,
    engine: EngineConfig,
    plugins: PluginManager,
    progress: ProgressCallback,
) -> StartedCluster:
    """Deploy replicas that open the model with `options` (those of `LlamaGPU`), and wait until they serve.

    `files` are this machine's, for its tokenizer. Raises BackendUnavailableError without Ray or where it cannot be
    reached, and ModelLoadError with a replica's reason; then nothing stays deployed.
    """
    ray = import_ray()
    progress(Progress("start replicas", 0, None, "replicas"))
    join_ray(ray, config)
    application = ReplicaApplication(ray, config, options, engine)
    try:
        deployment = application.deploy(progress)
        facts, words = _ask_facts(deployment)
        # While nothing is asked yet.
        tokenizer = load_doors_tokenizer(files)
        client = _connect(deployment, facts, files, plugins, application)
    except BaseException:
        application.stop()
        raise
    count = f"{config.fewest}" if config.autoscale is None else f"{config.fewest} to {config.most}"
    words = f"{count} replicas on Ray at {ray.get_runtime_context().gcs_address}, each: {words}"
    return StartedCluster(client, _together(facts, config), tokenizer, RunnerStatus(words), application)


def _ask_facts(deployment: Any) -> tuple[EngineFacts, str]:
    """Asked again where no answer comes: a call can be lost when a replica or its machine goes in that moment."""
    for attempt in range(1, _MOST_QUESTIONS + 1):
        try:
            found: tuple[EngineFacts, str] = deployment.facts.remote().result(timeout_s=_LONGEST_ANSWER_S)
            return found
        except TimeoutError as error:
            if attempt == _MOST_QUESTIONS:
                raise ModelLoadError(f"no replica answered within {attempt * _LONGEST_ANSWER_S:.0f} s") from error
    raise AssertionError("unreachable")


def _connect(
    deployment: Any, facts: EngineFacts, files: ModelFiles, plugins: PluginManager, application: ReplicaApplication
) -> EngineClient:
    import_model_code()
    from workbench.models.loader import load_shell

    loaded = load_shell(files, dtype=facts.dtype)
    structures = structure_compiler(loaded.tokenizer, facts.spec.vocab_size, loaded.eos_token_ids)
    return EngineClient(
        lambda emit: ClusterCore(emit, deployment, is_death=_is_death, stop=application.stop),
        max_context=facts.limits.max_context,
        vocab_size=facts.spec.vocab_size,
        structures=structures,
        plugins=RequestPlugins(plugins),
    )


def _is_death(error: BaseException) -> bool:
    from ray import exceptions
    from ray.serve.exceptions import ReplicaUnavailableError

    gone = (
        exceptions.RayActorError,
        exceptions.NodeDiedError,
        exceptions.WorkerCrashedError,
        exceptions.ObjectLostError,
        exceptions.TaskCancelledError,
        exceptions.RpcError,
        ReplicaUnavailableError,
    )
    return isinstance(error, gone)


def _together(facts: EngineFacts, config: ClusterConfig) -> EngineFacts:
    """Of as many replicas as there can be: the doors ask the limits how much may be sent at once."""
    limits = facts.limits
    return replace(
        facts,
        limits=replace(
            limits,
            num_blocks=limits.num_blocks * config.most,
            kv_bytes=limits.kv_bytes * config.most,
            max_num_seqs=limits.max_num_seqs * config.most,
        ),
        weight_bytes=facts.weight_bytes * config.most,
    )
