"""The pins, the conda file, the Makefile and the wheel say the same as pyproject.toml, and as the code imports."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

PROJECT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text())
RUNTIME = [Requirement(text) for text in PYPROJECT["project"]["dependencies"]]
EXTRAS = {
    name: [Requirement(text) for text in texts] for name, texts in PYPROJECT["project"]["optional-dependencies"].items()
}
# What `make setup` installs; the other extras are chosen by hand.
INSTALLED = RUNTIME + EXTRAS["dev"] + EXTRAS["docs"]
CONSTRAINTS = (PROJECT / "constraints.txt").read_text().splitlines()
# Come with torch's GPU builds and only run there.
WITH_TORCH = {"triton", "cuda-bindings"}
# Modules that do not tell their distribution's name, where it is not installed.
DISTRIBUTION_OF = {"cuda": "cuda-bindings", "llama_cpp": "llama-cpp-python"}


def _pins() -> dict[str, Version]:
    return {canonicalize_name(name): Version(version) for name, version in (line.split("==") for line in CONSTRAINTS)}


def _top_level_folders() -> list[str]:
    """Folders of this project that hold importable code."""
    return [name for name in ("workbench", "widgets", "dashboards") if any((PROJECT / name).glob("**/*.py"))]


def test_constraints_are_name_and_version_only() -> None:
    wrong = [line for line in CONSTRAINTS if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line)]
    assert wrong == []
    names = [canonicalize_name(line.split("==")[0]) for line in CONSTRAINTS]
    assert len(names) == len(set(names))
    assert names == sorted(names)


def test_torch_is_pinned_without_a_local_version() -> None:
    assert [line for line in CONSTRAINTS if line.startswith("torch")] == ["torch==2.13.0"]


@pytest.mark.parametrize("requirement", INSTALLED, ids=lambda requirement: requirement.name)
def test_every_dependency_is_pinned_within_its_range(requirement: Requirement) -> None:
    pin = _pins()[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(pin), f"{requirement} does not allow {pin}"


@pytest.mark.parametrize("requirement", INSTALLED, ids=lambda requirement: requirement.name)
def test_every_dependency_has_a_range(requirement: Requirement) -> None:
    assert any(specifier.operator == ">=" for specifier in requirement.specifier)


def test_what_the_pins_need_is_pinned_too() -> None:
    """Walks the installed packages from our dependencies down; what only a GPU build of torch brings is its own pin."""
    pins = _pins()
    seen: set[str] = set()
    waiting = [(requirement.name, requirement.extras) for requirement in INSTALLED]
    while waiting:
        name, extras = waiting.pop()
        if canonicalize_name(name) in seen and not extras:
            continue
        seen.add(canonicalize_name(name))
        waiting += _needs(name, extras)
    unpinned = {name for name in seen - set(pins) if not name.startswith(("nvidia-", "cuda-", "triton"))}
    assert unpinned == set()


def _needs(name: str, extras: set[str]) -> Iterator[tuple[str, set[str]]]:
    try:
        texts = importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:
        return
    for requirement in map(Requirement, texts):
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield requirement.name, requirement.extras


def test_supported_versions() -> None:
    ranges = {requirement.name: str(requirement.specifier) for requirement in RUNTIME}
    assert PYPROJECT["project"]["requires-python"] == ">=3.11"
    assert ranges["torch"] == "<2.14,>=2.11"
    assert ranges["transformers"] == "<5.24,>=5.17"


def test_extras() -> None:
    assert set(EXTRAS) == {"cluster", "vllm", "amd", "tracing", "peers", "docs", "dev"}
    assert [(requirement.name, requirement.extras) for requirement in EXTRAS["cluster"]] == [("ray", {"serve"})]


def test_conda_environment_is_the_same() -> None:
    """conda brings Python and pip; every package comes through the same extra and the same pins as `make setup`."""
    conda = yaml.safe_load((PROJECT / "environment.yml").read_text())
    *from_conda, through_pip = conda["dependencies"]
    assert from_conda == ["python" + PYPROJECT["project"]["requires-python"], "pip"]
    assert through_pip == {"pip": ["-c constraints.txt", "-e .[dev,docs]"]}


def test_conda_pip_lines_name_the_pinned_set(tmp_path: Path) -> None:
    """conda hands the pip section to pip as a requirements file beside environment.yml: pip reads it as we mean it."""
    from pip._internal.network.session import PipSession
    from pip._internal.req import parse_requirements

    lines = yaml.safe_load((PROJECT / "environment.yml").read_text())["dependencies"][-1]["pip"]
    for name in ("constraints.txt", "pyproject.toml"):
        shutil.copy(PROJECT / name, tmp_path)
    (tmp_path / "conda.txt").write_text("\n".join(lines))
    parsed = list(parse_requirements(str(tmp_path / "conda.txt"), session=PipSession()))
    assert [line.requirement for line in parsed if line.constraint] == CONSTRAINTS
    assert [line.requirement for line in parsed if line.is_editable] == [".[dev,docs]"]


def test_every_third_party_import_is_declared() -> None:
    declared = {canonicalize_name(requirement.name) for requirement in RUNTIME} | WITH_TORCH
    optional = {canonicalize_name(requirement.name) for extra in EXTRAS.values() for requirement in extra}
    folders = importlib.metadata.packages_distributions()
    own = {*_top_level_folders(), *PYPROJECT["tool"]["setuptools"]["py-modules"]}
    for path, module, is_deferred in _absolute_imports():
        if module in own or module in sys.stdlib_module_names:
            continue
        names = {canonicalize_name(name) for name in folders.get(module, [DISTRIBUTION_OF.get(module, module)])}
        allowed = declared | optional if is_deferred else declared
        assert names & allowed, f"{path.relative_to(PROJECT)} imports {module}, which pyproject.toml does not declare"


def _absolute_imports() -> Iterator[tuple[Path, str, bool]]:
    """Each import of our packages: the file, the first part of the module's name, and whether a function does it."""
    for folder in _top_level_folders():
        for path in (PROJECT / folder).rglob("*.py"):
            tree = ast.parse(path.read_text())
            at_top = set(map(id, tree.body))
            for node in ast.walk(tree):
                if isinstance(node, ast.Import):
                    modules = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom) and node.level == 0:
                    modules = [node.module]
                else:
                    continue
                for module in modules:
                    yield path, module.split(".")[0], id(node) not in at_top


