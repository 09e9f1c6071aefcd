"""Fields that take several forms. The form is told by looking, so an error speaks of the one that was meant."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Union

from pydantic import BaseModel, Discriminator, Field, GetPydanticSchema, Tag

__all__ = ["by_class", "first_wrong", "forms", "forms_by"]

# One wrong item is enough to refuse a list; a million errors would only take time.
first_wrong = Field(fail_fast=True)


def by_class(names: Mapping[type, str]) -> Callable[[Any], str | None]:
    """For `forms`: the form's name by the value's class."""
    return lambda value: names.get(type(value))


def forms(choose: Callable[[Any], str | None], message: str, options: Mapping[str, Any]) -> GetPydanticSchema:
    """For `Annotated[A | B, ...]`, a type with several forms: how to tell which one a value has.

    `choose(value)` names one of `options`, or None for a value that has none of them.
    """
    branches = tuple(Annotated[kind, Tag(_tag(name))] for name, kind in options.items())

    def tag(value: Any) -> str | None:
        # What is read already is written again, in an answer that repeats the question.
        known = (name for name, kind in options.items() if isinstance(value, BaseModel) and type(value) is kind)
        name = next(known, None) or choose(value)
        return _tag(name) if name is not None and name in options else None

    discriminator = Discriminator(tag, custom_error_type="wrong_form", custom_error_message=message)
    union: Any = Annotated[Union[branches], discriminator]  # noqa: UP007
    return GetPydanticSchema(lambda source, handler: handler.generate_schema(union))


def forms_by(field: str, options: Mapping[str, Any], message: str = "") -> GetPydanticSchema:
    """`forms` for a type whose form is named by one of its own fields."""
    names = ", ".join(options)

    def choose(value: Any) -> str | None:
        name = value.get(field) if isinstance(value, dict) else None
        return name if isinstance(name, str) else None

    return forms(choose, message or f"must be an object whose {field} is one of {names}", options)


def _tag(name: str) -> str:
    # Stands in an error's location; the brackets tell it from a field's name.
    return f"({name})"
