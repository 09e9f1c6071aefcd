"""`ReplicaApplication`: one model's replicas on Ray Serve, from the first to the last of them."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from workbench.distributed.cluster.config import ClusterConfig
from workbench.distributed.cluster.deployment_status import DeploymentStatus
from workbench.distributed.cluster.ray_session import leave_ray
from workbench.distributed.cluster.replica import EngineReplica
from workbench.engine.config import EngineConfig
from workbench.errors import ModelLoadError
from workbench.progress import Progress, ProgressCallback

__all__ = ["ReplicaApplication"]

_DEPLOYMENT = "engine"
# Sequences that a replica computes at once where the engine's settings do not say.
_ASSUMED_BATCH = 32
_UPSCALE_DELAY_S, _DOWNSCALE_DELAY_S = 5.0, 60.0
# Running requests may take that long to end before a replica that is no longer wanted is killed.
_DRAIN_S = 120.0
_HEALTH_PERIOD_S, _HEALTH_LIMIT_S = 2.0, 30.0
# A replica whose model cannot be loaded fails at once and for good, not after a dozen attempts.
_MOST_STARTS = 1
_LOOK_EVERY_S = 0.25
# Where some replicas serve, the others are waited for while they come; after that they come behind the scenes.
_PATIENCE_S = 15.0
# Ray finds room at once or, where it has to start machines, in minutes.
_ROOM_SEARCH_S = 2.0


class ReplicaApplication:
    """Replicas that open a model with `options` (those of `LlamaGPU`). Every method blocks."""

    def __init__(self, ray: Any, config: ClusterConfig, options: Mapping[str, Any], engine: EngineConfig) -> None:
        self.name = f"workbench-{uuid.uuid4().hex[:8]}"
        self._status = DeploymentStatus(self.name, _DEPLOYMENT, config)
        self._ray = ray
        self._config = config
        num_gpus = config.gpus_per_replica
        if num_gpus is None:
            num_gpus = int(ray.cluster_resources().get("GPU", 0) > 0)
        if not num_gpus and engine.num_threads is None:
            engine = replace(engine, num_threads=config.cpus_per_replica)
        self._needs = {"num_cpus": config.cpus_per_replica, "num_gpus": num_gpus}
        self._batch = engine.max_num_seqs or _ASSUMED_BATCH
        self._arguments = {**options, "engine": engine}
        self._handle: Any = None

    @property
    def degraded_reason(self) -> str | None:
        """See DeploymentStatus."""
        return self._status.degraded_reason

    def replica_counts(self) -> dict[str, int]:
        """See DeploymentStatus."""
        return self._status.replica_counts()

    def deploy(self, progress: ProgressCallback) -> Any:
        """Start the replicas; their handle, once the first serves and the others had their time.

        Raises ModelLoadError with a replica's reason, or with what is missing where none finds room in time.
        """
        serve = self._ray.serve
        serve.start(proxy_location="Disabled")
        self._send(self._config.fewest, self._config.most)
        self._wait(progress)
        self._handle = serve.get_app_handle(self.name)
        return self._handle

    def make_room(self) -> bool:
        """See that a replica of another application finds room beside these: one of several ends where all is full.

        False where only the end of this application would make any.
        """
        if self._has_room():
            return True
        running = self._status.num_running
        if running < 2:
            return False
        self._send(min(self._config.fewest, running - 1), running - 1)
        deadline_s = time.monotonic() + _DRAIN_S
        while time.monotonic() < deadline_s:
            if self._has_room():
                return True
        return False

    def reclaim_room(self) -> None:
        """Have as many replicas again as were asked for."""
        self._send(self._config.fewest, self._config.most)

    def stop(self) -> None:
        """Take the replicas down, and the Ray that was started for this process with the last of them."""
        if self._ray.is_initialized():
            if self._handle is not None:
                # It would go on to tell an autoscaler of its load, and start a Ray of its own when this one is gone.
                self._handle.shutdown()
            self._ray.serve.delete(self.name)
            leave_ray(self._ray)

    def _send(self, fewest: int, most: int) -> None:
        serve = self._ray.serve
        scale: dict[str, Any] = {"num_replicas": most}
        if self._config.autoscale is not None:
            scale = {
                "autoscaling_config": {
                    "min_replicas": fewest,
                    "max_replicas": most,
                    # Requests that run or wait for one, per replica: at more than a half full batch another one comes.
                    "target_ongoing_requests": max(1, self._batch // 2),
                    "upscale_delay_s": _UPSCALE_DELAY_S,
                    "downscale_delay_s": _DOWNSCALE_DELAY_S,
                }
            }
        deployment = serve.deployment(
            EngineReplica,
            name=_DEPLOYMENT,
            ray_actor_options=self._needs,
            # The rest waits at the callers, where autoscaling counts it and a new replica can take it.
            max_ongoing_requests=self._batch + max(1, self._batch // 4),
            graceful_shutdown_timeout_s=_DRAIN_S,
            health_check_period_s=_HEALTH_PERIOD_S,
            health_check_timeout_s=_HEALTH_LIMIT_S,
            max_constructor_retry_count=_MOST_STARTS,
            **scale,
        )
        # Replicas of one version stay when their number is sent again; by itself Ray gives each sending a new one.
        versioned = deployment.options(version=self.name, _internal=True)
        target = serve.RunTarget(versioned.bind(self._arguments), name=self.name, route_prefix=None)
        serve.run_many([target], wait_for_applications_running=False)

    def _wait(self, progress: ProgressCallback) -> None:
        fewest = self._config.fewest
        started_s = changed_s = time.monotonic()
        num_running = -1
        while True:
            reason = self._status.failure()
            if reason is not None:
                raise ModelLoadError(f"the replicas could not be started: {reason}")
            now_s, found = time.monotonic(), self._status.read_now().get("RUNNING", 0)
            if found != num_running:
                num_running, changed_s = found, now_s
            progress(Progress("start replicas", num_running, fewest, "replicas"))
            if num_running >= fewest or (num_running and now_s - changed_s > _PATIENCE_S):
                return
            if now_s - started_s > self._config.start_timeout_s:
                limit_s = self._config.start_timeout_s
                raise ModelLoadError(f"no replica serves after {limit_s} s: {self._shortage()}")
            time.sleep(_LOOK_EVERY_S)

    def _has_room(self) -> bool:
        """Whether a replica like these could start now; asked of Ray, which knows what lies on which machine."""
        needs = {"CPU": float(self._needs["num_cpus"]), "GPU": float(self._needs["num_gpus"])}
        util = self._ray.util
        probe = util.placement_group([{name: needed for name, needed in needs.items() if needed}])
        try:
            return bool(probe.wait(_ROOM_SEARCH_S))
        finally:
            util.remove_placement_group(probe)

    def _shortage(self) -> str:
        """What a replica takes and what is free, in words."""
        needs = f"{self._needs['num_cpus']} CPUs and {self._needs['num_gpus']} GPUs"
        total, free = self._ray.cluster_resources(), self._ray.available_resources()
        words = [f"{free.get(name, 0):g} of {total[name]:g} {name}s" for name in ("CPU", "GPU") if total.get(name)]
        return f"each takes {needs}, free are {' and '.join(words) or 'none'} of the whole cluster"
