"""Which engines a benchmark can run, by name, and what one needs to start."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from workbench.models import ModelFiles

__all__ = ["ENGINE_NAMES", "OURS", "EngineChoice"]

OURS = "workbench"
# As `peer_engine.py` knows them.
ENGINE_NAMES = (
    OURS,
    "transformers",
    "transformers-compiled",
    "transformers-batching",
    "transformers-serve",
    "transformers-serve-batching",
    "llama.cpp",
    "vllm",
)


@dataclass(frozen=True)
class EngineChoice:
    """One engine on one backend. `python` is the interpreter it runs under, for engines whose packages do not go with
    ours; `quant` is the precision of our own (None: the device's choice), `draft_model` guesses ahead in it."""

    name: str
    backend: str
    quant: str | None = None
    python: str = sys.executable
    draft_model: str | None = None

    @property
    def label(self) -> str:
        """ "workbench int4, cpu"."""
        draft = None if self.draft_model is None else f"with draft {self.draft_model}"
        return " ".join(filter(None, (self.name, self.quant, draft))) + f", {self.backend}"

    @property
    def is_ours(self) -> bool:
        """Whether this is the workbench itself."""
        return self.name == OURS

    def obstacle(self, files: ModelFiles) -> str | None:
        """Why these files cannot be given to that engine; None where they can."""
        if self.is_ours:
            return None
        if files.path is None:
            return "random weights have no files that another engine could load"
        if self.name == "llama.cpp" and files.gguf_path is None:
            return "it needs a .gguf file, and this model has none"
        return None

    def arguments(self, files: ModelFiles, model: str, *, threads: int, context_length: int) -> Sequence[str]:
        """The command line of `peer_engine.py`, without the script."""
        words = [self.name, f"--model={model}", f"--threads={threads}", f"--context={context_length}"]
        words += [f"--backend={self.backend}", f"--quant={self.quant or ''}"]
        if self.draft_model is not None:
            words.append(f"--draft-model={self.draft_model}")
        paths: dict[str, Path | None] = {"folder": files.path, "gguf": files.gguf_path}
        return words + [f"--{name}={path}" for name, path in paths.items() if path is not None]
