"""The page of the endpoint's routes: its own openapi.json, in words."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

from workbench.server.app import create_app
from workbench.server.model_host import ModelHost
from workbench.server.services import Services
from workbench.server.settings import ServerSettings
from workbench.session import Session

__all__ = ["http_page", "openapi"]

Schema = Mapping[str, Any]


def openapi() -> dict[str, Any]:
    """The description that a running endpoint gives under /openapi.json; no model is loaded for it."""

    async def describe() -> dict[str, Any]:
        session = Session()
        services = Services.build(ServerSettings(), ModelHost(session), None)
        try:
            return create_app(services).openapi()
        finally:
            services.stop()

    return asyncio.run(describe())


def http_page() -> str:
    """Each route with its parameters, body and answers; then the forms that they name."""
    described = openapi()
    parts = [
        "# HTTP",
        "Made from `/openapi.json`, which every endpoint serves. [The endpoint](../server.md) has what a form cannot "
        "say: keys, limits, streams, and which fields go together. Errors all have the form [ErrorBody](#errorbody).",
    ]
    for path, operations in sorted(described["paths"].items()):
        for method, operation in operations.items():
            parts += _operation(path, method, operation)
    parts.append("# Forms")
    for name, schema in sorted(described["components"]["schemas"].items()):
        parts += _form(name, schema)
    return "\n\n".join(parts) + "\n"


def _operation(path: str, method: str, operation: Schema) -> Iterator[str]:
    yield f"## {method.upper()} {path}"
    yield _plain(operation.get("description") or operation.get("summary", ""))
    if operation.get("security") == []:
        yield "Needs no key."
    parameters = operation.get("parameters", [])
    if parameters:
        yield _table(
            ("parameter", "in", "type", "what"),
            [(f"`{one['name']}`", one["in"], _type(one.get("schema", {})), _said(one)) for one in parameters],
        )
    body = _content(operation.get("requestBody", {}))
    if body is not None:
        yield f"Body: {_type(body)}"
    answers = {status: answer for status, answer in operation["responses"].items() if status.startswith("2")}
    for status, answer in answers.items():
        form = _content(answer)
        yield f"Answer {status}: {_type(form) if form else _plain(answer.get('description', ''))}"


def _form(name: str, schema: Schema) -> Iterator[str]:
    yield f"## {name}"
    if schema.get("description"):
        yield _plain(schema["description"])
    fields = schema.get("properties", {})
    required = set(schema.get("required", ()))
    if fields:
        rows = [
            (f"`{field}`" + (" (required)" if field in required else ""), _type(form), _said(form))
            for field, form in fields.items()
        ]
        yield _table(("field", "type", "what"), rows)
    elif "enum" in schema or "type" in schema:
        yield _type(schema)


def _content(part: Schema) -> Schema | None:
    for content in part.get("content", {}).values():
        form: Schema = content.get("schema", {})
        return form or None
    return None


def _type(schema: Schema) -> str:
    """A type in words; forms as links."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[-1]
        return f"[{name}](#{name.lower()})"
    for key, word in (("anyOf", " or "), ("oneOf", " or "), ("allOf", " and ")):
        if key in schema:
            return word.join(dict.fromkeys(_type(one) for one in schema[key]))
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return str(schema.get("type", "anything"))


def _said(schema: Schema) -> str:
    """Description, default and bounds."""
    form = schema.get("schema", schema)
    said = [_plain(schema.get("description", ""))]
    if form.get("default") is not None:
        said.append(f"default `{form['default']}`")
    for key, word in (("minimum", "at least"), ("maximum", "at most"), ("maxLength", "at most letters:"),
                      ("maxItems", "at most entries:")):  # fmt: skip
        if key in form:
            said.append(f"{word} {form[key]}")
    return "; ".join(filter(None, said))


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _plain(text: str) -> str:
    return " ".join(text.replace("<", "&lt;").split())
