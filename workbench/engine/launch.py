"""What it takes to build an engine, as plain values, and the building, in whichever process that happens."""

from __future__ import annotations

import gc
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from workbench.backends import Backend, get_backend
from workbench.backends.processor import Processor
from workbench.engine.config import EngineConfig, EngineLimits, wanted_context
from workbench.errors import ConfigError, ModelFormatError
from workbench.models import EmbeddingRecipe, LoadedModel, ModelFiles, ModelSpec
from workbench.models.bare_config import read_bare_config
from workbench.models.layer_offload import LayerOffload
from workbench.models.loaded_model import QuantizedFacts
from workbench.models.model_code import import_model_code, import_torch
from workbench.models.spec import read_config
from workbench.models.vocabulary import check_same_vocabulary
from workbench.plugins import default_plugins
from workbench.progress import Progress, ProgressCallback
from workbench.quantize import QuantizationCache, QuantizationConfig, QuantizationType

if TYPE_CHECKING:
    from workbench.engine.build import BuiltEngine

__all__ = ["STARTING", "DraftFacts", "EngineFacts", "EngineLaunch", "Launch", "check_drafts", "release"]


@dataclass(frozen=True)
class DraftFacts:
    """What is known of a draft model that is loaded; `kv_bytes` is its part of the engine's KV pool."""

    name: str
    spec: ModelSpec
    dtype: str
    weight_bytes: int
    kv_bytes: int


@dataclass(frozen=True)
class EngineFacts:
    """What is known of an engine once its model is loaded. `weight_bytes` counts those of its draft model too."""

    limits: EngineLimits
    spec: ModelSpec
    weight_bytes: int
    embedding: EmbeddingRecipe | None
    dtype: str
    quantized: QuantizedFacts | None
    draft: DraftFacts | None = None

    @classmethod
    def of(cls, loaded: LoadedModel, limits: EngineLimits, draft: DraftFacts | None = None) -> EngineFacts:
        """The facts of a loaded model whose engine runs under `limits`, with a draft model if it has one."""
        weight_bytes = loaded.weight_bytes + (0 if draft is None else draft.weight_bytes)
        return cls(limits, loaded.spec, weight_bytes, loaded.embedding, loaded.dtype, loaded.quantized, draft)


class Launch(Protocol):
    """Plain values from which an engine is built wherever they are sent."""

    def build(self, progress: ProgressCallback) -> BuiltEngine: ...


# The last of a load: a run to learn what a step takes, weights packed and joined, the pool.
STARTING = Progress("start the engine", 0, None, "")


