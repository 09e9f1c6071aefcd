"""A model in memory and what the engine needs to know about it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from workbench.models.embedding_recipe import EmbeddingRecipe, read_embedding_recipe
from workbench.models.files import ModelFiles
from workbench.models.spec import ModelSpec, read_json_object
from workbench.models.tokenizer import Tokenizer
from workbench.quantize import QuantizationConfig

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

__all__ = ["LoadedModel", "QuantizedFacts", "count_bytes", "describe_loaded", "is_tied"]


@dataclass(frozen=True)
class QuantizedFacts:
    """What was done to a model's matrices: the settings, the names of layers that kept more precision, the bytes of the
    weights before (in the model's own precision), the seconds it took, and whether they came out of the cache."""

    config: QuantizationConfig
    kept_layers: tuple[str, ...]
    original_bytes: int | None
    elapsed_s: float
    from_cache: bool = False


@dataclass
class LoadedModel:
    """A model in memory, ready to run: evaluation mode, no gradients.

    `weight_bytes` counts tied weights once; `generation_defaults` is what the model's author suggests for sampling;
    `embedding` is how the model makes embeddings, None if it was not trained for that.
    `quantized` says how the matrices were made smaller, None where they were not. With `is_bare` the module holds
    weights and cannot compute. The weights of `num_host_layers` are not on the device but copied there for each step.
    """

    module: PreTrainedModel
    spec: ModelSpec
    tokenizer: Tokenizer
    files: ModelFiles
    dtype: str
    device: str
    weight_bytes: int
    eos_token_ids: frozenset[int]
    generation_defaults: dict[str, Any] = field(default_factory=dict)
    embedding: EmbeddingRecipe | None = None
    quantized: QuantizedFacts | None = None
    is_bare: bool = False
    num_host_layers: int = 0


def describe_loaded(
    module: PreTrainedModel, tokenizer: Tokenizer, files: ModelFiles, dtype: str, device: str
) -> LoadedModel:
    """Ready `module` to run and state its facts, counted on the module itself."""
    module.eval().requires_grad_(False)
    spec = replace(
        ModelSpec.from_config(module.config),
        architecture=getattr(module, "architecture", type(module).__name__),
        num_parameters=sum(parameter.numel() for parameter in module.parameters()),
        tied_embeddings=is_tied(module),
    )
    return LoadedModel(
        module=module,
        spec=spec,
        tokenizer=tokenizer,
        files=files,
        dtype=dtype,
        device=device,
        weight_bytes=count_bytes(module),
        eos_token_ids=tokenizer.eos_token_ids,
        generation_defaults=_generation_defaults(files),
        embedding=read_embedding_recipe(files.path) if files.path else None,
    )


def count_bytes(module: nn.Module) -> int:
    """Bytes of all parameters and buffers, tied ones once."""
    return sum(tensor.nbytes for tensor in [*module.parameters(), *module.buffers()])


def is_tied(module: PreTrainedModel) -> bool:
    """Whether the output layer is the embedding table."""
    embeddings, head = module.get_input_embeddings(), module.get_output_embeddings()
    return head is not None and getattr(head, "weight", None) is getattr(embeddings, "weight", None)


def _generation_defaults(files: ModelFiles) -> dict[str, Any]:
    path = files.path / "generation_config.json" if files.path else None
    return read_json_object(path) if path and path.is_file() else {}
