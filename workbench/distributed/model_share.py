"""One rank's share of a transformers decoder: its stage's layers, and of those its heads, MLP rows and vocabulary.

Modules keep their classes and names, so that the model's own forward runs on the share: linears become narrower, and
hooks add up what several ranks computed. What a family does that this does not know is refused, never left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from workbench.distributed.place import Place, check_tensor_size, share
from workbench.distributed.shared_table import MappedTable
from workbench.distributed.tensor_group import TensorGroup
from workbench.errors import ModelFormatError
from workbench.models.loaded_model import count_bytes

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Absent", "ModelShare", "layers_of"]

_ROW_SPLIT = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.gate_proj", "mlp.up_proj")
_COLUMN_SPLIT = ("self_attn.o_proj", "mlp.down_proj")


@dataclass(frozen=True)
class _Cut:
    dim: int
    span: range

    def of(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.narrow(self.dim, self.span.start, len(self.span)).clone()


class Absent(nn.Module):
    """Stands where another rank has a module, and hands on what it is given."""

    def forward(self, first: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
        return first


class ModelShare:
    """See `workbench.models.model_part`. `group` are the ranks of the same stage, which has the decoder's `layers`;
    `table` is what the first stage and the last have in common."""

    def __init__(self, place: Place, group: TensorGroup, layers: range, table: MappedTable | None = None) -> None:
        self.place = place
        self.vocab_span = range(0)
        self.vocab_size = 0
        self.layer_span = layers
        self._group = group
        self._cuts: dict[str, _Cut] = {}
        self._table = table
        self._table_name = ""

    def narrow(self, shell: PreTrainedModel) -> None:
        """Take out of the shell what other ranks have. Raises ConfigError and ModelFormatError with the reason."""
        embedding: Any = shell.get_input_embeddings()
        head: Any = shell.get_output_embeddings()
        is_tied = head.weight is embedding.weight
        self.vocab_size = head.weight.shape[0]
        self.vocab_span = share(self.vocab_size, self.place.tensor_rank, self.place.tensor_size)
        names = {id(module): name for name, module in shell.named_modules()}
        if self.place.tensor_size > 1:
            self._check_family(shell)
            for index in self.layer_span:
                self._narrow_layer(layers_of(shell)[index], names)
            if self._table is None or self.place.is_last_stage:
                self._narrow_vocabulary(embedding, names)
            if is_tied:
                head.weight = embedding.weight
                head.out_features = len(self.vocab_span)
            else:
                self._cut_linear(head, names[id(head)], 0, self.vocab_span)
        if self._table is not None:
            self._table_name = f"{names[id(embedding)]}.weight"
        self._drop_other_stages(shell, names, is_tied)

    def cut(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """See ModelPart."""
        cut = self._cuts.get(name)
        part = tensor if cut is None else cut.of(tensor)
        return self._table.fill(self.vocab_span, part) if self._table is not None and name == self._table_name else part

    def borrow_table(self, module: PreTrainedModel) -> None:
        """Once the rest is loaded: have the first stage look up what the last one holds."""
        if self._table is not None and self.place.is_first_stage:
            self._table.lend(cast(nn.Embedding, module.get_input_embeddings()))

    def device_bytes(self, shell: PreTrainedModel) -> int:
        """See ModelPart: the shell has been narrowed to what this rank holds."""
        return count_bytes(shell)

    def _check_family(self, shell: PreTrainedModel) -> None:
        config: Any = shell.config.get_text_config()
        heads = config.num_attention_heads
        kv_heads = getattr(config, "num_key_value_heads", None) or heads
        check_tensor_size(type(shell).__name__, heads, kv_heads, self.place.tensor_size)
        known = {f"{name}.weight" for name in (*_ROW_SPLIT, *_COLUMN_SPLIT)}
        for layer in layers_of(shell):
            parameters = dict(layer.named_parameters())
            head_dim = getattr(getattr(layer, "self_attn", None), "head_dim", None)
            for name, parameter in parameters.items():
                is_whole = name.startswith("self_attn.") and not name.endswith("_proj.bias")
                if name not in known and (parameter.dim() > 1 or (is_whole and parameter.numel() != head_dim)):
                    raise _cannot_split(shell, f"layers hold {name!r}")
            missing = [n for n in known - {"mlp.gate_proj.weight"} if n not in parameters]
            if missing:
                raise _cannot_split(shell, f"layers lack {sorted(missing)[0]!r}")

    def _narrow_layer(self, layer: Any, names: dict[int, str]) -> None:
        attention, rank, size = layer.self_attn, self.place.tensor_rank, self.place.tensor_size
        dim = attention.head_dim
        heads = share(attention.q_proj.out_features // dim, rank, size)
        num_kv_heads = attention.k_proj.out_features // dim
        # With more ranks than KV heads several ranks keep the same one.
        kv_heads = share(num_kv_heads, rank, size) or range(
            rank * num_kv_heads // size, rank * num_kv_heads // size + 1
        )
        inner = share(layer.mlp.up_proj.out_features, rank, size)
        spans = {"q_proj": _scaled(heads, dim), "k_proj": _scaled(kv_heads, dim), "v_proj": _scaled(kv_heads, dim)}
        for path in (*_ROW_SPLIT, *_COLUMN_SPLIT):
            owner = layer.get_submodule(path.partition(".")[0])
            leaf = path.partition(".")[2]
            linear = getattr(owner, leaf, None)
            if linear is None:
                continue
            span = spans.get(leaf, _scaled(heads, dim) if leaf == "o_proj" else inner)
            self._cut_linear(linear, names[id(linear)], int(path in _COLUMN_SPLIT), span)
            if path in _COLUMN_SPLIT:
                linear.register_forward_hook(self._add_up)

    def _cut_linear(self, linear: nn.Linear, name: str, dim: int, span: range) -> None:
        self._cut_parameter(linear, "weight", f"{name}.weight", dim, span)
        linear.out_features, linear.in_features = linear.weight.shape
        if linear.bias is None:
            return
        if dim == 0:
            self._cut_parameter(linear, "bias", f"{name}.bias", 0, span)
        elif self.place.tensor_rank > 0:
            # Added once, before the sum.
            linear._parameters["bias"] = None

    def _cut_parameter(self, owner: nn.Module, leaf: str, name: str, dim: int, span: range) -> None:
        cut = _Cut(dim, span)
        owner._parameters[leaf] = nn.Parameter(cut.of(owner.get_parameter(leaf)), requires_grad=False)
        self._cuts[name] = cut

    def _narrow_vocabulary(self, embedding: nn.Embedding, names: dict[int, str]) -> None:
        self._cut_parameter(embedding, "weight", f"{names[id(embedding)]}.weight", 0, self.vocab_span)
        embedding.num_embeddings, embedding.padding_idx = len(self.vocab_span), None
        embedding.register_forward_hook(self._embed, with_kwargs=False)
        embedding.register_forward_pre_hook(self._own_ids)

    def _own_ids(self, module: nn.Module, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        # Ids of other ranks look up row 0, which the hook after it turns to zeros.
        ids = inputs[0] - self.vocab_span.start
        self._is_foreign = (ids < 0) | (ids >= len(self.vocab_span))
        return (ids.masked_fill(self._is_foreign, 0),)

    def _embed(self, module: nn.Module, inputs: object, rows: torch.Tensor) -> torch.Tensor:
        return self._group.sum_(rows.masked_fill(self._is_foreign.unsqueeze(-1), 0))

    def _add_up(self, module: nn.Module, inputs: object, out: torch.Tensor) -> torch.Tensor:
        return self._group.sum_(out.contiguous())

    def _drop_other_stages(self, shell: PreTrainedModel, names: dict[int, str], is_tied: bool) -> None:
        place, layers = self.place, layers_of(shell)
        embedding: Any = shell.get_input_embeddings()
        for index in range(len(layers)):
            if index not in self.layer_span:
                layers[index] = Absent()
        if place.is_first_stage:
            if self._table is not None:
                # Not the rank's own, so no parameter; whoever gives start values finds a shape there.
                embedding.weight = embedding._parameters.pop("weight").detach()
        elif not (place.is_last_stage and is_tied):  # there files name the head's weight after the embedding
            shell.set_submodule(names[id(embedding)], Absent())
        if not place.is_last_stage:
            shell.set_submodule(names[id(shell.get_output_embeddings())], Absent())
            shell.base_model.set_submodule("norm", Absent())
            shell.config.tie_word_embeddings = False


def layers_of(shell: PreTrainedModel) -> nn.ModuleList:
    """A model's decoder layers. Raises ModelFormatError for what is not made of layers and a norm."""
    layers = getattr(shell.base_model, "layers", None)
    if not isinstance(layers, nn.ModuleList) or not hasattr(shell.base_model, "norm"):
        raise _cannot_split(shell, "its decoder is not a list of layers and a norm")
    return layers


def _scaled(span: range, factor: int) -> range:
    return range(span.start * factor, span.stop * factor)


def _cannot_split(shell: nn.Module, reason: str) -> ModelFormatError:
    return ModelFormatError(
        f"{type(shell).__name__} cannot be split over devices here: {reason}; use whole copies (strategy 'data')"
    )
