"""Command-line options from a settings dataclass: its fields give name, type and default, its docstring the help."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, fields
from types import GenericAlias, NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import typer

__all__ = ["takes_settings"]

_SCALARS = (int, float, str)


def takes_settings(
    defaults: Mapping[str, object] | None = None, **settings: type
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command one option per field of each settings class, and hand it the built settings.

    Options of fields without a default must be given.

    A field with the metadata `{"option": False}` gets none and keeps its default; `{"flags": ("--short",)}` are further
    names of its option.
    `takes_settings(sampling=SamplingParams)` replaces the command's keyword `sampling` by `--max-tokens` and so on.
    `defaults` replace those of the classes, by field name. What the class refuses when it is built is raised as it is.
    """
    options = {name: _options_of(cls, defaults or {}) for name, cls in settings.items()}

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(function, eval_str=True)
        own = [parameter for name, parameter in signature.parameters.items() if name not in options]
        made = [option.parameter for group in options.values() for option in group]

        def command(*args: Any, **values: Any) -> None:
            for name, group in options.items():
                given = {option.name: option.field_value(values.pop(option.name)) for option in group}
                values[name] = settings[name](**given)
            function(*args, **values)

        setattr(command, "__signature__", signature.replace(parameters=[*own, *made]))  # noqa: B010 (none is declared)
        return command

    return decorate


@dataclass(frozen=True)
class _Option:
    """One field as a parameter of a command, and how its parsed value becomes the field's value."""

    name: str
    parameter: inspect.Parameter
    convert: Callable[[Any], Any]

    def field_value(self, parsed: Any) -> Any:
        try:
            return self.convert(parsed)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint=f"'--{self.name.replace('_', '-')}'") from None


@dataclass(frozen=True)
class _Shape:
    """How a field's type is asked for on a command line."""

    annotation: Any
    default: Any
    convert: Callable[[Any], Any] = lambda value: value
    metavar: str | None = None


def _options_of(cls: type, defaults: Mapping[str, object]) -> list[_Option]:
    hints, helps = get_type_hints(cls), _attribute_texts(cls)
    return [
        _option(
            field.name,
            hints[field.name],
            defaults.get(field.name, _default(field)),
            helps.get(field.name),
            cls,
            field.metadata.get("flags", ()),
        )
        for field in fields(cls)
        if field.metadata.get("option", True)
    ]


def _option(name: str, hint: Any, default: Any, text: str | None, cls: type, flags: tuple[str, ...]) -> _Option:
    shape = _shape(hint, default)
    if shape is None:
        raise TypeError(f"{cls.__name__}.{name}: no command-line option is known for {hint}")
    info = typer.Option(
        *flags,
        _flag(name, hint, default),
        # Docstrings go on in small letters after the name; help begins a sentence.
        help=text and text[0].upper() + text[1:],
        metavar=shape.metavar,
    )
    parameter = inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=shape.default, annotation=Annotated[shape.annotation, info]
    )
    return _Option(name, parameter, shape.convert)


def _shape(hint: Any, default: Any) -> _Shape | None:
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is bool or hint in _SCALARS:
        return _Shape(hint, default)
    if origin in (Union, UnionType) and len(arguments) == 2 and NoneType in arguments:
        (kind,) = (argument for argument in arguments if argument is not NoneType)
        return _optional(kind, default) if kind in _SCALARS else None
    if origin is tuple and arguments[1:] == (...,) and arguments[0] in _SCALARS:
        return _Shape(GenericAlias(list, (arguments[0],)), list(default), tuple)
    if origin is Mapping and arguments[0] is str:
        return _Shape(list[str], [*default], _named_options, metavar="NAME[=JSON]")
    if origin is Mapping and arguments == (int, float):
        return _Shape(list[str], [f"{key}={value}" for key, value in default.items()], _pairs, metavar="ID=VALUE")
    return None


def _optional(kind: type, default: Any) -> _Shape:
    if default is None:
        return _Shape(kind | None, None)
    # "none" is how a command line says None where that is not the default.
    return _Shape(
        str, str(default), lambda value: _number_or_none(kind, value), metavar=f"{kind.__name__.upper()}|none"
    )


def _number_or_none(kind: type, text: str) -> Any:
    if text.lower() == "none":
        return None
    try:
        return kind(text)
    except ValueError:
        raise ValueError(f"{text!r} is neither a number nor 'none'.") from None


def _pairs(values: list[str]) -> dict[int, float]:
    pairs: dict[int, float] = {}
    for value in values:
        key, _, number = value.partition("=")
        try:
            pairs[int(key)] = float(number)
        except ValueError:
            raise ValueError(f"{value!r} is not of the form ID=VALUE, as in 42=-5.") from None
    return pairs


def _named_options(values: list[str]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for value in values:
        name, has_options, text = value.partition("=")
        try:
            options[name] = json.loads(text) if has_options else None
        except ValueError:
            raise ValueError(f'{value!r} is not of the form NAME or NAME={{"OPTION": VALUE}}.') from None
    return options


def _default(field: Field[Any]) -> Any:
    """The field's default; a parameter's empty one, which makes the option a must, where it has none."""
    if field.default_factory is not MISSING:
        return field.default_factory()
    return inspect.Parameter.empty if field.default is MISSING else field.default


def _flag(name: str, hint: Any, default: Any) -> str:
    flag = name.replace("_", "-")
    return f"--{flag}/--no-{flag}" if hint is bool and default else f"--{flag}"


def _attribute_texts(cls: type) -> dict[str, str]:
    """Field name -> its text in the class docstring's "Attributes:" part (`a, b: text` describes both)."""
    texts: dict[str, str] = {}
    _, _, listed = inspect.cleandoc(cls.__doc__ or "").partition("Attributes:\n")
    for names, text in re.findall(r"^ {4}([a-z_][a-z_0-9, ]*): (.*(?:\n {5,}.*)*)", listed, re.MULTILINE):
        texts.update(dict.fromkeys(names.split(", "), " ".join(text.split())))
    return texts
