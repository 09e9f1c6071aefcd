"""Says in which of twenty languages a text is written, with a measured confidence."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from workbench.errors import RequestError
from workbench.examples.label_scorer import LabelScorer
from workbench.examples.statistics import mean_or_none, share_of_each

if TYPE_CHECKING:
    from workbench.llm import LlamaGPU

__all__ = ["LANGUAGES", "LanguageDetector"]

# Name: ISO 639-1 code and family.
LANGUAGES = MappingProxyType(
    {
        "English": ("en", "Germanic"), "German": ("de", "Germanic"), "Dutch": ("nl", "Germanic"),
        "Swedish": ("sv", "Germanic"), "Norwegian": ("no", "Germanic"), "Danish": ("da", "Germanic"),
        "Spanish": ("es", "Romance"), "French": ("fr", "Romance"), "Italian": ("it", "Romance"),
        "Portuguese": ("pt", "Romance"), "Russian": ("ru", "Slavic"), "Polish": ("pl", "Slavic"),
        "Finnish": ("fi", "Uralic"), "Turkish": ("tr", "Turkic"), "Arabic": ("ar", "Semitic"),
        "Hebrew": ("he", "Semitic"), "Hindi": ("hi", "Indo-Aryan"), "Chinese": ("zh", "Sino-Tibetan"),
        "Japanese": ("ja", "Japonic"), "Korean": ("ko", "Koreanic"),
    }
)  # fmt: skip
_MAX_CHARS = 300
_EXAMPLES = (
    ("Das Wetter ist heute sehr schön.", "German"),
    ("Where is the nearest station?", "English"),
    ("Me gusta leer por la noche.", "Spanish"),
)


class LanguageDetector:
    """Scores twenty languages for a text; `confidence` is the winner's share of the probability."""

    def __init__(self, llm: LlamaGPU) -> None:
        self._scorer = LabelScorer(llm, "Text: {text}\nLanguage:", tuple(LANGUAGES), _EXAMPLES)

    def detect_language(self, text: str) -> dict[str, Any]:
        """{text, language, iso_code, confidence, family}."""
        return self.detect_languages_batch([text])[0]

    def detect_languages_batch(self, texts: Sequence[str], batch_size: int | None = None) -> list[dict[str, Any]]:
        """The same for several, in their order."""
        for text in texts:
            if not text.strip():
                raise RequestError("a text is empty: give some text")
        rankings = self._scorer.score_all([" ".join(text.split())[:_MAX_CHARS] for text in texts], batch_size)
        return [
            {
                "text": text,
                "language": ranking[0].label,
                "iso_code": LANGUAGES[ranking[0].label][0],
                "confidence": ranking[0].probability,
                "family": LANGUAGES[ranking[0].label][1],
            }
            for text, ranking in zip(texts, rankings, strict=True)
        ]

    def get_detection_statistics(self, results: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """{total_texts, by_language, by_family, mean_confidence} of such results."""
        return {
            "total_texts": len(results),
            "by_language": share_of_each(result["language"] for result in results),
            "by_family": share_of_each(result["family"] for result in results),
            "mean_confidence": mean_or_none(result["confidence"] for result in results),
        }
