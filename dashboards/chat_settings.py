"""How the chat samples, as the page's controls say it. Turns their values into checked parameters and back."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import Any

from workbench.conversation import Preset
from workbench.engine import SamplingParams, StructureKind, StructureSpec
from workbench.errors import RequestError

__all__ = ["FORMATS", "THINKING", "ChatSettings"]

FORMATS = {
    "Text": None,
    "JSON schema": StructureKind.JSON_SCHEMA,
    "Any JSON object": StructureKind.JSON_OBJECT,
    "Regular expression": StructureKind.REGEX,
    "Grammar": StructureKind.GRAMMAR,
}
THINKING = {"As the model likes": None, "On": True, "Off": False}
_BY_CONTROLS = (
    "max_tokens",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "seed",
    "stop",
    "structure",
)


@dataclass(frozen=True)
class ChatSettings:
    """The values of the controls, in their order on the page. Numbers come as a page sends them: None for an empty
    field, 0 for "off". `stop` has one string a line; `more` is JSON of further fields of SamplingParams."""

    system: str = ""
    max_tokens: float | None = 512
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: float | None = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: str = ""
    stop: str = ""
    more: str = ""
    format: str = "Text"
    format_text: str = ""
    tools: tuple[str, ...] = ()
    must_call: bool = False
    thinking: str = "As the model likes"
    start: str = ""

    @classmethod
    def of(cls, *values: Any) -> ChatSettings:
        """From the controls' values."""
        given = dict(zip([f.name for f in fields(cls)], values, strict=True))
        given["tools"] = tuple(given["tools"] or ())
        return cls(**given)

    def params(self, **more: Any) -> SamplingParams:
        """The engine's parameters. Raises RequestError that names what is wrong."""
        return SamplingParams.from_options(
            {
                "max_tokens": int(self.max_tokens) if self.max_tokens else None,
                "temperature": float(self.temperature),
                "top_p": float(self.top_p),
                "top_k": int(self.top_k or 0),
                "min_p": float(self.min_p),
                "repetition_penalty": float(self.repetition_penalty),
                "seed": _seed(self.seed),
                "stop": tuple(_unescaped(line) for line in self.stop.splitlines() if line),
                "structure": self._structure(),
                **self._more(),
                **more,
            }
        )

    @classmethod
    def of_preset(cls, preset: Preset) -> dict[str, Any]:
        """Values of the controls that a preset sets, by field name. Tools and such are left as they are."""
        params = preset.params
        kinds = {kind: name for name, kind in FORMATS.items()}
        structure = params.structure
        return {
            "system": preset.system or "",
            "max_tokens": params.max_tokens,
            "temperature": params.temperature,
            "top_p": params.top_p,
            "top_k": params.top_k,
            "min_p": params.min_p,
            "repetition_penalty": params.repetition_penalty,
            "seed": "" if params.seed is None else str(params.seed),
            "stop": "\n".join(stop.replace("\\", "\\\\").replace("\n", "\\n") for stop in params.stop),
            "more": _further(preset),
            "format": kinds[structure.kind if structure else None],
            "format_text": structure.text if structure else "",
        }

    def changes_of(self, preset: Preset) -> list[str]:
        """Names of the fields that are not as the preset sets them. A system prompt of one's own goes with a preset
        that has none."""
        wanted = self.of_preset(preset)
        if preset.system is None:
            del wanted["system"]
        return [name for name, value in wanted.items() if (getattr(self, name) or "") != (value or "")]

    def _structure(self) -> StructureSpec | None:
        kind = FORMATS[self.format]
        if kind is None:
            return None
        if kind is StructureKind.JSON_OBJECT:
            return StructureSpec(kind)
        if not self.format_text.strip():
            raise RequestError(f"the answer format {self.format!r} needs a text: write it below, or choose Text")
        return StructureSpec(kind, self.format_text)

    def _more(self) -> dict[str, Any]:
        if not self.more.strip():
            return {}
        try:
            more = json.loads(self.more)
        except ValueError as error:
            raise RequestError(f"further settings are not JSON: {error}") from None
        if not isinstance(more, dict):
            raise RequestError("further settings must be a JSON object")
        return more


def _further(preset: Preset) -> str:
    further = {name: value for name, value in preset.sampling.items() if name not in _BY_CONTROLS}
    return json.dumps(further) if further else ""


def _seed(text: str) -> int | None:
    if not text.strip():
        return None
    try:
        return int(text)
    except ValueError:
        raise RequestError(f"seed={text!r}: must be an integer, or empty for a new one each time") from None


def _unescaped(line: str) -> str:
    r"""A stop string as it is written in one line: \n is a line break, \\ a backslash."""
    return line.replace("\\\\", "\0").replace("\\n", "\n").replace("\0", "\\")
