"""Writes code for a task in one of five languages."""

from __future__ import annotations

import re
from collections.abc import Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from workbench.errors import RequestError
from workbench.examples.answers import Speed, ask_all, user_message

if TYPE_CHECKING:
    from workbench.llm import LlamaGPU

__all__ = ["COMPLEXITIES", "LANGUAGES", "CodeGenerator"]

LANGUAGES = MappingProxyType(
    {"python": "Python", "javascript": "JavaScript", "java": "Java", "cpp": "C++", "rust": "Rust"}
)
# Most tokens of each complexity.
COMPLEXITIES = MappingProxyType({"simple": 300, "medium": 600, "high": 1200})


class CodeGenerator:
    """Generates code; what comes back is the first code block of the answer, or all of it where there is none."""

    def __init__(self, llm: LlamaGPU) -> None:
        self._llm = llm

    def generate_code(
        self, task: str, language: str = "python", complexity: str = "simple", **sampling: Any
    ) -> dict[str, Any]:
        """{task, language, complexity, generated_code, line_count, token_count, generation_time, lines_per_second,
        tokens_per_second, backend, gpu_used}; seconds."""
        return self.batch_generate([task], language, complexity, **sampling)[0]

    def batch_generate(
        self,
        tasks: Sequence[str],
        language: str = "python",
        complexity: str = "simple",
        batch_size: int | None = None,
        **sampling: Any,
    ) -> list[dict[str, Any]]:
        """The same for several tasks in one batch; time and speeds are each request's own."""
        for name, value, allowed in (
            ("language", language, LANGUAGES),
            ("complexity", complexity, COMPLEXITIES),
        ):
            if value not in allowed:
                raise RequestError(f"{name}={value!r}: use one of {', '.join(allowed)}")
        options = {"max_tokens": COMPLEXITIES[complexity], **sampling}
        asked = [f"Write {LANGUAGES[language]} code: {task}. Answer with one code block." for task in tasks]
        completions = ask_all(self._llm, [{"messages": user_message(t), **options} for t in asked], batch_size)
        results = []
        for task, completion in zip(tasks, completions, strict=True):
            code = _first_block(completion.text)
            speed = Speed.of(completion, self._llm)
            lines = len([line for line in code.splitlines() if line.strip()])
            results.append(
                {
                    "task": task,
                    "language": language,
                    "complexity": complexity,
                    "generated_code": code,
                    "line_count": lines,
                    "token_count": speed.num_tokens,
                    "generation_time": round(speed.seconds, 3),
                    "lines_per_second": round(lines / speed.seconds, 2) if speed.seconds else 0.0,
                    "tokens_per_second": speed.tokens_per_second,
                    "backend": speed.backend,
                    "gpu_used": speed.gpu_used,
                }
            )
        return results


def _first_block(text: str) -> str:
    """The inside of the first fence; one that max_tokens left open goes to the end."""
    found = re.search(r"```[\w+#-]*\n(.*?)(?:```|\Z)", text, flags=re.DOTALL)
    return (found.group(1) if found else text).strip("\n")
