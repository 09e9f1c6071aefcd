"""A model whose matrices are made smaller as they are read, or where that cannot be, once it is in memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from workbench.backends.dtypes import torch_dtype
from workbench.models.files import ModelFiles
from workbench.models.load_memory import check_memory
from workbench.models.loaded_model import LoadedModel, QuantizedFacts, count_bytes, describe_loaded, is_tied
from workbench.models.random_model import make_random_model
from workbench.models.tokenizer import Tokenizer, load_tokenizer
from workbench.models.weight_reader import WeightReader
from workbench.models.weights import blaming_files, check_fits, load_by_rules, matches_shell, stream_weights
from workbench.progress import Progress, ProgressCallback
from workbench.quantize import QuantizationConfig
from workbench.quantize.memory import storage_bytes
from workbench.safetensors_header import read_folder_headers
from workbench.shell import build_shell, quiet_transformers

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

    from workbench.quantize.methods import Method
    from workbench.quantize.streaming import StreamingQuantizer

__all__ = ["QuantizingLoad", "describe_quantized"]


@dataclass(frozen=True)
class _Shape:
    """Facts of an unquantised module: its number of weights, whether its embeddings are tied, and its bytes."""

    num_parameters: int
    tied_embeddings: bool
    original_bytes: int

    @classmethod
    def of(cls, module: PreTrainedModel) -> _Shape:
        return cls(sum(p.numel() for p in module.parameters()), is_tied(module), count_bytes(module))


@dataclass(frozen=True)
class QuantizingLoad:
    """What to load, where to, and how its matrices become smaller."""

    files: ModelFiles
    device: str
    dtype: str
    attn_implementation: str | None
    progress: ProgressCallback
    quantization: QuantizationConfig
    method: Method

    def run(self) -> LoadedModel:
        """The quantised model, with the time that it took. Raises what `load_model` raises."""
        started = time.perf_counter()
        if not getattr(self.method, "packs", False):
            loaded = self._by_apply()
        elif self.files.path is None:
            loaded = self._from_random()
        else:
            loaded = self._from_folder()
        assert loaded.quantized is not None
        loaded.quantized = replace(loaded.quantized, elapsed_s=time.perf_counter() - started)
        return loaded

    def _from_random(self) -> LoadedModel:
        begun: list[tuple[_Shape, StreamingQuantizer]] = []

        def begin(shell: PreTrainedModel) -> StreamingQuantizer:
            begun.append((_Shape.of(shell), self._quantizer(shell)))
            return begun[0][1]

        module, tokenizer = self._random(begin)
        shape, quantizer = begun[0]
        return self._end(module, tokenizer, shape, quantizer.finish())

    def _from_folder(self) -> LoadedModel:
        from workbench.quantize.plain_attention import plain_attention
        from workbench.quantize.samples import sample_ids

        dtype = torch_dtype(self.dtype)
        self.progress(Progress("read config", 0, None, "files"))
        tensors = read_folder_headers(self.files.folder)
        tokenizer = self._tokenizer()
        with quiet_transformers():
            config, shell = self._shell()
            if not matches_shell(shell, tensors, dtype):
                return self._whole(self._by_rules(config, shell), tokenizer)
            check_fits(shell, tensors)
            shape, quantizer = _Shape.of(shell), self._quantizer(shell, can_refine=True)
            stream_weights(shell, tensors, self.device, self.progress, quantizer)
            quantizer.finish()
            if quantizer.can_refine:
                self.progress(Progress("look at what layers see", 0, None))
                with WeightReader(self.device) as reader, plain_attention(shell.eval().requires_grad_(False)):
                    ids = sample_ids(shell, tokenizer, None)
                    quantizer.refine(lambda name: reader.read(tensors[name], dtype), ids)
        return self._end(shell, tokenizer, shape, quantizer.finish())

    def _by_apply(self) -> LoadedModel:
        """A method that takes a whole model, such as a plugin's: its weights are unknown here, and are not kept."""
        module, tokenizer = self._random() if self.files.path is None else self._unquantised()
        shape = _Shape.of(module)
        kept = self.method.apply(module.eval().requires_grad_(False), self.quantization, ())
        return self._described(module, tokenizer, shape, tuple(kept or ()))

    def _whole(self, module: PreTrainedModel, tokenizer: Tokenizer) -> LoadedModel:
        """Quantise a model that is in memory already."""
        from workbench.quantize.layers import quantize_layers

        shape = _Shape.of(module)
        module.eval().requires_grad_(False)
        return self._end(module, tokenizer, shape, quantize_layers(module, self.quantization, self.method, ()))

    def _unquantised(self) -> tuple[PreTrainedModel, Tokenizer]:
        tensors = read_folder_headers(self.files.folder)
        tokenizer = self._tokenizer()
        with quiet_transformers():
            config, shell = self._shell()
            if not matches_shell(shell, tensors, torch_dtype(self.dtype)):
                return self._by_rules(config, shell), tokenizer
            check_memory(count_bytes(shell), self.device, self.dtype)
            stream_weights(shell, tensors, self.device, self.progress)
        return shell, tokenizer

    def _random(
        self, quantizer_for: Callable[[PreTrainedModel], StreamingQuantizer] | None = None
    ) -> tuple[PreTrainedModel, Tokenizer]:
        made = make_random_model(
            self.files.source.location,
            device=self.device,
            dtype=self.dtype,
            attn_implementation=self.attn_implementation,
            progress=self.progress,
            quantizer_for=quantizer_for,
        )
        return made.module, made.tokenizer

    def _tokenizer(self) -> Tokenizer:
        return load_tokenizer(self.files.folder, trust_remote_code=self.files.trust_remote_code)

    def _shell(self) -> tuple[PretrainedConfig, PreTrainedModel]:
        from transformers import AutoConfig

        files = self.files
        with blaming_files(files):
            config = AutoConfig.from_pretrained(
                str(files.path), local_files_only=True, trust_remote_code=files.trust_remote_code
            )
            dtype = torch_dtype(self.dtype)
            return config, build_shell(config, dtype, self.attn_implementation, files.trust_remote_code)

    def _by_rules(self, config: PretrainedConfig, shell: PreTrainedModel) -> PreTrainedModel:
        """The whole model, whose weights must be rearranged first."""
        check_memory(count_bytes(shell), self.device, self.dtype)
        self.progress(Progress("load weights", 0, None, "tensors"))
        return load_by_rules(self.files, config, self.device, self.dtype, self.attn_implementation)

    def _quantizer(self, shell: PreTrainedModel, *, can_refine: bool = False) -> StreamingQuantizer:
        """Checks that the result fits."""
        from workbench.quantize.streaming import StreamingQuantizer, quantized_bytes

        needed_bytes = quantized_bytes(shell, self.quantization, self.device)
        check_memory(needed_bytes, self.device, self.quantization.quantization_type.value)
        return StreamingQuantizer(shell, self.quantization, self.method, can_refine=can_refine)

    def _end(self, module: PreTrainedModel, tokenizer: Tokenizer, shape: _Shape, kept: tuple[str, ...]) -> LoadedModel:
        return self._described(module, tokenizer, shape, (*kept, *self._calibrate(module, tokenizer)))

    def _calibrate(self, module: PreTrainedModel, tokenizer: Tokenizer) -> tuple[str, ...]:
        if not self.method.needs_samples:
            return ()
        from workbench.quantize.plain_attention import plain_attention
        from workbench.quantize.samples import sample_ids

        module.eval().requires_grad_(False)
        with plain_attention(module):
            return self.method.finish(module, self.quantization, sample_ids(module, tokenizer, None))

    def _described(
        self, module: PreTrainedModel, tokenizer: Tokenizer, shape: _Shape, kept: tuple[str, ...]
    ) -> LoadedModel:
        loaded = describe_loaded(module, tokenizer, self.files, self.dtype, self.device)
        facts = QuantizedFacts(self.quantization, kept, shape.original_bytes, 0.0)
        return describe_quantized(loaded, shape.num_parameters, shape.tied_embeddings, facts)


def describe_quantized(
    loaded: LoadedModel, num_parameters: int | None, tied_embeddings: bool, facts: QuantizedFacts
) -> LoadedModel:
    """The same with the facts of the model before it was quantised, which its module does not tell."""
    loaded.spec = replace(loaded.spec, num_parameters=num_parameters, tied_embeddings=tied_embeddings)
    loaded.weight_bytes = storage_bytes(loaded.module)
    loaded.quantized = facts
    return loaded
