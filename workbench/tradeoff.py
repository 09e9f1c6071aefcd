"""What each precision costs and saves for one model here: memory, speed and quality, all of it measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.backends import Backend, get_backend, select_backend
from workbench.engine import EngineConfig, SamplingParams
from workbench.errors import ConfigError
from workbench.models import Catalogue, LoadedModel, load_model
from workbench.models.files import ModelFiles
from workbench.models.load_memory import release_memory
from workbench.models.model_code import import_model_code
from workbench.progress import ProgressCallback, no_progress
from workbench.quantize import QuantizationCache, QuantizationConfig, QuantType, parse_quant_type
from workbench.quantize.quant_type import available_names
from workbench.stand_in import find_stand_in

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go
    import torch

__all__ = ["MeasuredMethod", "Tradeoff", "default_methods", "measured_frame", "tradeoff"]

_BYTES_PER_MB = 1024**2
_SPEED_PROMPT_TOKENS = 32
# Okabe and Ito's colours, told apart by everybody.
_COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#F0E442", "#000000")


@dataclass(frozen=True)
class MeasuredMethod:
    """One precision or quantisation, measured.

    `share` is of the unquantised weights, `tokens_per_s` of one greedy answer at a time, `perplexity_change` relative
    (0.01: one percent worse), `mean_kl` in nats, `top1_agreement` the share of positions at which both find the same
    token likeliest. `problem` says why it could not be measured; the figures are None then.
    """

    method: str
    weight_bytes: int | None = None
    share: float | None = None
    tokens_per_s: float | None = None
    perplexity: float | None = None
    perplexity_change: float | None = None
    mean_kl: float | None = None
    top1_agreement: float | None = None
    problem: str = ""


def measured_frame(measured: Sequence[MeasuredMethod]) -> pd.DataFrame:
    """One row a method, indexed by its name; the columns are the fields of `MeasuredMethod`."""
    import pandas as pd

    names = [field.name for field in fields(MeasuredMethod)]
    return pd.DataFrame([asdict(one) for one in measured], columns=names).set_index("method")


@dataclass(frozen=True)
class Tradeoff:
    """What was measured of one model, as values (`methods`), as a DataFrame and as a figure."""

    model: str
    methods: tuple[MeasuredMethod, ...]

    @property
    def frame(self) -> pd.DataFrame:
        """One row a method, as `measured_frame` gives it."""
        return measured_frame(self.methods)

    @property
    def figure(self) -> go.Figure:
        """Memory against speed, the size of a point growing with what is lost."""
        import plotly.graph_objects as go

        figure = go.Figure()
        for number, one in enumerate(one for one in self.methods if not one.problem):
            figure.add_trace(_point(one, _COLORS[number % len(_COLORS)]))
        figure.update_layout(
            title=f"{self.model}: memory, speed and what is lost",
            xaxis={"title": "weights, MB", "rangemode": "tozero"},
            yaxis={"title": "tokens/s, one answer at a time", "rangemode": "tozero"},
            template="plotly_white",
        )
        return figure

    def __repr__(self) -> str:
        return f"Tradeoff({self.model!r})\n{self.frame.to_string(float_format=lambda number: f'{number:.4g}')}"


def default_methods(backend: Backend, files: ModelFiles) -> tuple[str, ...]:
    """The unquantised precision of the device, and every quantisation that it has for these files."""
    names = [name for name in available_names(backend.name) if name != "gguf" or files.gguf_path is not None]
    return (backend.default_dtype(0).dtype, *names)


def tradeoff(
    model: str | Path = "default",
    methods: Sequence[str | QuantizationConfig] | None = None,
    prompts: Sequence[str] | None = None,
    *,
    backend: str | Backend | None = None,
    max_tokens: int = 64,
    quantization_cache: QuantizationCache | None = None,
    progress: ProgressCallback = no_progress,
    on_method: Callable[[MeasuredMethod], None] = lambda measured: None,
    is_wanted: Callable[[], bool] = lambda: True,
) -> Tradeoff:
    """Load the model once in each way, measure it, and give its memory back before the next.

    Args:
        model: any name that `LlamaGPU` takes.
        methods: precisions and quantisations; None is all that this device has.
        prompts: texts that quality is measured on; None is a built-in one of some 450 tokens.
        backend: "cpu", "cuda" or "rocm"; None is the best available one.
        max_tokens: length of the answer that speed is measured on.
        quantization_cache: where quantised weights are taken from and kept; None keeps none.
        on_method: told each method as soon as it is measured.
        is_wanted: asked before each; the rest is left out once it says no.

    Quality is measured against the unquantised model in the device's own precision. A method that fails becomes a row
    with its `problem`. Raises what loading the unquantised model raises, and ConfigError for unknown methods or prompts
    that cannot be measured on.
    """
    if isinstance(methods, str) or (methods is not None and not methods):
        raise ConfigError(f"methods={methods!r}: must be a list that names at least one, or None for all")
    model, backend = _stood_in(str(model), backend)
    chosen = _choose_backend(backend)
    files = Catalogue().resolve(model, progress=progress)
    asked = [parse_quant_type(method) for method in methods or default_methods(chosen, files)]
    runs = _Runs(files, chosen, prompts, max_tokens, quantization_cache, progress)
    measured: list[MeasuredMethod] = []
    for quant in asked:
        if not is_wanted():
            break
        measured.append(runs.measure(quant))
        on_method(measured[-1])
    return Tradeoff(files.name, tuple(measured))


class _Runs:
    """One model on one device: its reference predictions, and a measured row for each method."""

    def __init__(
        self,
        files: ModelFiles,
        backend: Backend,
        prompts: Sequence[str] | None,
        max_tokens: int,
        cache: QuantizationCache | None,
        progress: ProgressCallback,
    ) -> None:
        from workbench.engine.attention import register_attention

        import_model_code()
        self._files, self._backend, self._cache, self._progress = files, backend, cache, progress
        self._device = backend.torch_device(0)
        self._dtype = backend.default_dtype(0).dtype
        self._attention = register_attention()
        self._speed_params = SamplingParams(max_tokens=max_tokens, ignore_eos=True)
        loaded = self._load(QuantType(self._dtype, self._dtype))
        self._samples = self._sample(loaded, prompts)
        self._reference = self._logits(loaded)
        self._reference_bytes = loaded.weight_bytes
        del loaded
        release_memory(self._device)

    def measure(self, quant: QuantType) -> MeasuredMethod:
        """The method's figures; a failure of it is told in them."""
        try:
            quant.require_on(self._backend.name)
            return self._measured(quant)
        # Boundary: one method's failure, of whatever kind, must not take the others' results away.
        except Exception as error:
            return MeasuredMethod(quant.name, problem=f"{type(error).__name__}: {error}")
        finally:
            release_memory(self._device)

    def _measured(self, quant: QuantType) -> MeasuredMethod:
        from workbench.quantize.quality import compare

        low_bit = quant.engine_packed_name(self._backend.device_type)
        loaded = self._load(quant, low_bit)
        quality = compare(self._reference, self._logits(loaded), self._samples)
        num_bytes = loaded.weight_bytes
        return MeasuredMethod(
            quant.name,
            weight_bytes=num_bytes,
            share=num_bytes / self._reference_bytes,
            tokens_per_s=self._speed(loaded, low_bit),
            perplexity=quality.perplexity,
            perplexity_change=quality.perplexity_change,
            mean_kl=quality.mean_kl,
            top1_agreement=quality.top1_agreement,
        )

    def _load(self, quant: QuantType, low_bit: str | None = None) -> LoadedModel:
        """With `low_bit`, packed for the GPU's own kernels where these know the model, as a load by name is."""
        from workbench.engine.low_bit_choice import choose_low_bit

        is_gguf = quant.name == "gguf"
        method = choose_low_bit(self._files, low_bit, device=self._device, dtype=self._dtype)
        return load_model(
            self._files,
            device=self._device,
            dtype=quant.dtype or self._dtype,
            attn_implementation=self._attention,
            keep_packed=is_gguf,
            quantization=None if is_gguf else quant.config if method is None else method.config,
            cache=self._cache,
            method=method,
            progress=self._progress,
        )

    def _sample(self, loaded: LoadedModel, prompts: Sequence[str] | None) -> list[torch.Tensor]:
        from workbench.quantize.samples import sample_ids

        return sample_ids(loaded.module, loaded.tokenizer, prompts)

    def _logits(self, loaded: LoadedModel) -> list[torch.Tensor]:
        from workbench.quantize.plain_attention import plain_attention
        from workbench.quantize.quality import token_logits

        with plain_attention(loaded.module):
            return token_logits(loaded.module, self._samples)

    def _speed(self, loaded: LoadedModel, low_bit: str | None) -> float | None:
        """Tokens a second of one answer, the first one left out."""
        from workbench.engine.build import start_engine

        prompt = self._samples[0][0, :_SPEED_PROMPT_TOKENS].tolist()
        started = start_engine(loaded, self._backend, 0, EngineConfig(context_length=1024), low_bit)
        try:
            # The first answer warms up what is compiled or cached on first use.
            started.client.submit(prompt, SamplingParams(max_tokens=4, ignore_eos=True)).result()
            return started.client.submit(prompt, self._speed_params).result().timings.decode_tokens_per_s
        finally:
            started.client.stop()


