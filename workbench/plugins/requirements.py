"""Whether what a plugin needs is here: packages and versions. Looks at installed metadata, imports nothing."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from workbench.errors import PluginError

__all__ = [
    "allows_version",
    "check_dependencies",
    "check_version",
    "missing_dependencies",
    "require_fit",
    "workbench_version",
]


def workbench_version() -> str:
    """The version of the package that this is a part of."""
    return str(sys.modules[__name__.partition(".")[0]].__version__)


def missing_dependencies(requirements: Sequence[str]) -> list[str]:
    """Those that no installed package satisfies, each with what is there."""
    from importlib.metadata import PackageNotFoundError, version

    from packaging.requirements import Requirement

    missing = []
    for text in requirements:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            missing.append(f"{text} (not installed)")
            continue
        if not requirement.specifier.contains(found, prereleases=True):
            missing.append(f"{text} (installed is {found})")
    return missing


def check_dependencies(dependencies: Sequence[str]) -> bool:
    """Whether all of these requirements are installed."""
    return not missing_dependencies(dependencies)


def allows_version(version: str, required: str) -> bool:
    """Whether `version` is in the range `required` (">=1,<2"); a bare version means exactly that one."""
    from packaging.specifiers import InvalidSpecifier, SpecifierSet
    from packaging.version import InvalidVersion, Version

    wanted = required.strip()
    if wanted and wanted[0].isdigit():
        wanted = f"=={wanted}"
    try:
        return SpecifierSet(wanted).contains(Version(version), prereleases=True)
    except (InvalidSpecifier, InvalidVersion) as error:
        raise PluginError(f"version {version!r} cannot be held against {required!r}: {error}") from error


def check_version(metadata: Mapping[str, object], required: str) -> bool:
    """Whether the version in a plugin's metadata is in the range `required`."""
    return allows_version(str(metadata.get("version", "")), required)


def require_fit(name: str, requires_workbench: str, dependencies: Sequence[str]) -> None:
    """Raise PluginError when this workbench or its packages are not what a plugin needs."""
    here = workbench_version()
    if requires_workbench and not allows_version(here, requires_workbench):
        raise PluginError(f"plugin {name} needs workbench {requires_workbench}, and this is {here}")
    missing = missing_dependencies(dependencies)
    if missing:
        raise PluginError(f"plugin {name} needs {', '.join(missing)}: install that first")
