"""Models from a hub by id. The download runs in a child process, so that it can be stopped at any moment."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from workbench.child_lifetime import python_command, python_environment
from workbench.errors import DownloadError, ModelLoadError, ModelNotFoundError, UnsafeModelError
from workbench.models.child_process import log_tail, run_child
from workbench.models.source import ModelSource
from workbench.progress import Progress, ProgressCallback

__all__ = ["fetch_hub"]

_FAILURES: dict[str, type[ModelLoadError]] = {
    "not_found": ModelNotFoundError,
    "unsafe": UnsafeModelError,
    "download": DownloadError,
}


def fetch_hub(
    source: ModelSource, progress: ProgressCallback, *, allow_pickle: bool = False, trust_remote_code: bool = False
) -> Path:
    """Folder of the snapshot of `source` in the hub's own cache (`HF_HOME` and `HF_TOKEN` apply).

    Without a connection a complete cached snapshot is used. Raises `ModelNotFoundError`, `DownloadError`, or
    `UnsafeModelError` when the repository has only pickle weights and they are not allowed.
    """
    question = {
        "repo": source.location,
        "revision": source.revision,
        "allow_pickle": allow_pickle,
        "allow_code": trust_remote_code,
    }
    with tempfile.TemporaryDirectory(prefix="workbench-hub-") as scratch:
        log = Path(scratch) / "hub.log"
        status = run_child(
            python_command("workbench.models.hub_client", json.dumps(question)),
            log=log,
            environment=python_environment(),
            on_poll=lambda: progress(_progress(log)),
        )
        answer = _last_answer(log)
        if status == 0 and "path" in answer:
            progress(_progress(log))
            return Path(answer["path"])
        kind = _FAILURES.get(answer.get("error", ""), DownloadError)
        raise kind(answer.get("message") or f"the hub client stopped (exit status {status}): {log_tail(log, 2)}")


def _progress(log: Path) -> Progress:
    answer = _last_answer(log, "completed")
    return Progress("download", answer.get("completed", 0), answer.get("total"))


def _last_answer(log: Path, field: str | None = None) -> dict[str, Any]:
    """The last JSON line of the child (with `field`, where given); other lines are a library's chatter."""
    for line in reversed(log.read_text("utf-8", errors="replace").splitlines()):
        if not line.startswith("{"):
            continue
        try:
            answer: dict[str, Any] = json.loads(line)
        except ValueError:
            continue
        if field is None or field in answer:
            return answer
    return {}
