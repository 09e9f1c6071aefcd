"""Nine things to do with a model, each a small class over `LlamaGPU`: to use, to read, and to start from.

Answers with fields are held to a JSON schema inside the sampler, and every confidence is measured from the model's own
probabilities. What a 135M model says is often wrong; a larger one is a change of one line.
"""

from __future__ import annotations

import importlib
from types import MappingProxyType
from typing import Any

_HOMES = MappingProxyType(
    {
        "CodeGenerator": "workbench.examples.code_generation",
        "ConversationSimulator": "workbench.examples.conversation_simulation",
        "DataAnalyzer": "workbench.examples.data_analysis",
        "DocumentClassifier": "workbench.examples.document_classification",
        "InferenceDemo": "workbench.examples.inference",
        "LabelScorer": "workbench.examples.label_scorer",
        "LanguageDetector": "workbench.examples.language_detection",
        "NERProcessor": "workbench.examples.named_entity_recognition",
        "QuestionAnswering": "workbench.examples.question_answering",
        "TextGenerator": "workbench.examples.text_generation",
    }
)

__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
