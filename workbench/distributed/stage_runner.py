"""Runs steps on one rank's share of a model: hidden states come from the stage before and go to the one after."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, cast

import torch
import torch.distributed as dist
from torch import nn

from workbench.distributed.model_share import ModelShare
from workbench.distributed.place import Place
from workbench.distributed.tensor_group import reaching_peers
from workbench.engine.attention import LayerShape, ShapeProbe, StepAttention
from workbench.engine.layer_probe import check_layer_types
from workbench.engine.model_runner import ModelRunner
from workbench.engine.paged_step import KVPool
from workbench.errors import ModelFormatError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["StageRunner", "probe_stage"]


class StageRunner(ModelRunner):
    """See ModelRunner; `compute` gives logits on the last stage only, and there the rank's part of the vocabulary.

    `waited_s` is how long it has waited for the stage before, altogether.
    """

    def __init__(self, module: PreTrainedModel, pool: KVPool, device: str, place: Place) -> None:
        super().__init__(module, pool, device)
        self._place = place
        if place.is_first_stage:
            self.ids_device = str(cast(nn.Embedding, module.get_input_embeddings()).weight.device)
        self._hidden_size = module.config.get_text_config().hidden_size
        # Sends under way keep their tensors.
        self._sends: list[tuple[dist.Work, torch.Tensor]] = []
        self.waited_s = 0.0

    def _forward(
        self, ids: torch.Tensor, positions: torch.Tensor, kept: torch.Tensor, step: StepAttention
    ) -> torch.Tensor:
        inputs = ids if self._place.is_first_stage else self._receive(ids.shape[1])
        out = _run_share(self.module, self._place, inputs, positions, kept, step)
        if self._place.is_last_stage:
            return out
        self._send(out)
        return out.new_empty(0, 1)

    def _receive(self, num_tokens: int) -> torch.Tensor:
        started_s = time.perf_counter()
        hidden = torch.empty(1, num_tokens, self._hidden_size, dtype=self.module.dtype, device=self.device)
        with reaching_peers():
            dist.recv(hidden, src=self._place.rank - self._place.tensor_size)
        self.waited_s += time.perf_counter() - started_s
        return hidden

    def _send(self, hidden: torch.Tensor) -> None:
        self._sends = [(work, tensor) for work, tensor in self._sends if not work.is_completed()]
        hidden = hidden.contiguous()
        with reaching_peers():
            work = dist.isend(hidden, dst=self._place.rank + self._place.tensor_size)
        # None is for who is not in the group.
        assert work is not None
        self._sends.append((work, hidden))


def probe_stage(module: PreTrainedModel, share: ModelShare, device: str, num_tokens: int) -> dict[int, LayerShape]:
    """Key and value shapes of the rank's layers, learnt by running its share on `num_tokens` tokens.

    All ranks of a stage do this at once. Raises ModelFormatError for what the paged cache cannot run.
    """
    check_layer_types(module)
    probe = ShapeProbe()
    config = module.config.get_text_config()
    if share.place.is_first_stage:
        inputs = torch.zeros(1, num_tokens, dtype=torch.long, device=device)
    else:
        inputs = torch.zeros(1, num_tokens, config.hidden_size, dtype=module.dtype, device=device)
    last = torch.tensor([num_tokens - 1], device=device)
    with torch.inference_mode():
        _run_share(module, share.place, inputs, torch.arange(num_tokens, device=device).unsqueeze(0), last, probe)
    missing = set(share.layer_span) - set(probe.layers)
    if missing:
        raise ModelFormatError(
            f"{type(module).__name__}: layer {min(missing)} keeps a state that is not keys and values, which the paged "
            "cache cannot hold"
        )
    return probe.layers


def _run_share(
    module: PreTrainedModel,
    place: Place,
    inputs: torch.Tensor,
    positions: torch.Tensor,
    kept: torch.Tensor,
    step: StepAttention,
) -> torch.Tensor:
    """Logits [kept, vocabulary] on the last stage, else hidden states [1, tokens, hidden].

    `inputs` are token ids [1, tokens] on the first stage, else hidden states.
    """
    named = {"input_ids" if place.is_first_stage else "inputs_embeds": inputs}
    if place.is_last_stage:
        logits: torch.Tensor = module(
            **named, position_ids=positions, use_cache=False, logits_to_keep=kept, step=step
        ).logits
        return logits[0]
    hidden: torch.Tensor = module.base_model(
        **named, position_ids=positions, use_cache=False, step=step
    ).last_hidden_state
    return hidden
