"""The documented import path of `LlamaGPU`."""

from workbench.llm import LlamaGPU

__all__ = ["LlamaGPU"]
