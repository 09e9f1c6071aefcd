"""A choice to load as a code cell, a command line or a JSON file, and back. Runs none of them."""

from __future__ import annotations

import ast
import inspect
import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from workbench.engine import EngineConfig
from workbench.errors import ConfigError
from workbench.parallel import GPUConfig, ParallelismStrategy
from workbench.parallel.sizes_text import config_from_text, config_to_text
from workbench.session_status import LoadChoice

__all__ = [
    "choice_from_code",
    "choice_from_command",
    "choice_from_json",
    "choice_from_text",
    "choice_to_code",
    "choice_to_command",
    "choice_to_json",
]

FORMAT = "workbench.choice"
VERSION = 1
# Field of a choice -> keyword of LlamaGPU; `gpus` becomes a device_index.
_KEYWORDS = {"backend": "backend", "precision": "quant_type"}
_ENGINE_KEYWORDS = ("context_length", "kv_dtype", "cpu_offload_layers", "engine_name", "draft_model")
# Those that LlamaGPU takes by itself.
_OWN_KEYWORDS = ("context_length", "draft_model")
_NUMBERS = ("context_length", "cpu_offload_layers")
_FLAGS = {
    "model": "--model",
    "backend": "--backend",
    "precision": "--quant",
    "context_length": "--context-length",
    "gpus": "--device-index",
    "kv_dtype": "--kv-dtype",
    "cpu_offload_layers": "--cpu-offload-layers",
    "engine_name": "--engine",
    "parallel": "--parallel",
    "draft_model": "--draft-model",
}
# Commands whose options a choice is; `plan` takes the model without a flag, and has shorter names for two.
_COMMANDS = ("serve", "chat", "generate", "app", "profile")
_PLAN_FLAGS = {
    **{name: flag for name, flag in _FLAGS.items() if name not in ("model", "engine_name")},
    "context_length": "--context",
    "gpus": "--gpus",
}


def choice_to_code(choice: LoadChoice) -> str:
    """A cell that loads the choice."""
    arguments = [repr(choice.model)]
    arguments += [
        f"{keyword}={getattr(choice, name)!r}"
        for name, keyword in _KEYWORDS.items()
        if getattr(choice, name) is not None
    ]
    if choice.gpus:
        arguments.append(f"device_index={choice.gpus[0]}" if len(choice.gpus) == 1 else f"gpus={choice.gpus!r}")
    engine = [f"{name}={getattr(choice, name)!r}" for name in _ENGINE_KEYWORDS if getattr(choice, name) is not None]
    if all(getattr(choice, name) is None for name in _ENGINE_KEYWORDS if name not in _OWN_KEYWORDS):
        arguments += engine
        names = "LlamaGPU"
    else:
        arguments.append(f"engine=EngineConfig({', '.join(engine)})")
        names = "EngineConfig, LlamaGPU"
    imports = f"from workbench import {names}\n"
    if choice.parallel is not None:
        imports += "from workbench.parallel import GPUConfig\n"
        settings = ", ".join(f"{name}={value!r}" for name, value in _parallel_settings(choice.parallel).items())
        arguments.append(f"parallel=GPUConfig({settings})")
    return f"{imports}\nllm = LlamaGPU({', '.join(arguments)})"


def choice_to_command(choice: LoadChoice, command: str = "serve") -> str:
    """A line for a shell: `workbench serve --model ...`, or another command that loads a model.

    Raises ConfigError for a spread over other than the first GPUs, which no option says.
    """
    words = ["workbench", command]
    for name, flag in _FLAGS.items():
        value = getattr(choice, name)
        if value is None or value == () or (name == "model" and value == "default"):
            continue
        words += [flag, _in_words(name, value)]
    return shlex.join(words)


