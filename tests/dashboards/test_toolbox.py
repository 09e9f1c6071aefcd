import json

import pytest

from dashboards.toolbox import BUILT_IN_TOOLS, Tool, Toolbox, calculate
from workbench.errors import ConfigError
from workbench.server.tools import Function


def _tool(name: str, run) -> Tool:
    return Tool(Function(name, "", None), run)


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("2+3*4", 14),
        ("-2**2", -4),
        ("sqrt(16)/2", 2),
        ("7//2 + 7%2", 4),
        ("max(1, 2, pi)", pytest.approx(3.14159, 1e-4)),
    ],
)
def test_arithmetic_is_computed(expression, value):
    assert calculate(expression) == value


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "__import__('os')",
        "a",
        "'a'*9",
        "9**9**9",
        "(1).real",
        "[1]",
        "1 if 1 else 2",
        "open('x')",
        "1+" * 500,
        "True",
    ],
)
def test_everything_else_is_refused(expression):
    with pytest.raises(ValueError):
        calculate(expression)


async def test_a_call_gives_text_and_its_failure_too():
    toolbox = Toolbox([*BUILT_IN_TOOLS, _tool("broken", lambda: 1 / 0), _tool("bug", lambda: {}["x"])])
    assert (await toolbox.call("calculator", '{"expression": "6*7"}')).text == "42"
    assert (await toolbox.call("clock", "{}")).failed is False
    for name, arguments in [
        ("nobody", "{}"),
        ("calculator", "{"),
        ("calculator", "[]"),
        ("calculator", '{"other": 1}'),
        ("broken", "{}"),
        ("bug", ""),
    ]:
        result = await toolbox.call(name, arguments)
        assert result.failed and result.text, name


async def test_values_become_json():
    assert json.loads((await Toolbox([_tool("t", lambda: {"a": [1]})]).call("t", "{}")).text) == {"a": [1]}


def test_a_name_stands_for_one_tool():
    with pytest.raises(ConfigError, match="two tools named 'x'"):
        Toolbox([_tool("x", str), _tool("x", str)])


def test_the_model_is_told_of_chosen_tools_only():
    toolbox = Toolbox(BUILT_IN_TOOLS)
    assert [f.name for f in toolbox.functions(["clock", "gone"])] == ["clock"]
