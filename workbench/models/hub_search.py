"""Search the Hugging Face Hub for models that can be loaded, with their sizes. Needs the network."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

from workbench.errors import ConfigError, DownloadError

__all__ = ["HubModel", "search_hub"]

# Somebody waits for the answer. The hub's own client would ask six times, for 24 s.
_TIMEOUT_S = 5.0
_BYTES = {"F64": 8, "F32": 4, "I64": 8, "I32": 4, "BF16": 2, "F16": 2, "I16": 2, "F8_E4M3": 1, "F8_E5M2": 1}


@dataclass(frozen=True)
class HubModel:
    """One model of the hub. `size_bytes` and `num_parameters` are of its safetensors weights, None where the hub does
    not say; `is_gated` ones need an account that was let in."""

    name: str
    num_parameters: int | None
    size_bytes: int | None
    downloads: int | None
    is_gated: bool


def search_hub(
    text: str,
    *,
    limit: int = 20,
    list_models: Callable[..., Iterable[Any]] | None = None,
    timeout_s: float = _TIMEOUT_S,
) -> list[HubModel]:
    """Text-generation models with safetensors weights whose name contains `text`, the most downloaded first.

    Raises ConfigError for an empty text, DownloadError where the hub can't be asked or does not answer in time.
    """
    if not text.strip():
        raise ConfigError("text is empty: type a part of a model's name")
    try:
        query = {
            "search": text.strip(),
            "pipeline_tag": "text-generation",
            "filter": "safetensors",
            "sort": "downloads",
            "limit": limit,
            "expand": ["safetensors", "downloads", "gated"],
        }
        found = _in_time(lambda: list((list_models or _list_models)(**query)), timeout_s)
        return [_model(info) for info in found]
    # The hub's client raises its own, its HTTP library's and the system's errors.
    except Exception as error:
        message = (
            f"the hub can't be searched: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        )
    raise DownloadError(f"{message}; models that are here can be loaded all the same")


def _in_time(ask: Callable[[], list[Any]], timeout_s: float) -> list[Any]:
    """What `ask` gives or raises; TimeoutError when that takes longer, as the look-up of a host's name may.

    The thread that asks ends by itself.
    """
    answers: SimpleQueue[tuple[list[Any], Exception | None]] = SimpleQueue()

    def answer() -> None:
        try:
            answers.put((ask(), None))
        except Exception as error:  # raised again by whoever waits
            answers.put(([], error))

    threading.Thread(target=answer, name="workbench-hub-question", daemon=True).start()
    try:
        found, error = answers.get(timeout=timeout_s)
    except Empty:
        raise TimeoutError(f"it did not answer within {timeout_s:g} s") from None
    if error is not None:
        raise error
    return found


def _list_models(**query: Any) -> Iterable[Any]:
    # Found there at run time only: the package tells type checkers nothing of it.
    import huggingface_hub
    from huggingface_hub import constants, get_session

    hub: Any = huggingface_hub
    # The hub's client has looked once, when it was imported; a notebook may have set it since.
    if constants.HF_HUB_OFFLINE or os.environ.get("HF_HUB_OFFLINE", "").upper() in constants.ENV_VARS_TRUE_VALUES:
        raise OSError("HF_HUB_OFFLINE is set")
    response = get_session().get(
        f"{constants.ENDPOINT}/api/models", params=query, headers=hub.utils.build_hf_headers(), timeout=_TIMEOUT_S
    )
    hub.utils.hf_raise_for_status(response)
    return [hub.ModelInfo(**{"siblings": None, **item}) for item in response.json()]


def _model(info: Any) -> HubModel:
    weights = getattr(info, "safetensors", None)
    counts = dict(getattr(weights, "parameters", None) or {})
    sizes = [count * _BYTES.get(dtype, 1) for dtype, count in counts.items()]
    return HubModel(
        name=info.id,
        num_parameters=sum(counts.values()) or None,
        size_bytes=sum(sizes) or None,
        downloads=getattr(info, "downloads", None),
        is_gated=bool(getattr(info, "gated", False)),
    )
