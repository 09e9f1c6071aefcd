"""docs/architecture.md is true: its layer table covers the tree, and every import points down it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
PAGE = (PROJECT / "docs" / "architecture.md").read_text()
PACKAGES = ("workbench", "widgets", "dashboards")
ALIASES = "workbench/aliases"
# The page says why.
MAY_POINT_UP = {
    ("workbench/llm.py", "workbench.server"),
    ("workbench/backends/model_holder.py", "workbench.llm"),
    ("workbench/distributed/cluster/replica.py", "workbench.llm"),
    ("workbench/__init__.py", "workbench.magics"),
    ("workbench/cli/app.py", "dashboards.launching"),
}


@dataclass(frozen=True)
class Row:
    """One row of the layer table: a number, and the files and folders (ending in /) it covers."""

    layer: int
    paths: tuple[str, ...]

    def covers(self, file: str) -> bool:
        return any(file == path or (path.endswith("/") and file.startswith(path)) for path in self.paths)


def _layer_table(page: str) -> list[Row]:
    rows = re.findall(r"^\| (\d+) \| ((?:`[^`|]+` ?)+)\|", page, flags=re.MULTILINE)
    return [Row(int(layer), tuple(re.findall(r"`([^`]+)`", paths))) for layer, paths in rows]


ROWS = _layer_table(PAGE)


def _files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for name in PACKAGES for path in (root / name).rglob("*.py"))


def _file_of_module(root: Path, module: str) -> str | None:
    """The file that `import module` runs, relative to the root; None for what is not ours."""
    path = module.replace(".", "/")
    names = [f"{path}.py", f"{path}/__init__.py", f"{ALIASES}/{path}.py"]
    if not path.startswith(tuple(f"{name}/" for name in PACKAGES)) and path not in PACKAGES:
        names = names[2:]
    return next((name for name in names if (root / name).is_file()), None)


def _imported_modules(root: Path, file: str) -> Iterator[tuple[int, str]]:
    """Line and module of every import in a file, wherever it stands, and of every module that a string names."""
    package = file.removesuffix(".py").split("/")[:-1]
    for node in ast.walk(ast.parse((root / file).read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                submodule = f"{module}.{alias.name}"
                yield node.lineno, submodule if _file_of_module(root, submodule) else module
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "." in node.value:
            if re.fullmatch(r"[a-z_]+(\.[a-z_]+)+", node.value):
                yield node.lineno, node.value


def _violations(root: Path, rows: list[Row]) -> list[str]:
    found = []
    for file in _files(root):
        (own,) = (row for row in rows if row.covers(file))
        for line, module in _imported_modules(root, file):
            target = _file_of_module(root, module)
            if target is None or (file, module) in MAY_POINT_UP:
                continue
            (row,) = (row for row in rows if row.covers(target))
            if row is not own and row.layer >= own.layer:
                found.append(f"{file}:{line} (layer {own.layer}) imports {module} (layer {row.layer})")
    return found


def test_every_file_has_one_row_in_the_layer_table() -> None:
    numbers = {file: sum(row.covers(file) for row in ROWS) for file in _files(PROJECT)}
    assert {file: number for file, number in numbers.items() if number != 1} == {}


def test_every_row_names_what_exists() -> None:
    assert ROWS
    missing = [path for row in ROWS for path in row.paths if not (PROJECT / path).exists()]
    assert missing == []
    assert [row.layer for row in ROWS] == sorted(row.layer for row in ROWS)


def test_imports_point_down() -> None:
    assert _violations(PROJECT, ROWS) == []


def test_every_path_on_the_page_exists() -> None:
    paths = re.findall(r"`([\w./-]+(?:\.py|\.txt|\.toml|\.yml|/))`", PAGE)
    assert [path for path in paths if not (PROJECT / path).exists()] == []


def _listed(page: str, before: str) -> list[str]:
    """The names in backticks of the paragraph that follows the one ending in `before`."""
    paragraph = page.split(before, 1)[1].strip().split("\n\n")[0]
    return re.findall(r"`([^`]+)`", paragraph)


def test_the_named_imports_load_no_torch_and_start_nothing() -> None:
    modules = _listed(PAGE, "starts no thread:")
    assert "workbench" in modules
    program = (
        f"import sys, threading\nimport {', '.join(modules)}\n"
        "assert not {'torch', 'transformers'} & set(sys.modules), sorted(sys.modules)\n"
        "assert threading.active_count() == 1, threading.enumerate()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("file", _listed(PAGE, "their tests are quick and complete:"))
def test_pure_files_import_no_torch(file: str) -> None:
    modules = {module.split(".")[0] for _, module in _imported_modules(PROJECT, file)}
    assert modules & {"torch", "transformers", "triton"} == set()


@pytest.fixture
def small_tree(tmp_path: Path) -> Path:
    files = {
        "workbench/__init__.py": "_HOMES = {'Low': 'workbench.low'}\n",
        "workbench/low.py": "import json\n",
        "workbench/high/__init__.py": "from workbench.low import x\nfrom .part import y\n",
        "workbench/high/part.py": "import torch\n",
        "workbench/aliases/short.py": "from workbench import Low\n",
        "widgets/__init__.py": "import workbench.high.part\nfrom short import Low\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


SMALL_PAGE = """
| layer | files | job |
|---|---|---|
| 0 | `workbench/low.py` | a |
| 1 | `workbench/high/` | b |
| 2 | `workbench/__init__.py` | c |
| 3 | `workbench/aliases/` | d |
| 4 | `widgets/` | e |
"""


def test_a_tree_that_keeps_the_rule_passes(small_tree: Path) -> None:
    assert _violations(small_tree, _layer_table(SMALL_PAGE)) == []


@pytest.mark.parametrize(
    "source",
    [
        "from workbench.high import x",
        "from workbench.high.part import y",
        "from workbench import high",
        "from workbench import Low",
        "import workbench.high.part as part",
        "from .high import x",
        "from . import high",
        "def late():\n    import widgets",
        "if TYPE_CHECKING:\n    from workbench.high import X",
        "import short",
        "NAME = 'workbench.high.part'",
    ],
)
def test_an_import_that_points_up_is_found(small_tree: Path, source: str) -> None:
    (small_tree / "workbench" / "low.py").write_text(source + "\n")
    (violation,) = _violations(small_tree, _layer_table(SMALL_PAGE))
    assert violation.startswith("workbench/low.py:")


def test_neighbours_of_one_layer_do_not_import_each_other(small_tree: Path) -> None:
    page = SMALL_PAGE.replace("| 1 | `workbench/high/`", "| 0 | `workbench/high/`")
    (violation,) = _violations(small_tree, _layer_table(page))
    assert violation.startswith("workbench/high/__init__.py:1 (layer 0)")