@dataclass(frozen=True)
class EngineLaunch:
    """Checked files, where to and in which precision, and the engine's knobs.

    `low_bit` is what the engine packs the weights into for a GPU's own kernels; `cache` keeps other quantised weights.
    `draft_files` are those of `config.draft_model`.
    """

    files: ModelFiles
    backend_name: str
    device_index: int
    dtype: str
    quantization: QuantizationConfig | None
    low_bit: str | None
    cache: QuantizationCache | None
    config: EngineConfig
    draft_files: ModelFiles | None = None

    @property
    def keeps_packed(self) -> bool:
        """Whether the weights stay as the .gguf file has them."""
        config = self.quantization
        return config is not None and config.quantization_type is QuantizationType.GGUF

    def load(self, progress: ProgressCallback, backend: Backend) -> LoadedModel:
        """The model in memory, quantised unless the engine does that. After whatever it raises nothing is allocated."""
        offload = self._offload(backend)
        self._check_context()
        if self.draft_files is not None:
            check_drafts(self.config)
            check_same_vocabulary(self.files, self.draft_files)
        try:
            loaded = self._load_bare(progress, backend)
            if loaded is not None:
                return loaded
            import_model_code(progress)
            from workbench.engine.attention import register_attention
            from workbench.engine.low_bit_choice import choose_low_bit
            from workbench.models import load_model

            device = backend.torch_device(self.device_index)
            method = choose_low_bit(self.files, self.low_bit, device=device, dtype=self.dtype)
            quantization = self.quantization if method is None else method.config
            loaded = load_model(
                self.files,
                device=device,
                dtype=self.dtype,
                attn_implementation=register_attention(),
                keep_packed=self.keeps_packed,
                quantization=None if self.keeps_packed else quantization,
                cache=self.cache,
                method=method,
                part=offload,
                progress=progress,
            )
            if offload is not None:
                offload.attach(loaded.module, device)
                loaded.num_host_layers = offload.num_layers
            return loaded
        except BaseException:
            release(backend)
            raise

    def load_draft(self, progress: ProgressCallback, backend: Backend) -> LoadedModel | None:
        """The draft model in memory; None where there is none. Raises what `load` raises."""
        if self.draft_files is None:
            return None
        is_packed = self.draft_files.gguf_path is not None and backend.device_type == "cpu"
        launch = replace(
            self,
            files=self.draft_files,
            quantization=QuantizationConfig(QuantizationType.GGUF) if is_packed else None,
            low_bit=None,
            # Its own context may be shorter: longer answers are not guessed.
            config=replace(self.config, context_length=None, draft_model=None, draft_tokens=None),
            draft_files=None,
        )
        return launch.load(progress, backend)

    def _check_context(self) -> None:
        """Raises ConfigError for a context that the model has not, before anything large is read."""
        if self.config.context_length is None or self.files.path is None:
            return
        try:
            spec = ModelSpec.from_config(read_config(self.files.path))
        except ModelFormatError:
            # What the file leaves to its family's defaults is known once the model is there.
            return
        wanted_context(self.config, spec.max_context)

    def _offload(self, backend: Backend) -> LayerOffload | None:
        """Raises ConfigError where nothing can stay in the host's memory."""
        count = self.config.cpu_offload_layers
        if count is None:
            return None
        if backend.device_type == "cpu":
            raise ConfigError(f"cpu_offload_layers={count}: on a CPU every layer is in the host's memory")
        if self.quantization is not None:
            name = self.quantization.quantization_type.value
            raise ConfigError(f"cpu_offload_layers={count}: goes with fp32, bf16 and fp16 weights, not with {name}")
        return LayerOffload(count)

    def _load_bare(self, progress: ProgressCallback, backend: Backend) -> LoadedModel | None:
        """The weights alone, where the native decoder is there to compute with them: transformers' model classes, which
        take most of a first load, are not imported then. None where they are needed."""
        weights_fit = self.keeps_packed or (self.quantization is None and self.dtype in ("fp32", "bf16"))
        if backend.device_type != "cpu" or self.config.engine_name != "paged" or not weights_fit:
            return None
        bare = read_bare_config(self.files) if self.config.native_kernels else None
        if bare is None:
            return None
        import_torch(progress)
        from workbench.engine.native.choice import decoder_is_ready
        from workbench.models.bare_load import load_bare_model

        if not decoder_is_ready(bare, Processor()):
            return None
        return load_bare_model(self.files, bare, dtype=self.dtype, keep_packed=self.keeps_packed, progress=progress)

    def build(self, progress: ProgressCallback) -> BuiltEngine:
        """Load the model and put an engine around it, in a process that does nothing else."""
        backend = get_backend(self.backend_name)
        if backend.device_type != "cpu":
            import torch

            # What asks for no device gets the one of this engine.
            torch.cuda.set_device(backend.torch_device(self.device_index))
        plugins = default_plugins()
        plugins.load_enabled()
        loaded = self.load(progress, backend)
        draft = self.load_draft(progress, backend)
        progress(STARTING)
        from workbench.engine.build import build_engine

        return build_engine(loaded, backend, self.device_index, self.config, self.low_bit, plugins, draft)


def check_drafts(config: EngineConfig) -> None:
    """Raises ConfigError where the engine that the config names cannot have its draft model."""
    if config.draft_model is not None and config.engine_name != "paged":
        raise ConfigError(f"draft_model={config.draft_model!r}: goes with our own engine, not {config.engine_name!r}")


def release(backend: Backend) -> None:
    """Collect what nothing refers to any more, cycles too, and hand it back to the device and the system."""
    gc.collect()
    backend.empty_cache()
