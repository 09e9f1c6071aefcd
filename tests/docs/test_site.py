"""The parts that the site is built with; `make docs` builds it, with warnings as errors."""

from __future__ import annotations

import ast
import json
import re
import sys
from pathlib import Path

import pytest
import yaml
from documented_code import PAGES, PROJECT

sys.path.insert(0, str(PROJECT / "docs" / "_site"))
from commands_page import commands_page  # noqa: E402
from http_page import http_page, openapi  # noqa: E402
from made_pages import PYTHON_PAGES, _public_paths  # noqa: E402
from offline_check import fetched_from_elsewhere  # noqa: E402

from workbench.cli.root import root_command  # noqa: E402
from workbench.server.routes import ROUTERS  # noqa: E402

MADE = {"contributing.md", "changelog.md"}


def test_every_page_is_in_the_navigation() -> None:
    words = (PROJECT / "mkdocs.yml").read_text("utf-8")
    listed = set(re.findall(r"^ +- (?:[\w ,]+: )?(\S+\.md)$", words, re.MULTILINE))
    pages = {page.name for page in (PROJECT / "docs").glob("*.md")}
    assert pages == {name for name in listed if "/" not in name} - MADE
    assert yaml.safe_load(words)["theme"]["font"] is False


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for target, heading in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([\w-]+))?\)", page.read_text("utf-8")):
        file = page.parent / target if target else page
        if target.startswith("reference/") or target in MADE:
            continue  # made while the site is built, which checks them
        assert file.exists(), (page.name, target)
        if heading:
            lines = [line for line in file.read_text("utf-8").splitlines() if line.startswith("#")]
            slugs = {re.sub(r"[^\w -]", "", line.lstrip("# ").lower()).replace(" ", "-") for line in lines}
            assert heading in slugs, (page.name, target, heading)


def test_the_commands_page_has_every_command() -> None:
    page = commands_page()
    assert set(re.findall(r"^## workbench (\S+)$", page, re.MULTILINE)) == set(root_command().entries)
    assert "## workbench models fetch" in page and "--batch-size" in page


def test_the_http_page_has_every_route_and_no_dangling_form() -> None:
    page = http_page()
    routes = {
        (method, re.sub(r"\{(\w+):path\}", r"{\1}", route.path))
        for router in ROUTERS
        for route in router.routes
        if getattr(route, "include_in_schema", False)
        for method in route.methods
    }
    assert routes <= set(re.findall(r"^## ([A-Z]+) (\S+)$", page, re.MULTILINE))
    headings = {name.lower() for name in re.findall(r"^## (\w+)$", page, re.MULTILINE)}
    assert set(re.findall(r"\]\(#(\w+)\)", page)) <= headings
    json.dumps(openapi())


def test_the_reference_has_what_the_main_class_takes_and_gives() -> None:
    sources = [ast.parse((PROJECT / "workbench" / name).read_text("utf-8")) for name in ("llm.py", "asking.py")]
    ours = {
        name.name
        for source in sources
        for node in ast.walk(source)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("workbench")
        for name in node.names
    }
    said = {
        word
        for source in sources
        for main_class in source.body
        if isinstance(main_class, ast.ClassDef)
        for method in main_class.body
        if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef)
        if method.name == "__init__" or not method.name.startswith("_")
        for annotation in (method.returns, *(one.annotation for one in (*method.args.args, *method.args.kwonlyargs)))
        if annotation is not None
        for word in re.findall(r"\w+", ast.unparse(annotation))
    }
    told = {
        path.rpartition(".")[2] for modules in PYTHON_PAGES.values() for each in modules for path in _public_paths(each)
    }
    assert {"ClusterConfig", "EngineConfig", "Generation"} <= said & ours <= told


def test_what_a_page_would_fetch_is_found(tmp_path: Path) -> None:
    (tmp_path / "good.html").write_text(
        '<a href="https://a.example">x</a><script src="x.js"></script><img src="a.png">'
    )
    assert fetched_from_elsewhere(tmp_path) == []
    (tmp_path / "bad.html").write_text(
        '<link rel="stylesheet" href="https://f.example/x.css"><script src="//c.example/x">'
    )
    (tmp_path / "bad.css").write_text("@import 'x'; a { background: url(https://i.example/x.png) }")
    assert fetched_from_elsewhere(tmp_path) == [
        "bad.html: https://f.example/x.css",
        "bad.html: //c.example/x",
        "bad.css: url(http",
        "bad.css: @import",
    ]
