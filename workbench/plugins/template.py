"""Writes a plugin's package: code, metadata, a test that passes, and how to go on. One kind for each thing to bring."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from string import Template
from types import MappingProxyType

from workbench.errors import ConfigError, PluginError
from workbench.plugins.metadata import check_plugin_name
from workbench.plugins.points import CALLED_HOOKS
from workbench.plugins.template_parts import PARTS, TemplatePart

__all__ = ["KINDS", "write_plugin"]

KINDS: Mapping[str, TemplatePart] = MappingProxyType(PARTS)

_PYPROJECT = """\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "$name"
version = "0.1.0"
requires-python = ">=3.11"
# What the workbench finds in an environment where this is installed.
entry-points."workbench.plugins"."$name" = "$module:plugin"

[tool.setuptools.packages.find]
where = ["src"]

[tool.setuptools.package-data]
"*" = ["plugin.json"]
"""

_CODE = '''\
"""$title: $summary"""

from __future__ import annotations

from pathlib import Path
$imports
from workbench.plugins import $names

__all__ = ["$class_name", "plugin"]

$parts
class $class_name(BasePlugin):
    metadata = PluginMetadata.read(Path(__file__).with_name("plugin.json"))

    def initialize(self, context: PluginContext) -> None:
        self.log = context.log

$hooks

plugin = $class_name()
'''

_TEST = '''\
"""The plugin does what it should, inside of a plugin manager of its own."""

from pathlib import Path

import pytest
$test_imports
from workbench.plugins import PluginManager, PluginStore


@pytest.fixture
def manager(tmp_path: Path):
    with PluginManager(PluginStore(tmp_path)) as manager:
        manager.load("$name", "$module:plugin")
        yield manager


def test_it_is_a_plugin(manager: PluginManager) -> None:
    assert manager.validate_plugin("$name")
    assert manager.get_plugin_status("$name") == "loaded | valid: True | dependencies: ok"

$test
'''

_README = """\
# $name

$summary

```sh
pip install -e . && python -m pytest            # develop
workbench plugins enable $name                  # use it from this environment
pip wheel --no-deps -w ../wheels .              # or hand it on: a wheel,
workbench plugins index ../wheels --key ../key  # an index over it, signed,
workbench plugins install $name --index ../wheels
```
"""

_CONFTEST = """\
\"\"\"Tests find the plugin also where it is not installed.\"\"\"

import os
import sys
from pathlib import Path

_SOURCE = str(Path(__file__).parents[1] / "src")
sys.path.insert(0, _SOURCE)
# The process that tries the import first looks here.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (_SOURCE, os.environ.get("PYTHONPATH"))))
"""


def write_plugin(name: str, kind: str, folder: Path) -> list[Path]:
    """Write the package of a new plugin into `folder`/`name`; gives the files.

    Raises ConfigError for an unknown kind, PluginError for a name that is none or a folder that is there.
    """
    check_plugin_name(name)
    if kind not in KINDS:
        raise ConfigError(f"kind={kind!r}: must be one of {', '.join(KINDS)}")
    module = name.replace("-", "_")
    if not module.isidentifier():
        raise PluginError(f"plugin name {name!r}: a package's name cannot begin with a digit")
    root = folder / name
    files = _files(name, module, kind, KINDS[kind])
    try:
        root.mkdir(parents=True, exist_ok=False)
        for file, text in files.items():
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            (root / file).write_text(text, "utf-8")
    except OSError as error:
        raise PluginError(f"{root}: {error.strerror or error}") from error
    return [root / file for file in files]


def _files(name: str, module: str, kind: str, part: TemplatePart) -> dict[str, str]:
    words = {
        "name": name,
        "module": module,
        "class_name": "".join(word.title() for word in name.split("-")) + "Plugin",
        "title": name,
        "summary": Template(part.summary).substitute(name=name),
    }
    names = sorted({"BasePlugin", "PluginContext", "PluginMetadata", "hookimpl", *part.names}, key=_import_order)
    code = {
        **words,
        "names": ", ".join(names),
        "imports": part.imports,
        "parts": f"\n{Template(part.parts).substitute(words)}\n" if part.parts else "",
        "hooks": _indented(Template(part.hooks).substitute(words)),
    }
    test = {
        **words,
        "test": f"\n{Template(part.test).substitute(words)}" if part.test else "",
        "test_imports": part.test_imports,
    }
    metadata = {
        "name": name,
        "version": "0.1.0",
        "description": words["summary"],
        "author": "",
        "requires_workbench": ">=0.1",
        "dependencies": [],
        "permissions": [CALLED_HOOKS.get(part.point, part.point)],
    }
    texts = {
        "pyproject.toml": Template(_PYPROJECT).substitute(words),
        "README.md": Template(_README).substitute(words),
        f"src/{module}/__init__.py": Template(_CODE).substitute(code),
        f"src/{module}/plugin.json": json.dumps(metadata, indent=2) + "\n",
        "tests/conftest.py": _CONFTEST,
        "tests/test_plugin.py": Template(_TEST).substitute(test),
    }
    return {file: _tidied(text) if file.endswith(".py") else text for file, text in texts.items()}


def _import_order(name: str) -> tuple[bool, str]:
    """Classes before functions, as linters sort them."""
    return (name.islower(), name)


def _indented(text: str) -> str:
    return "\n".join(f"    {line}".rstrip() for line in text.strip("\n").splitlines())


def _tidied(text: str) -> str:
    """Not more than two empty lines at once, and one line end at the end."""
    while "\n\n\n\n" in text:
        text = text.replace("\n\n\n\n", "\n\n\n")
    return text.rstrip("\n") + "\n"
