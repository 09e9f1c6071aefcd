"""MkDocs hook: adds the pages that are made from the code, so that they cannot be behind it."""

from __future__ import annotations

import inspect
import re
import sys
from importlib import import_module
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

_HERE = Path(__file__).parent
ROOT = _HERE.parents[1]
# MkDocs loads this file by its path; the ones beside it are found like this.
sys.path.insert(0, str(_HERE))

from commands_page import commands_page  # noqa: E402
from http_page import http_page  # noqa: E402
from offline_check import fetched_from_elsewhere  # noqa: E402

# Page -> what it describes: the public names of a package or of one module, or one of them (module:name).
PYTHON_PAGES = {
    "workbench": (
        "workbench.llm",
        "workbench.asking",
        "workbench.engine",
        "workbench.engine.launch:DraftFacts",
        "workbench.errors",
        "workbench.progress",
        "workbench.twin:Twin",
    ),
    "models": ("workbench.models", "workbench.backends"),
    "planner": ("workbench.planner",),
    "quantize": ("workbench.quantize", "workbench.models.quantized_folder", "workbench.tradeoff"),
    "parallel": (
        "workbench.parallel",
        "workbench.multi_gpu",
        "workbench.distributed.cluster",
        "workbench.distributed.parallel_engine:ReplicaFigures",
    ),
    "telemetry": ("workbench.telemetry", "workbench.benchmark"),
    "server": ("workbench.server",),
    "sessions": ("workbench.session", "workbench.conversation", "workbench.run_log"),
    "examples": ("workbench.examples",),
    "plugins": ("workbench.plugins",),
    "aws": ("workbench.aws",),
    "widgets": ("widgets",),
    "dashboards": ("dashboards.launching",),
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The references, and the files of the project's root that are pages too."""
    made = {
        "reference/commands.md": commands_page(),
        "reference/http.md": http_page(),
        "contributing.md": _from_the_root("CONTRIBUTING.md"),
        "changelog.md": _from_the_root("CHANGELOG.md"),
    }
    made |= {f"reference/python/{name}.md": _python_page(modules) for name, modules in PYTHON_PAGES.items()}
    for path, text in made.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_post_build(config: MkDocsConfig) -> None:
    """The pages must be whole without a network."""
    found = fetched_from_elsewhere(Path(config.site_dir))
    if found:
        raise PluginError("pages that fetch from elsewhere:\n" + "\n".join(found))


def _python_page(modules: tuple[str, ...]) -> str:
    whole = [module for module in modules if ":" not in module]
    title = whole[0] if len(whole) == 1 else " and ".join((", ".join(whole[:-1]), whole[-1]))
    parts = [f"# {title}"]
    for module in modules:
        parts.append(f"## {module.partition(':')[0]}")
        parts += [f"::: {path}" for path in _public_paths(module)]
    return "\n\n".join(parts) + "\n"


def _public_paths(module: str) -> list[str]:
    """Where each public name is defined: packages hand on what their files define, some when it is first asked for."""
    module, _, only = module.partition(":")
    package = import_module(module)
    names = [only] if only else package.__all__
    return [f"{_home(getattr(package, name), module)}.{name}" for name in names]


def _home(value: object, module: str) -> str:
    """The module that defines a class or a function; for other values the one that lists them."""
    return value.__module__ if inspect.isclass(value) or inspect.isfunction(value) else module


def _from_the_root(name: str) -> str:
    """The file with its links into docs/ made links between pages."""
    return re.sub(r"\]\(docs/", "](", (ROOT / name).read_text("utf-8"))