def choice_to_json(choice: LoadChoice) -> str:
    """A file's content. Fields left to the workbench are null."""
    values = {name: value for name, value in asdict(choice).items() if name != "parallel"}
    if choice.parallel is not None:
        values["parallel"] = _parallel_settings(choice.parallel)
    return json.dumps({"format": FORMAT, "version": VERSION, **values}, indent=1)


def _in_words(name: str, value: Any) -> str:
    if name == "parallel":
        return config_to_text(value)
    return ",".join(map(str, value)) if name == "gpus" else str(value)


def _parallel_settings(config: GPUConfig) -> dict[str, Any]:
    """Keywords that make the config again, as plain values; what is as usual is left out."""
    settings: dict[str, Any] = {"gpu_ids": list(config.gpu_ids), "strategy": config.strategy.value}
    if config.strategy is ParallelismStrategy.HYBRID:
        shape = config.shape
        settings |= {f"{name}_parallel_size": getattr(shape, name) for name in ("tensor", "pipeline", "data")}
    default = GPUConfig(num_gpus=1)
    more = {name: getattr(config, name) for name in ("memory_fraction", "load_balancing")}
    return settings | {name: value for name, value in more.items() if value != getattr(default, name)}


def choice_from_text(text: str) -> LoadChoice:
    """The choice in any of the three forms. Raises ConfigError that says what is wrong with it."""
    stripped = text.strip()
    if stripped.startswith("{"):
        return choice_from_json(stripped)
    if stripped.lstrip("!$ ").split(" ", 1)[0] == "workbench":
        return choice_from_command(stripped.lstrip("!$ "))
    return choice_from_code(text)


def choice_from_json(text: str) -> LoadChoice:
    """The choice in a text of `choice_to_json`."""
    try:
        content = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"this is not a choice: no JSON ({error})") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ConfigError(f"this is not a choice: format must be {FORMAT!r}")
    if content.get("version") != VERSION:
        raise ConfigError(f"version {content.get('version')!r} is not known here: this reads version {VERSION}")
    return _choice({name: value for name, value in content.items() if name not in ("format", "version")})


def choice_from_command(text: str) -> LoadChoice:
    """The choice in a command line. Options that do not belong to a choice (a port, a key) are refused by name."""
    try:
        words = shlex.split(text.replace("\\\n", " "))
    except ValueError as error:
        raise ConfigError(f"this is not a command line: {error}") from None
    command = words[1] if len(words) > 1 else ""
    if command not in (*_COMMANDS, "plan"):
        raise ConfigError(f"{command!r} is no command that loads a model; known are {', '.join(_COMMANDS)}, plan")
    flags = _PLAN_FLAGS if command == "plan" else _FLAGS
    names = {flag: name for name, flag in flags.items()}
    options = iter(words[2:])
    found: dict[str, Any] = {}
    for word in options:
        if command == "plan" and not word.startswith("-") and "model" not in found:
            found["model"] = word
            continue
        flag, _, joined = word.partition("=")
        if flag not in names:
            raise ConfigError(f"{word!r} is not part of a choice; known are {', '.join(names)}")
        value = joined or next(options, None)
        if value is None:
            raise ConfigError(f"{flag} needs a value")
        if command == "plan" and flag == "--gpus" and "," not in value:
            raise ConfigError(f"--gpus {value}: a number of GPUs is no choice of them; give --parallel tensor={value}")
        found[names[flag]] = _number_or_numbers(flag, names[flag], value)
    return _choice(found)