def _stood_in(model: str, backend: str | Backend | None) -> tuple[str, str | Backend | None]:
    stand_in = find_stand_in(model, backend=backend, quant_type=None, context_length=None)
    return (model, backend) if stand_in is None else (stand_in.model, stand_in.backend)


def _choose_backend(backend: str | Backend | None) -> Backend:
    if backend is None:
        return select_backend(True).backend
    chosen = get_backend(backend) if isinstance(backend, str) else backend
    chosen.require_available()
    return chosen


def _point(one: MeasuredMethod, color: str) -> go.Scatter:
    import plotly.graph_objects as go

    # Only methods that could be measured have a point.
    assert one.weight_bytes is not None and one.mean_kl is not None
    lost = f"perplexity {one.perplexity_change:+.1%}, KL {one.mean_kl:.3f}, top-1 {one.top1_agreement:.1%}"
    return go.Scatter(
        x=[one.weight_bytes / _BYTES_PER_MB],
        y=[one.tokens_per_s],
        mode="markers+text",
        name=f"{one.method}: {lost}",
        text=[one.method],
        textposition="top center",
        marker={"color": color, "size": 12 + 60 * min(1.0, one.mean_kl) ** 0.5, "opacity": 0.7},
        hovertemplate=f"{one.method}<br>%{{x:.0f}} MB, %{{y:.1f}} tokens/s<br>{lost}<extra></extra>",
    )
