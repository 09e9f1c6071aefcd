"""The child process of `hub`: one JSON question as argument, JSON lines as answers. Only it uses huggingface_hub."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

from workbench.child_lifetime import exit_with_parent

__all__ = ["choose_files"]

_SMALL_SUFFIXES = (".json", ".jinja", ".model", ".txt", ".tiktoken")
# How the model makes embeddings, where it was trained for that.
_POOLING_SUFFIX = "_Pooling/config.json"
_REPORT_INTERVAL_S = 0.2


class UnsafeRepository(Exception):
    """Only weights that may run code."""


class NoWeights(Exception):
    """Nothing in the repository that can be loaded."""


def choose_files(names: Sequence[str], allow_pickle: bool, allow_code: bool) -> list[str]:
    """The files of a repository that loading needs: config, tokenizer and one set of weights, from its top folder.

    Raises `UnsafeRepository` or `NoWeights`.
    """
    top = [name for name in names if "/" not in name]
    small = [name for name in top if name.endswith(_SMALL_SUFFIXES) or (allow_code and name.endswith(".py"))]
    small += [name for name in names if name.endswith(_POOLING_SUFFIX) and name.count("/") == 1]
    safetensors = [name for name in top if name.endswith(".safetensors")]
    # Some repositories carry the same weights a second time in their author's own layout.
    weights = [name for name in safetensors if not name.startswith("consolidated")] or safetensors
    if not weights:
        pickles = [name for name in top if name.endswith(".bin") and name.startswith("pytorch_model")]
        if not pickles:
            packed = [name for name in names if name.endswith(".gguf")]
            raise NoWeights(f"it has .gguf files ({packed[0]}): download one and name its path" if packed else "")
        if not allow_pickle:
            raise UnsafeRepository(pickles[0])
        weights = pickles
    return sorted(set(small + weights))


class _ByteBars(tqdm):  # type: ignore[type-arg]  # generic in its stubs, not when it runs
    """Shows nothing; prints the largest byte count of all bars a few times a second."""

    total_bytes = 0
    _reported_at = 0.0
    _largest = 0

    def __init__(self, *args: Any, **options: Any) -> None:
        self._counts_bytes = options.get("unit") == "B"
        self._seen = options.get("initial", 0)
        super().__init__(*args, **{**options, "disable": True})

    def update(self, n: float | None = 1) -> None:
        self._seen += n or 0
        if self._counts_bytes and self._seen > _ByteBars._largest:
            _ByteBars._largest = int(self._seen)
            _ByteBars.report()

    @classmethod
    def report(cls, force: bool = False) -> None:
        now = time.monotonic()
        if force or now - cls._reported_at >= _REPORT_INTERVAL_S:
            cls._reported_at = now
            _answer(completed=min(cls._largest, cls.total_bytes), total=cls.total_bytes)


def _fetch(question: dict[str, Any]) -> None:
    from huggingface_hub import HfApi, constants, snapshot_download

    repo, revision = question["repo"], question["revision"]
    if constants.HF_HUB_OFFLINE:
        return _answer(path=_cached_snapshot(question))
    try:
        info = HfApi().model_info(repo, revision=revision, files_metadata=True)
    except Exception as error:
        return _answer(path=_snapshot_despite(error, question))
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
    chosen = choose_files(list(sizes), question["allow_pickle"], question["allow_code"])
    _ByteBars.total_bytes = sum(sizes[name] for name in chosen)
    path = snapshot_download(
        repo,
        revision=revision,
        allow_patterns=chosen,
        tqdm_class=_ByteBars,  # type: ignore[arg-type]  # declared as tqdm.auto's class, of which it uses tqdm's own
    )
    _ByteBars._largest = _ByteBars.total_bytes
    _ByteBars.report(force=True)
    _answer(path=path)


def _cached_snapshot(question: dict[str, Any]) -> str:
    """Folder of the snapshot without asking the hub, which raises unless all that would be fetched is there."""
    from huggingface_hub import snapshot_download

    wanted = [f"*{suffix}" for suffix in (*_SMALL_SUFFIXES, ".safetensors")]
    return snapshot_download(
        question["repo"],
        revision=question["revision"],
        local_files_only=True,
        allow_patterns=[*wanted, "*.py"] if question["allow_code"] else wanted,
        ignore_patterns=["*/*", "consolidated*"],
    )


def _snapshot_despite(error: Exception, question: dict[str, Any]) -> str:
    """The cached snapshot, where the hub failed to answer; its refusals are answers and raised."""
    from huggingface_hub import errors

    if isinstance(error, (errors.HFValidationError, errors.RepositoryNotFoundError, errors.RevisionNotFoundError)):
        raise error
    try:
        return _cached_snapshot(question)
    except errors.LocalEntryNotFoundError:
        if isinstance(error, errors.HfHubHTTPError):
            # It could be reached: its own complaint says more than that nothing is cached.
            raise error from None
        raise


def _explain(error: Exception, question: dict[str, Any]) -> dict[str, str]:
    """The error class and message that the parent raises."""
    from huggingface_hub import errors

    repo, revision = question.get("repo"), question.get("revision")
    match error:
        case UnsafeRepository():
            text = (
                f"{repo} has only pickle weights ({error}), and opening those can run any code: choose a repository "
                "with safetensors, or pass allow_pickle=True for one you trust"
            )
            return {"error": "unsafe", "message": text}
        case NoWeights():
            return {"error": "not_found", "message": f"{repo} has no safetensors weights. {error}".strip()}
        case errors.GatedRepoError():
            text = f"{repo} is gated: accept its terms on its page and set HF_TOKEN to a token of that account"
            return {"error": "download", "message": text}
        case errors.RevisionNotFoundError():
            return {"error": "not_found", "message": f"{repo} has no revision {revision!r}"}
        case errors.RepositoryNotFoundError() | errors.HFValidationError():
            text = f"the hub has no model {repo!r} (a private one needs HF_TOKEN): check the spelling of 'org/name'"
            return {"error": "not_found", "message": text}
        case errors.IncompleteSnapshotError():
            text = f"the hub cannot be reached and the cached copy of {repo} is incomplete: connect and run this again"
            return {"error": "download", "message": text}
        case errors.LocalEntryNotFoundError() | errors.OfflineModeIsEnabled():
            text = (
                f"the hub cannot be reached (offline) and {repo}{'@' + revision if revision else ''} is not in its "
                "cache: connect, or name a local folder, a .gguf file or 'default'"
            )
            return {"error": "download", "message": text}
    return {"error": "download", "message": f"{repo} could not be downloaded: {type(error).__name__}: {error}"}


def _answer(**fields: Any) -> None:
    print(json.dumps(fields), flush=True)


def _main(question: dict[str, Any]) -> int:
    try:
        _fetch(question)
    # Boundary: the parent turns the answer into an exception of ours.
    except Exception as error:
        _answer(**_explain(error, question))
        return 1
    return 0


if __name__ == "__main__":
    exit_with_parent()
    sys.exit(_main(json.loads(sys.argv[1])))
