"""The form an answer must have, as callers say it: response_format, and what goes beyond JSON."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from workbench.engine import StructureKind, StructureSpec
from workbench.errors import RequestError
from workbench.server.protocol.forms import by_class, first_wrong, forms, forms_by
from workbench.server.protocol.wire import WireRequest, WrongField

__all__ = [
    "JsonObjectFormat",
    "JsonSchema",
    "ResponseFormat",
    "Schema",
    "StructuredOutputs",
    "TextFormat",
    "chosen_structure",
    "schema_structure",
]

Schema = Annotated[
    dict[str, Any] | bool,
    forms(
        by_class({dict: "object", bool: "boolean"}),
        "must be a JSON schema: an object or a boolean",
        {"object": dict[str, Any], "boolean": bool},
    ),
]
SchemaOrText = Annotated[
    dict[str, Any] | str,
    forms(
        by_class({dict: "object", str: "text"}),
        "must be a JSON schema, or its text",
        {"object": dict[str, Any], "text": Annotated[str, Field(min_length=1)]},
    ),
]


class JsonSchema(WireRequest):
    """A named schema. It is always enforced, whatever `strict` says."""

    name: str = Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")
    description: str | None = None
    schema_: Schema | None = Field(None, alias="schema")
    strict: bool | None = None


class TextFormat(WireRequest):
    """Free text."""

    type: Literal["text"]


class JsonObjectFormat(WireRequest):
    """Any JSON object."""

    type: Literal["json_object"]


class JsonSchemaFormat(WireRequest):
    """JSON that a schema describes."""

    type: Literal["json_schema"]
    json_schema: JsonSchema


ResponseFormat = Annotated[
    TextFormat | JsonObjectFormat | JsonSchemaFormat,
    forms_by("type", {"text": TextFormat, "json_object": JsonObjectFormat, "json_schema": JsonSchemaFormat}),
]


class StructuredOutputs(WireRequest):
    """One of five ways to constrain an answer."""

    unsupported = {
        "whitespace_pattern": (),
        "structural_tag": (),
        "disable_any_whitespace": (False,),
        "disable_additional_properties": (False,),
        "disable_fallback": (False, True),
    }

    json_: SchemaOrText | None = Field(None, alias="json", description="A JSON schema, or its text.")
    json_object: bool | None = Field(None, description="Any JSON object.")
    regex: str | None = Field(None, min_length=1, description="A regular expression, in the syntax of Rust's regex.")
    choice: Annotated[list[Annotated[str, Field(min_length=1)]], first_wrong] | None = Field(
        None, min_length=1, max_length=1024
    )
    grammar: str | None = Field(None, min_length=1, description="A grammar in Lark or GBNF.")

    @model_validator(mode="after")
    def _check_one(self) -> StructuredOutputs:
        if len(self.given) != 1:
            raise ValueError("give exactly one of json, json_object, regex, choice and grammar")
        return self

    @property
    def given(self) -> list[str]:
        """Names of the fields that are set."""
        return [name for name in type(self).model_fields if getattr(self, name) not in (None, False)]

    @property
    def structure(self) -> StructureSpec:
        """The one that is given."""
        if self.json_ is not None:
            text = self.json_ if isinstance(self.json_, str) else json.dumps(self.json_)
            return StructureSpec(StructureKind.JSON_SCHEMA, text or "{}")
        if self.json_object:
            return StructureSpec(StructureKind.JSON_OBJECT)
        if self.regex is not None:
            return StructureSpec(StructureKind.REGEX, self.regex)
        if self.choice is not None:
            return StructureSpec(StructureKind.GRAMMAR, _choice_grammar(self.choice))
        return StructureSpec(StructureKind.GRAMMAR, self.grammar or "")


def chosen_structure(
    response_format: TextFormat | JsonObjectFormat | JsonSchemaFormat | None,
    structured_outputs: StructuredOutputs | None,
) -> StructureSpec | None:
    """What the two fields ask for together. Raises WrongField when both ask for something, or one for too much."""
    asked = None
    try:
        if isinstance(response_format, JsonObjectFormat):
            asked = StructureSpec(StructureKind.JSON_OBJECT)
        elif isinstance(response_format, JsonSchemaFormat):
            asked = schema_structure(response_format.json_schema.schema_)
    except RequestError as error:
        raise WrongField("response_format", f"is wrong: {error}") from error
    if structured_outputs is None:
        return asked
    if asked is not None:
        raise WrongField("response_format", "and structured_outputs both ask for a form: give one of the two")
    try:
        return structured_outputs.structure
    except RequestError as error:
        raise WrongField("structured_outputs", f"is wrong: {error}") from error


def schema_structure(schema: dict[str, Any] | bool | None) -> StructureSpec:
    """The structure of a JSON schema; without one, or with `true`, anything that is JSON."""
    return StructureSpec(StructureKind.JSON_SCHEMA, json.dumps({} if schema in (None, True) else schema))


def _choice_grammar(choices: list[str]) -> str:
    return f"start: {' | '.join(json.dumps(choice, ensure_ascii=False) for choice in choices)}"
