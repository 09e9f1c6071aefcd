"""Config and weight shapes of a hub model without its weights: a few small requests, remembered for the next time."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.errors import DownloadError, ModelNotFoundError
from workbench.models import ModelSource
from workbench.models.spec import read_json_object
from workbench.paths import home
from workbench.planner.weight_shape import WeightShape
from workbench.safetensors_header import INDEX_NAME, read_folder_headers

__all__ = ["HubShape", "read_hub_shape"]

_TIMEOUT_S = 10.0
_MAX_CONNECTIONS = 8
_TRUE = frozenset({"1", "true", "yes", "on"})


@dataclass(frozen=True)
class HubShape:
    """`weights` is None where only the config is known; `total_bytes` is then what the index of shards adds up to."""

    config: Mapping[str, Any]
    weights: tuple[WeightShape, ...] | None
    total_bytes: int | None = None


def read_hub_shape(source: ModelSource) -> HubShape:
    """What can be known of `source`: from this machine where it is there, else from the hub (`HF_TOKEN` applies).

    Raises ModelNotFoundError, or DownloadError when the hub cannot be asked and nothing is cached.
    """
    remembered = _recall(source) or _from_cached_files(source)
    if remembered is not None and remembered.weights is not None:
        return remembered
    failure: DownloadError | None = None
    if _offline():
        failure = DownloadError(
            f"the hub cannot be asked (offline) and {source.text} was not planned here before: connect, or name a "
            "local folder, a .gguf file or 'default'"
        )
    else:
        try:
            return _remember(source, _ask(source))
        except DownloadError as error:
            failure = error
    if remembered is not None:
        return remembered
    raise failure


def _offline() -> bool:
    return any(os.environ.get(name, "").lower() in _TRUE for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))


def _ask(source: ModelSource) -> HubShape:
    from huggingface_hub import HfApi, errors

    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None)
    repo, revision = source.location, source.revision
    try:
        info = api.model_info(repo, revision=revision, timeout=_TIMEOUT_S)
        names = {file.rfilename for file in info.siblings or []}
        config = api.hf_hub_download(repo, "config.json", revision=info.sha, etag_timeout=_TIMEOUT_S)
        return HubShape(read_json_object(Path(config)), _ask_headers(api, repo, info.sha, names))
    except errors.GatedRepoError:
        raise ModelNotFoundError(
            f"{repo} is gated: accept its terms on the hub and set HF_TOKEN before planning with it"
        ) from None
    except errors.RevisionNotFoundError:
        raise ModelNotFoundError(f"{repo} has no revision {revision!r}") from None
    except (errors.RepositoryNotFoundError, errors.HFValidationError):
        raise ModelNotFoundError(
            f"the hub has no model {repo!r} (a private one needs HF_TOKEN): check the spelling of 'org/name'"
        ) from None
    except errors.LocalEntryNotFoundError as error:
        raise DownloadError(f"{repo} could not be looked at: {error}") from None
    except errors.EntryNotFoundError:
        raise ModelNotFoundError(
            f"{repo} has no config.json, so it is not a model that transformers can load"
        ) from None
    # Boundary: the network's many errors share no base.
    except Exception as error:
        raise DownloadError(
            f"{repo} could not be looked at on the hub ({type(error).__name__}: {error}): connect, or name a local "
            "folder, a .gguf file or 'default'"
        ) from None


def _ask_headers(api: Any, repo: str, commit: str | None, names: set[str]) -> tuple[WeightShape, ...] | None:
    files = sorted(name for name in names if name.endswith(".safetensors") and "/" not in name)
    # Some repositories carry the same weights a second time in their author's own layout.
    files = [name for name in files if not name.startswith("consolidated")] or files
    if not files:
        return None

    def read(name: str) -> list[WeightShape]:
        found = api.parse_safetensors_file_metadata(repo, name, revision=commit, timeout=_TIMEOUT_S)
        return [
            WeightShape(tensor, tuple(entry.shape), entry.data_offsets[1] - entry.data_offsets[0])
            for tensor, entry in found.tensors.items()
        ]

    with ThreadPoolExecutor(_MAX_CONNECTIONS, thread_name_prefix="workbench-plan") as pool:
        return tuple(weight for part in pool.map(read, files) for weight in part)


def _from_cached_files(source: ModelSource) -> HubShape | None:
    """From the hub's own cache, which may hold the config alone or all of the model."""
    from huggingface_hub import try_to_load_from_cache

    from workbench.models.hub_cache import hub_cache_folder

    config = try_to_load_from_cache(
        source.location, "config.json", cache_dir=hub_cache_folder(), revision=source.revision
    )
    if not isinstance(config, str):
        return None
    folder = Path(config).parent
    content = read_json_object(Path(config))
    index = folder / INDEX_NAME
    if index.is_file():
        shards = set(read_json_object(index).get("weight_map", {}).values())
        if not all((folder / shard).is_file() for shard in shards):
            return HubShape(content, None, read_json_object(index).get("metadata", {}).get("total_size"))
    headers = read_folder_headers(folder)
    weights = tuple(WeightShape(entry.name, entry.shape, entry.num_bytes) for entry in headers.values())
    return HubShape(content, weights or None)


def _memory_file(source: ModelSource) -> Path:
    name = re.sub(r"[^\w.-]+", "--", f"{source.location}@{source.revision or 'main'}")
    return home() / "plans" / f"{name}.json"


def _remember(source: ModelSource, shape: HubShape) -> HubShape:
    rows = None if shape.weights is None else [[w.name, list(w.shape), w.stored_bytes] for w in shape.weights]
    file = _memory_file(source)
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(f".{os.getpid()}.part")
    temporary.write_text(json.dumps({"config": dict(shape.config), "weights": rows}))
    temporary.replace(file)
    return shape


def _recall(source: ModelSource) -> HubShape | None:
    try:
        content = json.loads(_memory_file(source).read_text("utf-8"))
        rows = content["weights"]
        weights = None if rows is None else tuple(WeightShape(name, tuple(shape), size) for name, shape, size in rows)
        return HubShape(content["config"], weights)
    except (OSError, ValueError, KeyError, TypeError):
        return None
