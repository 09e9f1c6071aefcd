"""Starts a model's replicas on a Ray cluster and gives a client to them; ends what it started."""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from workbench.distributed.cluster.config import ClusterConfig
from workbench.distributed.cluster.core import ClusterCore
from workbench.distributed.cluster.deployment_status import DeploymentStatus
from workbench.distributed.cluster.replica import EngineReplica
from workbench.engine.build import structure_compiler
from workbench.engine.client import EngineClient
from workbench.engine.config import EngineConfig
from workbench.engine.launch import EngineFacts
from workbench.engine.request_plugins import RequestPlugins
from workbench.engine.runner_status import RunnerStatus
from workbench.errors import BackendUnavailableError, ModelLoadError
from workbench.models import ModelFiles, Tokenizer
from workbench.models.doors_tokenizer import load_doors_tokenizer
from workbench.models.model_code import import_model_code
from workbench.plugins import PluginManager
from workbench.progress import Progress, ProgressCallback

__all__ = ["StartedCluster", "start_cluster"]

_log = logging.getLogger(__name__)

_DEPLOYMENT = "engine"
_NAMESPACE = "workbench"
# Sequences that a replica computes at once where the engine's settings do not say.
_ASSUMED_BATCH = 32
_UPSCALE_DELAY_S, _DOWNSCALE_DELAY_S = 5.0, 60.0
# Running requests may take that long to end before a replica that is no longer wanted is killed.
_DRAIN_S = 120.0
_HEALTH_PERIOD_S, _HEALTH_LIMIT_S = 2.0, 30.0
# A replica whose model cannot be loaded fails at once and for good, not after a dozen attempts.
_MOST_STARTS = 1
_MOST_RAY_STARTS = 3


@dataclass(frozen=True)
class StartedCluster:
    """A client to all replicas, the facts of one of them, and how many of them run."""

    client: EngineClient
    facts: EngineFacts
    tokenizer: Tokenizer
    runner_status: RunnerStatus
    status: DeploymentStatus


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
    ray = _import_ray()
    progress(Progress("start replicas", 0, None, "replicas"))
    owns_ray = _join(ray, config)
    name = f"workbench-{uuid.uuid4().hex[:8]}"
    stop = _Stop(name, owns_ray)
    try:
        deployment = _deploy(ray, name, config, dict(options), engine)
        facts, words = deployment.facts.remote().result()
        # While nothing is asked yet.
        tokenizer = load_doors_tokenizer(files)
        status = DeploymentStatus(name, _DEPLOYMENT, config)
        client = _connect(deployment, facts, files, plugins, stop)
    except BaseException:
        stop()
        raise
    count = f"{config.fewest}" if config.autoscale is None else f"{config.fewest} to {config.most}"
    words = f"{count} replicas on Ray at {ray.get_runtime_context().gcs_address}, each: {words}"
    return StartedCluster(client, _together(facts, config), tokenizer, RunnerStatus(words), status)


def _import_ray() -> Any:
    # It would report to its makers that it is used.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        from ray import serve  # noqa: F401
    except ImportError as error:
        reason = f"replicas on a cluster need Ray: pip install 'llm-workbench[cluster]' ({error})"
        raise BackendUnavailableError(reason) from error
    return ray


def _join(ray: Any, config: ClusterConfig) -> bool:
    """Connect this process; whether a Ray was started for it."""
    if ray.is_initialized():
        return False
    options = {"namespace": _NAMESPACE, "logging_level": logging.WARNING, "log_to_driver": False}
    if config.address is None:
        _start_here(ray, options)
        return True
    try:
        ray.init(address=config.address, **options)
    except ConnectionError as error:
        raise BackendUnavailableError(
            f"address={config.address!r}: no Ray answers there ({error}); start one with `ray start --head`"
        ) from error
    return False


def _start_here(ray: Any, options: dict[str, Any]) -> None:
    """Ray gives its own processes 15 seconds to start, which a busy machine exceeds; with warm files it does not."""
    for attempt in range(1, _MOST_RAY_STARTS + 1):
        try:
            ray.init(include_dashboard=False, **options)
            return
        except Exception as error:  # what a start that timed out raises is no more than that
            ray.shutdown()
            if attempt == _MOST_RAY_STARTS:
                raise BackendUnavailableError(f"Ray could not be started on this machine: {error}") from error
            _log.warning("Ray did not start (%s): trying again", error)


def _deploy(ray: Any, name: str, config: ClusterConfig, options: dict[str, Any], engine: EngineConfig) -> Any:
    from ray import serve

    num_gpus = config.gpus_per_replica
    if num_gpus is None:
        num_gpus = int(ray.cluster_resources().get("GPU", 0) > 0)
    if not num_gpus and engine.num_threads is None:
        engine = replace(engine, num_threads=config.cpus_per_replica)
    batch = engine.max_num_seqs or _ASSUMED_BATCH
    scale: dict[str, Any] = {"num_replicas": config.replicas}
    if config.autoscale is not None:
        scale = {
            "autoscaling_config": {
                "min_replicas": config.fewest,
                "max_replicas": config.most,
                # Requests that run or wait for one, per replica: at more than a half full batch another one comes.
                "target_ongoing_requests": max(1, batch // 2),
                "upscale_delay_s": _UPSCALE_DELAY_S,
                "downscale_delay_s": _DOWNSCALE_DELAY_S,
            }
        }
    serve.start(proxy_location="Disabled")
    deployment = serve.deployment(
        EngineReplica,
        name=_DEPLOYMENT,
        ray_actor_options={"num_cpus": config.cpus_per_replica, "num_gpus": num_gpus},
        # The rest waits at the callers, where autoscaling counts it and a new replica can take it.
        max_ongoing_requests=batch + max(1, batch // 4),
        graceful_shutdown_timeout_s=_DRAIN_S,
        health_check_period_s=_HEALTH_PERIOD_S,
        health_check_timeout_s=_HEALTH_LIMIT_S,
        max_constructor_retry_count=_MOST_STARTS,
        **scale,
    )
    try:
        return serve.run(deployment.bind({**options, "engine": engine}), name=name, route_prefix=None)
    except RuntimeError as error:
        reason = _status_message(serve, name) or str(error)
        raise ModelLoadError(f"the replicas could not be started: {reason}") from error


def _status_message(serve: Any, name: str) -> str | None:
    """Why an application does not run, as its replicas said it last."""
    application = serve.status().applications.get(name)
    if application is None:
        return None
    words = [d.message for d in application.deployments.values() if d.message] or [application.message]
    lines = [line for line in words[0].splitlines() if line.strip()]
    return lines[-1].strip() if lines else None


def _connect(
    deployment: Any, facts: EngineFacts, files: ModelFiles, plugins: PluginManager, stop: Callable[[], None]
) -> EngineClient:
    import_model_code()
    from workbench.models.loader import load_shell

    loaded = load_shell(files, dtype=facts.dtype)
    structures = structure_compiler(loaded.tokenizer, facts.spec.vocab_size, loaded.eos_token_ids)
    return EngineClient(
        lambda emit: ClusterCore(emit, deployment, is_death=_is_death, stop=stop),
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


class _Stop:
    """Takes a deployment down, and the Ray that was started for it."""

    def __init__(self, name: str, owns_ray: bool) -> None:
        self._name = name
        self._owns_ray = owns_ray

    def __call__(self) -> None:
        import ray
        from ray import serve

        if not ray.is_initialized():
            return
        if self._owns_ray:
            serve.shutdown()
            ray.shutdown()
        else:
            serve.delete(self._name)
