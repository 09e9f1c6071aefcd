"""Turn a .gguf file into a safetensors folder, in a child process: its memory goes back whole, and it can be killed."""

from __future__ import annotations

import re
from pathlib import Path

from workbench.child_lifetime import python_command, python_environment
from workbench.errors import ModelFormatError
from workbench.models.child_process import log_tail, run_child
from workbench.progress import Progress, ProgressCallback

__all__ = ["CONVERSION_VERSION", "convert_gguf"]

# Part of the cache key: raise it when the converted folder would come out different.
CONVERSION_VERSION = 1

# The last "12/272 [" that a progress bar wrote.
_BAR = re.compile(rb"(\d+)/(\d+) \[")


def convert_gguf(gguf: Path, folder: Path, progress: ProgressCallback) -> None:
    """Write config, tokenizer, chat template, generation defaults and exact weights of `gguf` into `folder`.

    Quantised weights become float32, which holds every `scale * q + minimum` exactly; files in half precision stay
    so. Raises `ModelFormatError` with the reader's own words when the file cannot be read.
    """
    log = folder / "conversion.log"
    status = run_child(
        python_command("workbench.models.gguf_converter", str(gguf), str(folder)),
        log=log,
        environment=python_environment(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false"),
        on_poll=lambda: progress(_progress(log)),
    )
    if status != 0:
        raise ModelFormatError(f"{gguf} could not be converted (exit status {status}): {_reason(log)}")
    log.unlink()


def _progress(log: Path) -> Progress:
    bars = _BAR.findall(log.read_bytes())
    if not bars:
        return Progress("convert", 0, None, "tensors")
    completed, total = bars[-1]
    return Progress("convert", int(completed), int(total), "tensors")


def _reason(log: Path) -> str:
    lines = log_tail(log, 3).splitlines()
    return lines[-1] if lines else "the converter was stopped from outside, perhaps for lack of memory"
