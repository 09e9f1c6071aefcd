"""Code on the pages: Python is run, commands are held against the programs they call, the rest says why not.

A page's Python runs from top to bottom in one namespace, with a tiny model standing in for every other: what the model
says is tested elsewhere, here only that the code is right. README's runs on the embedded model (tests/test_readme.py).
"""

from __future__ import annotations

import ast
import json
import re
import shlex
from pathlib import Path

import pytest
from documented_code import ALL_BLOCKS, PAGES, PROJECT, Block, blocks_of

from workbench.cli.root import root_command

LANGUAGES = {"python", "sh", "json"}
RUN_ELSEWHERE = PROJECT / "README.md"

# By the words that a command begins with: the test that runs it, or why none does.
RUN_BY = {
    "workbench app": "tests/dashboards/test_launching.py",
    "workbench aws": "tests/cli/test_aws.py",
    "workbench bench": "tests/cli/test_bench.py",
    "workbench bench --url": "tests/benchmark/test_load.py",
    "workbench cache": "tests/cli/test_quantize.py",
    "workbench chat": "tests/cli/test_chat.py",
    "workbench completion": "tests/cli/test_completion.py",
    "workbench example": "tests/cli/test_example.py",
    "workbench generate": "tests/cli/test_generate.py",
    "workbench gpus": "tests/cli/test_gpus.py",
    "workbench info": "tests/cli/test_info.py",
    "workbench keys": "tests/cli/test_keys.py",
    "workbench models": "tests/cli/test_models.py",
    "workbench monitor": "tests/cli/test_monitor.py",
    "workbench plan": "tests/cli/test_plan.py",
    "workbench plugins": "tests/cli/test_plugins.py",
    "workbench profile": "tests/cli/test_profile.py",
    "workbench quantize": "tests/cli/test_quantize.py",
    "workbench serve": "tests/server/test_spot_drain.py",
    "make wheel": "tests/test_packaging.py",
}
NOT_RUN = {
    "make lab": "opens JupyterLab and goes on until told to end; benchmarks/newcomer.sh runs it to the first token",
    "make test": "is what runs these tests",
    "make architecture": "runs tests of this suite",
    "make properties": "runs tests of this suite",
    "make fuzz": "runs tests of this suite",
    "make docs": "takes as long as all tests of this folder; .ci/run begins with it",
    "make lint": "checks the tree, not the product; it is run before every change",
    "make bench": "measures; `workbench bench`, which it calls, is run",
    "make coverage": "runs all tests",
    "make audit": "needs a network",
    "python benchmarks/": "measures for minutes; no test times anything",
    "python -m benchmarks.": "measures for minutes; no test times anything",
}


def _unmarked(language: str) -> list[Block]:
    return [block for block in ALL_BLOCKS if block.language == language and block.mark is None]


def test_every_block_is_of_a_kind_that_is_checked() -> None:
    assert len(ALL_BLOCKS) > 40
    wrong = [block.where for block in ALL_BLOCKS if block.language not in LANGUAGES | {"text"}]
    assert wrong == []


def test_marks_are_understood_and_true() -> None:
    comments = [line for page in PAGES for line in page.read_text("utf-8").splitlines() if line.startswith("<!-- ")]
    assert len([block for block in ALL_BLOCKS if block.mark]) == len(comments), "a mark stands right above its block"
    for block in ALL_BLOCKS:
        if block.mark == "run by":
            assert (PROJECT / block.said).is_file(), block.where
            assert block.page.name in (PROJECT / block.said).read_text("utf-8"), block.where
        elif block.mark == "not run":
            assert len(block.said.split()) >= 3, block.where


PYTHON_PAGES = [page for page in PAGES if page != RUN_ELSEWHERE and any(b.page == page for b in _unmarked("python"))]


@pytest.mark.parametrize("page", PYTHON_PAGES, ids=lambda page: page.stem)
def test_a_pages_python_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_MODEL", "random:tiny")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "page"}
    try:
        for block in blocks_of(page):
            if block.language == "python" and block.mark is None:
                exec(compile("\n" * block.line + block.code, str(page), "exec"), names)
    finally:
        for value in names.values():
            if hasattr(value, "unload") and not isinstance(value, type):
                value.unload()


@pytest.mark.parametrize("block", _unmarked("json"), ids=lambda block: block.where)
def test_json_is_json(block: Block) -> None:
    json.loads(block.code)


@pytest.mark.parametrize("block", _unmarked("sh"), ids=lambda block: block.where)
def test_commands_are_ones_that_the_programs_take(block: Block) -> None:
    for line in block.commands:
        _check(line)


def test_every_command_is_run_by_a_test_or_says_why_not() -> None:
    for block in _unmarked("sh"):
        for line in block.commands:
            bare = re.sub(r"^(?:[A-Z_]+=\S* )+", "", line)
            assert bare.startswith((*RUN_BY, *NOT_RUN)), (
                f"{block.where}: no test runs {bare!r}: name one, or the reason"
            )
    for words, test in RUN_BY.items():
        _, command, *_ = words.split()
        assert re.search(rf"[\"' ]{command}[\"' ,]", (PROJECT / test).read_text("utf-8")), (words, test)


def test_commands_in_sentences_exist() -> None:
    known = {name for name in root_command().list_commands(None)}
    for page in PAGES:
        for name in re.findall(r"`workbench ([a-z][\w-]*)", page.read_text("utf-8")):
            assert name in known, (page.name, name)


@pytest.mark.parametrize("line", ["workbench plan --no-such-option", "workbench nothing", "make nothing",
                                  "python benchmarks/peers.py --no-such-option", "curl somewhere",
                                  "workbench models fetch"])  # fmt: skip
def test_a_wrong_command_is_found(line: str) -> None:
    with pytest.raises(BaseException, match=r".*"):  # noqa: B017, PT011
        _check(line)


def _check(line: str) -> None:
    words = shlex.split(line, comments=True)
    # Variables before a command, and what is optional in it.
    while re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words = words[1:]
    words = [word.strip("[]") for word in words]
    program, *arguments = words
    if program == "workbench":
        _check_workbench(arguments)
    elif program == "make":
        makefile = (PROJECT / "Makefile").read_text("utf-8")
        targets = [word for word in arguments if "=" not in word]
        assert targets and all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets), line
    elif program == "python":
        _check_script(arguments)
    else:
        raise AssertionError(f"{line}: no test knows {program}; mark the block with the reason why it is not run")


def _check_workbench(arguments: list[str]) -> None:
    """Parse the words as the command line does, down to the command that would be called."""
    command = root_command()
    context = command.make_context("workbench", list(arguments))
    while hasattr(command, "resolve_command"):
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        context = command.make_context(name, list(rest), parent=context)


def _check_script(arguments: list[str]) -> None:
    """The script is there and declares each option. Most import torch, so none is run for its help."""
    if arguments[0] == "-m":
        path = PROJECT / (arguments[1].replace(".", "/") + ".py")
        arguments = arguments[1:]
    else:
        path = PROJECT / arguments[0]
    declared = {
        word.value
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in {"add_argument", "add_parser"}
        for word in node.args
        if isinstance(word, ast.Constant)
    }
    unknown = [word for word in arguments[1:] if word.startswith("--") and word.split("=")[0] not in declared]
    assert unknown == [], (path.name, unknown)
