"""Answers questions about a text, with a confidence from the model's own probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from workbench.errors import RequestError
from workbench.examples.answers import ask_all, mean_probability
from workbench.examples.statistics import mean_or_none

if TYPE_CHECKING:
    from workbench.llm import LlamaGPU

__all__ = ["QuestionAnswering"]

_PROMPT = """Answer the question in a few words from the context.

Context: The bridge was opened in 1932 and is 503 metres long.
Question: How long is the bridge?
Answer: 503 metres

Context: {context}
Question: {question}
Answer:"""


class QuestionAnswering:
    """Short answers from a context. `confidence` is the geometric mean of the answer's token probabilities: how sure
    the model was of its words, which is not how true they are."""

    def __init__(self, llm: LlamaGPU, max_tokens: int = 32) -> None:
        self._llm = llm
        self._max_tokens = max_tokens

    def answer_question(self, context: str, question: str) -> dict[str, Any]:
        """{context, question, answer, confidence}; confidence is None for an empty answer."""
        return self.answer_questions_batch([{"context": context, "question": question}])[0]

    def answer_questions_batch(
        self, pairs: Sequence[Mapping[str, str] | tuple[str, str]], batch_size: int | None = None
    ) -> list[dict[str, Any]]:
        """The same for several pairs of context and question, in their order."""
        asked = [_pair(pair) for pair in pairs]
        requests = [
            {
                "prompt": _PROMPT.format(context=context, question=question),
                "max_tokens": self._max_tokens,
                "stop": ("\n",),
                "logprobs": True,
            }
            for context, question in asked
        ]
        return [
            {
                "context": context,
                "question": question,
                "answer": completion.text.strip(),
                "confidence": mean_probability(completion),
            }
            for (context, question), completion in zip(asked, ask_all(self._llm, requests, batch_size), strict=True)
        ]

    def validate_answer(self, answer: str, context: str) -> bool:
        """Whether the answer stands in the context, word for word but for case and spaces."""
        plain = " ".join(answer.lower().rstrip(".").split())
        return bool(plain) and plain in " ".join(context.lower().split())

    def get_qa_statistics(self, results: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """{total_questions, answered, found_in_context, mean_confidence} of such results."""
        return {
            "total_questions": len(results),
            "answered": sum(bool(result["answer"]) for result in results),
            "found_in_context": sum(self.validate_answer(r["answer"], r["context"]) for r in results),
            "mean_confidence": mean_or_none(result["confidence"] for result in results),
        }


def _pair(pair: Mapping[str, str] | tuple[str, str]) -> tuple[str, str]:
    context, question = (pair["context"], pair["question"]) if isinstance(pair, Mapping) else pair
    for name, text in (("context", context), ("question", question)):
        if not text.strip():
            raise RequestError(f"{name} is empty: give some text")
    return context, question