def test_packaging_lists_every_folder_and_alias() -> None:
    setuptools = PYPROJECT["tool"]["setuptools"]
    aliases = [path.stem for path in sorted((PROJECT / "workbench" / "aliases").glob("*.py")) if path.stem[0] != "_"]
    assert setuptools["py-modules"] == aliases
    assert list(setuptools["package-dir"]) == ["", *_top_level_folders()]
    assert setuptools["packages"]["find"]["include"] == [f"{name}*" for name in _top_level_folders()]


def test_a_wheel_of_the_source_distribution_holds_the_packages_and_the_short_names(tmp_path: Path) -> None:
    source = tmp_path / "source"
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for folder in _top_level_folders():
        shutil.copytree(PROJECT / folder, source / folder, ignore=ignore)
    for name in ("pyproject.toml", "LICENSE", "README.md"):
        shutil.copy(PROJECT / name, source)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", "out", "./source"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert len(list((tmp_path / "out").glob("*.tar.gz"))) == 1
    (wheel,) = (tmp_path / "out").glob("*.whl")
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expected = {
        str(path.relative_to(source))
        for folder in _top_level_folders()
        for path in (source / folder).rglob("*")
        if path.suffix in {".py", ".js", ".css", ".html", ".json", ".svg", ".h", ".cpp", ".cu", ".cuh"}
        and "aliases" not in path.parts
    }
    assert packed == expected | {"llama_gpu.py", "multi_gpu.py", "quantization.py"}


def test_supported_pythons_read_the_code() -> None:
    """What the oldest supported Python cannot parse, no other one would tell."""
    versions = [line.rpartition(" ")[2] for line in PYPROJECT["project"]["classifiers"] if "Python :: 3." in line]
    assert versions == ["3.11", "3.12", "3.13"]
    for folder in _top_level_folders():
        for path in (PROJECT / folder).rglob("*.py"):
            ast.parse(path.read_text(), str(path), feature_version=(3, 11))


def test_license_is_the_declared_one() -> None:
    assert PYPROJECT["project"]["license"] == "MIT"
    assert "MIT License" in (PROJECT / "LICENSE").read_text()[:200]


# These tests may themselves run under make, whose options and variables travel on in such.
_MADE_BY_MAKE = ("MAKE", "MFLAGS", "ARGS", "JOBS")


