"""pip, ended with the process that started it: `python -m workbench.models.pip_client ARGUMENT...`."""

from __future__ import annotations

import runpy

from workbench.child_lifetime import exit_with_parent

__all__: list[str] = []


def main() -> None:
    """Run pip in this process, whose stdin is a pipe of its parent's."""
    exit_with_parent()
    runpy.run_module("pip", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
