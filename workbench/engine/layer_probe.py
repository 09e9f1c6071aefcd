"""What a model's layers keep of each token, learnt by running it; and whether the paged cache can hold that."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from workbench.engine.attention import LayerShape, ShapeProbe
from workbench.errors import ModelFormatError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["check_layer_types", "probe_layers"]

# Kinds of attention that the paged cache computes; where a config names its layers' kinds, it must be one of these.
_LAYER_TYPES = {"full_attention", "sliding_attention"}
# Two runs of one token beside different others differ by rounding at most: relative to the largest logit.
_SEPARATE_TOLERANCE = 0.02


def check_layer_types(module: PreTrainedModel) -> None:
    """Raise ModelFormatError for a kind of layer that the paged cache cannot run."""
    unknown = set(getattr(module.config.get_text_config(), "layer_types", None) or ()) - _LAYER_TYPES
    if unknown:
        raise ModelFormatError(f"{type(module).__name__}: {unknown.pop()} is not supported by the paged cache")


def probe_layers(module: PreTrainedModel, device: str, num_tokens: int = 1) -> dict[int, LayerShape]:
    """Key and value shapes of every layer, learnt by running the model on `num_tokens` tokens.

    Raises ModelFormatError for an architecture that the paged cache cannot run.
    """
    check_layer_types(module)
    probe = ShapeProbe()
    _last_logits(module, device, [0] * num_tokens, probe)
    num_layers = module.config.get_text_config().num_hidden_layers
    if len(probe.layers) != num_layers:
        raise ModelFormatError(
            f"{type(module).__name__}: {num_layers - len(probe.layers)} of {num_layers} layers keep a state that is "
            "not keys and values, which the paged cache cannot hold"
        )
    _check_tokens_meet_in_attention_only(module, device)
    return probe.layers


def _check_tokens_meet_in_attention_only(module: PreTrainedModel, device: str) -> None:
    """Raise ModelFormatError where a token's result depends on the one before it although attention gives zeros: the
    model keeps a state of its own (a convolution, a recurrence), which no cache here carries from step to step."""
    one, other = (_last_logits(module, device, [first, 1], ShapeProbe()) for first in (0, 1))
    if (one - other).abs().max() > _SEPARATE_TOLERANCE * one.abs().max():
        raise ModelFormatError(
            f"{type(module).__name__}: tokens meet outside of attention, in a state that the paged cache cannot hold"
        )


def _last_logits(module: PreTrainedModel, device: str, token_ids: list[int], probe: ShapeProbe) -> torch.Tensor:
    last = torch.tensor([len(token_ids) - 1], device=device)
    with torch.inference_mode():
        logits: torch.Tensor = module(
            input_ids=torch.tensor([token_ids], device=device),
            position_ids=torch.arange(len(token_ids), device=device).unsqueeze(0),
            use_cache=False,
            logits_to_keep=last,
            step=probe,
        ).logits
    return logits
