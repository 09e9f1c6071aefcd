"""Functions that a model may call from the app, and how they are run. A tool gets checked arguments and gives text."""

from __future__ import annotations

import ast
import asyncio
import json
import logging
import math
import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from workbench.errors import ConfigError, WorkbenchError
from workbench.server.tools import Function

__all__ = ["BUILT_IN_TOOLS", "Tool", "ToolResult", "Toolbox"]

_log = logging.getLogger(__name__)
_MAX_RESULT_CHARS = 8000


@dataclass(frozen=True)
class Tool:
    """A function with its description for the model. `run` takes the arguments by name, in a thread."""

    function: Function
    run: Callable[..., object]


@dataclass(frozen=True)
class ToolResult:
    """What a call gave, as text for the model."""

    text: str
    failed: bool = False


class Toolbox:
    """Tools by name. Raises ConfigError for two of one name."""

    def __init__(self, tools: Iterable[Tool]) -> None:
        self._tools: dict[str, Tool] = {}
        for tool in tools:
            if tool.function.name in self._tools:
                raise ConfigError(f"there are two tools named {tool.function.name!r}")
            self._tools[tool.function.name] = tool

    @property
    def names(self) -> tuple[str, ...]:
        """The tools there are."""
        return tuple(self._tools)

    def functions(self, names: Iterable[str]) -> tuple[Function, ...]:
        """What the model is told of those tools."""
        return tuple(self._tools[name].function for name in names if name in self._tools)

    async def call(self, name: str, arguments: str) -> ToolResult:
        """Run a tool. Whatever goes wrong becomes a result that says so, for the model to read."""
        tool = self._tools.get(name)
        if tool is None:
            return ToolResult(f"there is no tool {name!r}", failed=True)
        try:
            given = json.loads(arguments or "{}")
            if not isinstance(given, dict):
                raise ValueError("the arguments must be an object")
            result = await asyncio.to_thread(tool.run, **given)
        except (WorkbenchError, ValueError, TypeError, ArithmeticError) as error:
            return ToolResult(f"{type(error).__name__}: {error}", failed=True)
        # Boundary: a tool may be anybody's code, and the chat goes on without it.
        except Exception as error:
            _log.exception("the tool %s failed", name)
            return ToolResult(f"{type(error).__name__}: {error}", failed=True)
        text = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False, default=str)
        return ToolResult(text[:_MAX_RESULT_CHARS])


_OPERATORS: dict[type, Callable[..., float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
_FUNCTIONS = {name: getattr(math, name) for name in ("sqrt", "log", "log2", "log10", "exp", "sin", "cos", "tan")}
_FUNCTIONS |= {"abs": abs, "round": round, "min": min, "max": max}
_MAX_EXPONENT = 1000


def calculate(expression: str) -> float:
    """The value of an arithmetic expression. Raises ValueError for anything else."""
    try:
        tree = ast.parse(expression, mode="eval")
    except (SyntaxError, RecursionError, MemoryError):
        raise ValueError(f"{expression!r} is not an arithmetic expression") from None
    return _value(tree.body)


def _value(node: ast.expr) -> float:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return node.value
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        left, right = _value(node.left), _value(node.right)
        # 9**9**9 would take all memory there is.
        if isinstance(node.op, ast.Pow) and (abs(right) > _MAX_EXPONENT or abs(left) > 1e12):
            raise ValueError("that power is too large")
        return _OPERATORS[type(node.op)](left, right)
    if isinstance(node, ast.UnaryOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_value(node.operand))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS:
        return _FUNCTIONS[node.func.id](*map(_value, node.args))
    if isinstance(node, ast.Name) and node.id in ("pi", "e"):
        return getattr(math, node.id)
    raise ValueError("only numbers, + - * / // % ** and simple functions are understood")


def _now() -> str:
    return datetime.now().astimezone().strftime("%A, %Y-%m-%d %H:%M %Z")


BUILT_IN_TOOLS = (
    Tool(
        Function(
            "calculator",
            "Compute an arithmetic expression exactly.",
            {
                "type": "object",
                "properties": {"expression": {"type": "string", "maxLength": 80}},
                "required": ["expression"],
                "additionalProperties": False,
            },
        ),
        calculate,
    ),
    Tool(
        Function(
            "clock",
            "Tell the present date and time.",
            {"type": "object", "properties": {}, "additionalProperties": False},
        ),
        _now,
    ),
)
