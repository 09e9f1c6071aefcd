"""Imports a plugin in a process of its own first, which can be ended: one that loops or dies there never gets in here.

This is a guard against accidents. A plugin that means harm is code of your own choice with all your rights: it could
behave here and not there. Against that only signatures, the allow-list and reading it help.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

from workbench.errors import PluginError
from workbench.plugins.candidates import Candidate

__all__ = ["fingerprint", "try_import"]

_MAX_WORDS = 600
_PROGRAM = """
import importlib, json, sys
path, folder = json.loads(sys.argv[1])
if folder:
    sys.path.append(folder)
module, _, attribute = path.partition(":")
found = importlib.import_module(module)
if attribute:
    getattr(found, attribute)
"""


def try_import(candidate: Candidate, limit_s: float) -> None:
    """Raise PluginError if importing it does not end well within `limit_s` seconds."""
    argument = json.dumps([candidate.path, str(candidate.folder) if candidate.folder else None])
    command = [sys.executable, "-c", _PROGRAM, argument]
    # It finds what we find, and nothing of its output gets mixed up with ours.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=limit_s,
        )
    except subprocess.TimeoutExpired:
        raise PluginError(
            f"plugin {candidate.name}: importing it took longer than {limit_s:g} s, so it is refused"
        ) from None
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip()[-_MAX_WORDS:]
        raise PluginError(f"plugin {candidate.name} cannot be imported: {words or f'exit code {done.returncode}'}")


def fingerprint(candidate: Candidate) -> str | None:
    """Changes whenever one of the plugin's files does; None where they cannot be told."""
    files = _files(candidate)
    if not files:
        return None
    digest = hashlib.sha256(f"{candidate.path} {sys.version_info[:2]}".encode())
    for file in files:
        facts = file.stat()
        digest.update(f"{file}:{facts.st_size}:{facts.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _files(candidate: Candidate) -> list[Path]:
    if candidate.folder is not None:
        return sorted(candidate.folder.rglob("*.py"))
    try:
        # Finding a top-level module runs nothing of it.
        spec = importlib.util.find_spec(candidate.module.partition(".")[0])
    except (ImportError, ValueError):
        return []
    if spec is None:
        return []
    roots = [Path(root) for root in spec.submodule_search_locations or ()]
    if roots:
        return sorted(file for root in roots for file in root.rglob("*.py"))
    return [Path(spec.origin)] if spec.origin and Path(spec.origin).is_file() else []
