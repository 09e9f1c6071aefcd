"""Search the Hugging Face Hub for models that can be loaded, with their sizes. Needs the network."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from workbench.errors import ConfigError, DownloadError

__all__ = ["HubModel", "search_hub"]

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
    text: str, *, limit: int = 20, list_models: Callable[..., Iterable[Any]] | None = None
) -> list[HubModel]:
    """Text-generation models with safetensors weights whose name contains `text`, the most downloaded first.

    Raises ConfigError for an empty text, DownloadError where the hub can't be asked.
    """
    if not text.strip():
        raise ConfigError("text is empty: type a part of a model's name")
    try:
        found = (list_models or _list_models)(
            search=text.strip(),
            pipeline_tag="text-generation",
            filter="safetensors",
            sort="downloads",
            limit=limit,
            expand=["safetensors", "downloads", "gated"],
        )
        return [_model(info) for info in found]
    # The hub's client raises its own, its HTTP library's and the system's errors.
    except Exception as error:
        message = (
            f"the hub can't be searched: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        )
    raise DownloadError(f"{message}; models that are here can be loaded all the same")


def _list_models(**query: Any) -> Iterable[Any]:
    from huggingface_hub import HfApi, constants

    if constants.HF_HUB_OFFLINE:
        raise OSError("HF_HUB_OFFLINE is set")
    return HfApi().list_models(**query)


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