def choice_from_code(text: str) -> LoadChoice:
    """The choice in a cell that calls `LlamaGPU(...)` or `Workbench(...)` with plain values. Nothing is run."""
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise ConfigError(f"this is no Python: {error.msg} in line {error.lineno}") from None
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and _name_of(node) in _CALLS]
    if len(calls) != 1:
        raise ConfigError(f"exactly one call of {' or '.join(_CALLS)} is needed; there are {len(calls)}")
    (call,) = calls
    given: list[tuple[str, Any]] = []
    for keyword in call.keywords:
        if keyword.arg == "engine" and _name_of(keyword.value) == "EngineConfig":
            given += _literal_call(keyword.value, EngineConfig).items()
        elif keyword.arg == "parallel" and _name_of(keyword.value) == "GPUConfig":
            given.append(("parallel", _literal_call(keyword.value, GPUConfig)))
        else:
            given.append((str(keyword.arg), _literal(keyword.value)))
    if len(call.args) > (_name_of(call) == "LlamaGPU"):
        raise ConfigError(f"{ast.unparse(call.args[-1])}: give it by its name, as in {_name_of(call)}(model=...)")
    given += [("model", _literal(node)) for node in call.args]
    found: dict[str, Any] = {}
    for keyword_name, value in given:
        name = _FROM_KEYWORD.get(keyword_name, keyword_name)
        if name in found:
            raise ConfigError(f"{name} is given twice")
        found[name] = value
    return _choice(found)


_CALLS = ("LlamaGPU", "Workbench")
_FROM_KEYWORD = {"quant_type": "precision", "model_path": "model"}


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        raise ConfigError(f"{ast.unparse(node)} is not a plain value") from None


def _name_of(node: ast.expr) -> str:
    """What a call calls; "" for anything else."""
    return str(getattr(node.func, "id", getattr(node.func, "attr", ""))) if isinstance(node, ast.Call) else ""


def _literal_call(call: ast.expr, made: type) -> dict[str, Any]:
    """The settings of `EngineConfig(...)` or `GPUConfig(...)`, by name."""
    assert isinstance(call, ast.Call)
    positional = [_literal(node) for node in call.args]
    named = {str(inner.arg): _literal(inner.value) for inner in call.keywords}
    try:
        return inspect.signature(made).bind(*positional, **named).arguments
    except TypeError as error:
        raise ConfigError(f"{made.__name__}: {error}") from None


def _number_or_numbers(flag: str, name: str, value: str) -> Any:
    if name == "parallel":
        return config_from_text(value)
    try:
        if name == "gpus":
            return tuple(int(part) for part in value.split(","))
        return int(value) if name in _NUMBERS else value
    except ValueError:
        raise ConfigError(f"{flag} {value!r}: must be a whole number") from None


def _parallel_config(settings: Mapping[str, Any]) -> GPUConfig:
    try:
        return GPUConfig(**settings)
    except TypeError as error:
        raise ConfigError(f"parallel: {error}") from None


def _choice(values: Mapping[str, Any]) -> LoadChoice:
    values = dict(values)
    if "device_index" in values:
        if "gpus" in values:
            raise ConfigError("device_index and gpus are both given: name the GPU by one of them")
        index = values.pop("device_index")
        if type(index) is not int:
            raise ConfigError(f"device_index={index!r}: must be a whole number")
        values["gpus"] = (index,)
    known = {field.name for field in fields(LoadChoice)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ConfigError(f"{unknown[0]!r} is not part of a choice; known are {', '.join(sorted(known))}")
    for name in ("backend", "precision", "kv_dtype", "engine_name", "draft_model"):
        if not isinstance(values.get(name), str | None):
            raise ConfigError(f"{name}={values[name]!r}: must be a name or nothing")
    for name in _NUMBERS:
        if values.get(name) is not None and type(values[name]) is not int:
            raise ConfigError(f"{name}={values[name]!r}: must be a whole number or nothing")
    if isinstance(values.get("parallel"), Mapping):
        values["parallel"] = _parallel_config(values["parallel"])
    if not isinstance(values.get("parallel"), GPUConfig | None):
        raise ConfigError(f"parallel={values['parallel']!r}: must be the settings of a GPUConfig or nothing")
    if not isinstance(values.get("gpus", ()), list | tuple):
        raise ConfigError(f"gpus={values['gpus']!r}: must be a list of indexes")
    return LoadChoice(**{**values, "gpus": tuple(values.get("gpus", ()))})
