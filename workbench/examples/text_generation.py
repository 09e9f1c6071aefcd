"""Writes a text in a style and of a length."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from workbench.errors import RequestError
from workbench.examples.answers import Speed, ask_all, user_message

if TYPE_CHECKING:
    from workbench.llm import LlamaGPU

__all__ = ["LENGTHS", "STYLES", "TextGenerator"]

STYLES = MappingProxyType(
    {
        "creative": "Write vividly, as in a story.",
        "technical": "Write precisely and factually, for engineers.",
        "business": "Write clearly and to the point, for colleagues.",
        "academic": "Write soberly, as in a paper.",
    }
)
# Most tokens of each length.
LENGTHS = MappingProxyType({"short": 100, "medium": 300, "long": 800, "extended": 1500})


class TextGenerator:
    """Generates texts; `style` is one of STYLES or None."""

    def __init__(self, llm: LlamaGPU, style: str | None = None) -> None:
        if style is not None and style not in STYLES:
            raise RequestError(f"style={style!r}: use one of {', '.join(STYLES)}")
        self._llm = llm
        self._style = style

    def generate_text(
        self, prompt: str, max_tokens: int = 500, temperature: float = 0.7, **sampling: Any
    ) -> dict[str, Any]:
        """{prompt, generated_text, token_count, generation_time, tokens_per_second, backend, gpu_used}; seconds."""
        return self.batch_generate([prompt], max_tokens, temperature, **sampling)[0]

    def batch_generate(
        self,
        prompts: Sequence[str],
        max_tokens: int = 500,
        temperature: float = 0.7,
        batch_size: int | None = None,
        **sampling: Any,
    ) -> list[dict[str, Any]]:
        """The same for several prompts in one batch; time and tokens/s are then each request's own."""
        asked = [f"{prompt}\n\n{STYLES[self._style]}" if self._style else prompt for prompt in prompts]
        requests = [
            {"messages": user_message(text), "max_tokens": max_tokens, "temperature": temperature, **sampling}
            for text in asked
        ]
        completions = ask_all(self._llm, requests, batch_size)
        results = []
        for prompt, completion in zip(prompts, completions, strict=True):
            speed = Speed.of(completion, self._llm)
            results.append(
                {
                    "prompt": prompt,
                    "generated_text": completion.text.strip(),
                    "token_count": speed.num_tokens,
                    "generation_time": round(speed.seconds, 3),
                    "tokens_per_second": speed.tokens_per_second,
                    "backend": speed.backend,
                    "gpu_used": speed.gpu_used,
                }
            )
        return results
