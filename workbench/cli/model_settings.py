"""Which model to open, where, and in which precision: the options that all commands with a model share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.cli.deferred_interrupt import DeferredInterrupt
from workbench.parallel.sizes_text import config_from_text
from workbench.progress import Progress
from workbench.progress_display import ProgressDisplay

if TYPE_CHECKING:
    from workbench.cli.services import Services
    from workbench.engine import EngineConfig
    from workbench.llm import LlamaGPU

__all__ = ["ModelSettings"]


@dataclass(frozen=True)
class ModelSettings:
    """How to open a model. What the names mean is checked by who opens it.

    Attributes:
        model: "default" (the embedded model), a folder, a .gguf file, a hub id org/name[@revision], or random:<preset>.
        backend: "rocm", "cuda" or "cpu"; the best available one otherwise.
        device_index: which of the backend's devices.
        prefer_gpu: take a GPU where one is available.
        parallel: over several devices: tensor=2, pipeline=2, data=2 or several, and balancing=adaptive or another of
            the balancers; processes with --backend cpu.
        quant: precision of the weights: fp32, bf16, fp16, int8, int4, ...; what suits the device otherwise.
        allow_pickle: load pickle weights, which can run code from the file.
        trust_remote_code: run model code that comes with the model.
    """

    model: str = "default"
    backend: str | None = None
    device_index: int = 0
    prefer_gpu: bool = True
    quant: str | None = None
    parallel: str | None = None
    allow_pickle: bool = False
    trust_remote_code: bool = False

    def open(self, services: Services, engine: EngineConfig, **options: Any) -> LlamaGPU:
        """The loaded model, progress shown on stderr. Raises what loading raises, and KeyboardInterrupt on Ctrl-C."""
        if self.parallel is not None:
            options["parallel"] = config_from_text(self.parallel)
        with DeferredInterrupt() as interrupt, ProgressDisplay() as display:

            def report(progress: Progress) -> None:
                interrupt.check()
                display(progress)

            return services.open_llm(
                model_path=self.model,
                prefer_gpu=self.prefer_gpu,
                quant_type=self.quant,
                backend=self.backend,
                device_index=self.device_index,
                engine=engine,
                progress=report,
                trust_remote_code=self.trust_remote_code,
                allow_pickle=self.allow_pickle,
                **options,
            )
