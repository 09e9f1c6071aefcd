"""Reads the browser's half of a widget: plain modules and one style sheet that lie beside the Python files."""

from __future__ import annotations

from importlib.resources import files

__all__ = ["module_text", "style_text"]


def module_text(name: str) -> str:
    """The ES module of widget `name`, preceded by the few functions that all of them use."""
    return _read("dom.js") + _read(f"{name}.js")


def style_text() -> str:
    """The style sheet of all widgets; colours follow the `--jp-*` variables of the page's theme."""
    return _read("panel.css")


def _read(file_name: str) -> str:
    return (files("widgets") / file_name).read_text(encoding="utf-8")
