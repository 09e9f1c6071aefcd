"""Plugins written down for tests: as a module on the import path, and as a wheel in an index."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path
from textwrap import dedent

SOURCE = """
from workbench.plugins import BasePlugin, PluginMetadata, hookimpl

class Plugin(BasePlugin):
    metadata = PluginMetadata(name={name!r}, version={version!r}, permissions={permissions!r})
    steps = []

    def initialize(self, context):
        self.steps.append("initialize")

    def shutdown(self):
        self.steps.append("shutdown")

    def run(self, *args):
        return args
{body}

plugin = Plugin()
"""


TAB = """
@hookimpl
def register_dashboard_tabs(self, register):
    register({name!r}, self.build)

def build(self, session):
    import gradio
    shown = gradio.Textbox("from " + session.status.state.value, elem_id="{name}-shown")
    button = gradio.Button("Go", elem_id="{name}-go")
    {then}
"""


def plugin_source(name: str, version: str = "1.0", permissions: tuple[str, ...] = (), body: str = "") -> str:
    """A plugin's module; `body` are further methods of its class, from the left margin."""
    indented = "\n".join(f"    {line}" for line in dedent(body).splitlines())
    return SOURCE.format(name=name, version=version, permissions=permissions, body=indented)


def tab_source(name: str, then: str = "pass") -> str:
    """A plugin's module with a tab: a text and a button "Go"; `then` does something with `shown` and `button`."""
    return plugin_source(name, permissions=("dashboard_tabs",), body=TAB.format(name=name, then=then))


def write_module(folder: Path, module: str, source: str) -> str:
    """The import path of a plugin that lies in `folder` as a module."""
    (folder / f"{module}.py").write_text(source)
    return f"{module}:plugin"


def write_wheel(
    folder: Path,
    name: str,
    version: str = "1.0",
    *,
    source: str | None = None,
    permissions: tuple[str, ...] = (),
    extra: dict[str, str] | None = None,
    entry_name: str | None = None,
    **metadata: object,
) -> Path:
    """A wheel as pip installs it, made without a build."""
    module = name.replace("-", "_")
    path = folder / f"{module}-{version}-py3-none-any.whl"
    info = f"{module}-{version}.dist-info"
    source = plugin_source(name, version, permissions) if source is None else source
    facts = {"name": name, "version": version, "permissions": list(permissions), **metadata}
    files = {
        f"{module}/__init__.py": source,
        f"{module}/plugin.json": json.dumps(facts),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[workbench.plugins]\n{entry_name or name} = {module}:plugin\n",
        **(extra or {}),
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as wheel:
        for file, text in files.items():
            wheel.writestr(file, text)
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