def _planned(*arguments: str) -> list[str]:
    """The commands that make would run."""
    command = ["make", "--dry-run", "PYTHON=python3", *arguments]
    variables = {name: value for name, value in os.environ.items() if not name.startswith(_MADE_BY_MAKE)}
    done = subprocess.run(command, cwd=PROJECT, env=variables, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_make_lab_sets_up_and_opens_the_quickstart() -> None:
    set_up, *lab = _planned("lab", "ARGS=--no-browser --port 8899")
    words = " ".join(lab).replace("\\", "").split()
    assert set_up == "python3 .ci/environment.py"
    assert words[words.index(".venv/bin/jupyter") + 1] == "lab"
    assert words[-4:] == [
        "--LabApp.default_url=/lab/tree/notebooks/01_quickstart.ipynb",
        "--no-browser",
        "--port",
        "8899",
    ]
    assert (PROJECT / "notebooks" / "01_quickstart.ipynb").is_file()


def test_make_test_sets_up_and_runs_tests_and_notebooks() -> None:
    set_up, pytest_run = _planned("test")
    assert set_up == "python3 .ci/environment.py"
    # Without a path pytest takes the project's own.
    assert " --nbval " in pytest_run
    assert pytest_run.rstrip().endswith(" -n 2 --dist loadfile --no-loadscope-reorder")
    settings = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    assert settings["testpaths"] == ["notebooks", "tests"]
    pytest_run = _planned("test", "JOBS=0", "ARGS=tests/engine")[-1]
    assert " -n 0 " in pytest_run and pytest_run.endswith(" tests/engine")


@pytest.mark.parametrize("target", ["architecture", "properties", "fuzz", "lint", "typecheck",
                                    "docs", "bench", "wheel", "coverage", "audit"])  # fmt: skip
def test_each_target_sets_up_first_and_runs_from_the_environment(target: str) -> None:
    set_up, *commands = _planned(target)
    assert set_up == "python3 .ci/environment.py"
    assert commands and ".venv/bin" in commands[0]
    assert all(".venv/bin" in command or "build/audit/bin" in command for command in commands)


@pytest.fixture
def commands(tmp_path: Path) -> Path:
    """A folder with all that .ci/run may call; the commands that would change the machine only note their call."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("bash", "dirname", "env"):
        (folder / name).symlink_to(shutil.which(name))
    for name in ("apt-get", "make", "chromium"):
        note = f'echo "{name} $* browser=${{WORKBENCH_REQUIRE_BROWSER-}}" >> "{tmp_path}/calls"\n'
        _write_command(folder / name, note + "[ ! -e " + str(tmp_path / f"{name}-fails") + " ]\n")
    _write_command(folder / "id", "echo 0\n")
    return folder


def _write_command(path: Path, body: str) -> None:
    path.write_text(f"#!{shutil.which('bash')}\n{body}")
    path.chmod(0o755)


def _run_ci(commands: Path) -> tuple[int, list[str]]:
    calls = commands.parent / "calls"
    calls.touch()
    variables = {"PATH": str(commands)}
    done = subprocess.run([PROJECT / ".ci" / "run"], cwd="/", env=variables, stdin=subprocess.DEVNULL, timeout=60)
    return done.returncode, calls.read_text().splitlines()


def test_ci_installs_a_missing_browser_first_and_requires_it(commands: Path) -> None:
    (commands / "chromium").unlink()
    status, calls = _run_ci(commands)
    assert status == 0
    assert [call.split()[:2] for call in calls] == [
        ["apt-get", "update"],
        ["apt-get", "install"],
        ["make", "docs"],
        ["make", "test"],
    ]
    assert " chromium " in calls[1]
    assert calls[3].endswith("browser=1")


def test_ci_keeps_a_browser_that_is_there(commands: Path) -> None:
    status, (docs, test) = _run_ci(commands)
    assert (status, docs) == (0, "make docs browser=")
    assert test.startswith("make test ") and test.endswith(" browser=1")


def test_ci_asks_for_rights_when_it_has_none(commands: Path) -> None:
    (commands / "chromium").unlink()
    _write_command(commands / "id", "echo 1000\n")
    _write_command(commands / "sudo", f'echo "sudo $*" >> "{commands.parent}/calls"\n[ "$1" = -n ]\nshift\nexec "$@"\n')
    status, calls = _run_ci(commands)
    assert status == 0
    assert [call.split()[0] for call in calls] == ["sudo", "apt-get", "sudo", "apt-get", "make", "make"]


@pytest.mark.parametrize("failing", ["apt-get", "make"])
def test_ci_fails_when_a_step_fails(commands: Path, failing: str) -> None:
    if failing == "apt-get":
        (commands / "chromium").unlink()
    (commands.parent / f"{failing}-fails").touch()
    status, calls = _run_ci(commands)
    assert status != 0
    assert calls[-1].startswith(failing)
