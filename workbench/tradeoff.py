"""Memory, speed and quality of a model in several precisions, on prompts of one's own. Loads one at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from workbench.engine import SamplingParams
from workbench.errors import ConfigError, WorkbenchError

if TYPE_CHECKING:
    import pandas

    from workbench.llm import LlamaGPU

__all__ = ["SAMPLE_PROMPTS", "Variant", "measure_tradeoff", "variants_frame"]

SAMPLE_PROMPTS = (
    "The lighthouse stood at the end of the rocks, and every evening its keeper climbed the stairs to light the lamp.",
    "To make bread, mix flour, water, salt and yeast, knead the dough for ten minutes, and let it rise until it has "
    "doubled in size.",
    "def fibonacci(n):\n    if n < 2:\n        return n\n    return fibonacci(n - 1) + fibonacci(n - 2)\n",
)
_SPEED_TOKENS = 48


@dataclass(frozen=True)
class Variant:
    """One precision or quantisation, measured. `agreement` is the share of positions of the prompts at which it finds
    the same token likeliest as the first variant does; `perplexity` is over the same prompts, lower is better.
    `problem` says why it could not be measured; the figures are None then."""

    name: str
    weight_bytes: int | None = None
    tokens_per_s: float | None = None
    agreement: float | None = None
    perplexity: float | None = None
    problem: str = ""


def measure_tradeoff(
    load: Callable[[str], LlamaGPU],
    names: Sequence[str],
    prompts: Sequence[str] = SAMPLE_PROMPTS,
    *,
    on_variant: Callable[[Variant], None] = lambda variant: None,
    is_wanted: Callable[[], bool] = lambda: True,
) -> list[Variant]:
    """Load each of `names` in turn with `load(name)`, measure it, and unload it. The first is what others are held
    against. A variant that cannot be loaded is part of the result, with its reason. `is_wanted` is asked before each.

    Raises ConfigError for no names or no prompts.
    """
    if not names or not any(prompt.strip() for prompt in prompts):
        raise ConfigError("names and prompts: at least one of each is needed")
    variants: list[Variant] = []
    reference: list[list[int]] | None = None
    for name in names:
        if not is_wanted():
            break
        try:
            with load(name) as llm:
                variant, choices = _measure(llm, name, prompts, reference)
        except WorkbenchError as error:
            variant, choices = Variant(name, problem=str(error)), None
        reference = reference or choices
        variants.append(variant)
        on_variant(variant)
    return variants


def variants_frame(variants: Sequence[Variant]) -> pandas.DataFrame:
    """One row a variant, indexed by its name."""
    import pandas

    return pandas.DataFrame([asdict(variant) for variant in variants]).set_index("name")


def _measure(
    llm: LlamaGPU, name: str, prompts: Sequence[str], reference: list[list[int]] | None
) -> tuple[Variant, list[list[int]]]:
    choices, logprobs = [], []
    for prompt in prompts:
        scored = llm.submit(prompt, params=SamplingParams(max_tokens=0, prompt_logprobs=1)).result()
        positions = [position for position in scored.prompt_logprobs or () if position is not None]
        choices.append([position.top[0][0] for position in positions])
        logprobs += [position.logprob for position in positions]
    # A first answer warms up what is compiled or allocated on first use.
    llm.submit(prompts[0], max_tokens=4, ignore_eos=True).result()
    timings = llm.submit(prompts[0], max_tokens=_SPEED_TOKENS, ignore_eos=True).result().timings
    variant = Variant(
        name,
        weight_bytes=llm.weight_bytes,
        tokens_per_s=timings.decode_tokens_per_s,
        agreement=_agreement(choices, reference or choices),
        perplexity=math.exp(-sum(logprobs) / len(logprobs)) if logprobs else None,
    )
    return variant, choices


def _agreement(choices: list[list[int]], reference: list[list[int]]) -> float | None:
    pairs: list[tuple[Any, Any]] = [
        pair for one, other in zip(choices, reference, strict=True) for pair in zip(one, other, strict=True)
    ]
    return sum(one == other for one, other in pairs) / len(pairs) if pairs else None
