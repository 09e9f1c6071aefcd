"""`PluginMarketplace`: finds plugins in an index and installs, updates, removes and rolls back their packages."""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict, replace
from pathlib import Path

from workbench.errors import ConfigError, PluginError, PluginVerificationError
from workbench.plugins.candidates import Candidate, find_candidates, folder_entry_point
from workbench.plugins.index import IndexEntry, PluginIndex, read_index
from workbench.plugins.metadata import check_plugin_name
from workbench.plugins.requirements import require_fit
from workbench.plugins.signing import KeyRing
from workbench.plugins.store import InstalledRecord, PluginStore
from workbench.plugins.trial_import import try_import
from workbench.plugins.wheel import check_wheel, unpack_wheel

__all__ = ["PluginMarketplace"]

_NUM_EARLIER_KEPT = 2
_SOURCE_VARIABLE = "WORKBENCH_PLUGIN_INDEX"


class PluginMarketplace:
    """One index, and what is installed here.

    Args:
        remote_url: the index: a folder, a JSON file or an https URL; WORKBENCH_PLUGIN_INDEX if left out.
        store: where plugins are installed (default: below WORKBENCH_HOME).
        allow_unsigned: install entries that carry no signature. A wrong one is always refused.
        trial_limit_s: how long the import of a new version of an enabled plugin may take when it is tried.

    Looking at an index runs nothing of it. A wheel is checked against its SHA-256 and signature before pip unpacks it,
    and only what was enabled by the user is ever imported. Whatever fails leaves the installed version in place.
    """

    def __init__(
        self,
        remote_url: str | None = None,
        *,
        store: PluginStore | None = None,
        allow_unsigned: bool = False,
        trial_limit_s: float = 20.0,
    ) -> None:
        self.remote_url = remote_url or os.environ.get(_SOURCE_VARIABLE)
        self.store = store or PluginStore()
        self.keys = KeyRing(self.store.folder / "trusted-keys.json")
        self._allow_unsigned = allow_unsigned
        self._trial_limit_s = trial_limit_s

    @property
    def available_plugins(self) -> list[str]:
        """The same as `discover_plugins()`."""
        return self.discover_plugins()

    @property
    def installed_plugins(self) -> list[str]:
        """The same as `list_installed_plugins()`."""
        return self.list_installed_plugins()

    def discover_plugins(self) -> list[str]:
        """Names in the index, sorted. Raises PluginError when it cannot be read."""
        return self.read_index().names()

    def list_installed_plugins(self) -> list[str]:
        """Names of the installed plugins, sorted."""
        return sorted(self.store.read().installed)

    def install_plugin(self, name: str, version: str | None = None, *, allow_downgrade: bool = False) -> bool:
        """Install a plugin, by default its newest version that fits this workbench. True; what hinders it is raised.

        Installing the version that is there changes nothing. An older one needs `allow_downgrade`. Raises PluginError,
        or PluginVerificationError when hash or signature are wrong.
        """
        check_plugin_name(name)
        index = self.read_index()
        with self.store.changing() as change:
            state = change.state
            state.require_allowed(name)
            present = state.installed.get(name)
            self._require_free(name, present)
            entry = self._choose(index, name, version)
            if present is not None and not self._is_step(present, entry, allow_downgrade):
                return True
            signer = self._signer(entry)
            require_fit(name, entry.metadata.requires_workbench, entry.metadata.dependencies)
            record = self._unpack(index, entry, signer, present, is_enabled=name in state.enabled)
            change.update(installed={**state.installed, name: record})
        self._sweep_versions(name)
        return True

    def update_plugin(self, name: str) -> bool:
        """Install the newest version that fits. Whether that changed anything; raises what installing raises."""
        before = self._installed(name)
        self.install_plugin(name)
        return self._installed(name) != before

    def uninstall_plugin(self, name: str) -> bool:
        """Remove a plugin's files and its place among the enabled ones; its data stays. False if it is not installed.

        A process that has it loaded keeps it until it ends or unloads it.
        """
        check_plugin_name(name)
        with self.store.changing() as change:
            if name not in change.state.installed:
                return False
            change.disable(name)
            change.update(installed={key: r for key, r in change.state.installed.items() if key != name})
        shutil.rmtree(self.store.folder / "versions" / name, ignore_errors=True)
        return True

    def rollback_plugin(self, name: str) -> str:
        """Go back to the version that was installed before; gives it. Raises PluginError when there is none."""
        with self.store.changing() as change:
            present = change.state.installed.get(check_plugin_name(name))
            if present is None:
                raise PluginError(f"plugin {name} is not installed")
            usable = [r for r in present.earlier if self.store.version_folder(name, r["folder"]).is_dir()]
            if not usable:
                raise PluginError(f"plugin {name}: no earlier version is kept")
            values = {**usable[-1], "permissions": tuple(usable[-1]["permissions"]), "earlier": tuple(usable[:-1])}
            earlier = InstalledRecord(**values)
            change.update(installed={**change.state.installed, name: earlier})
        return earlier.version

    def read_index(self) -> PluginIndex:
        """The index as it is now. Raises PluginError."""
        if not self.remote_url:
            raise ConfigError(f"remote_url is not given and {_SOURCE_VARIABLE} is not set: name an index of plugins")
        return read_index(self.remote_url)

    def _installed(self, name: str) -> InstalledRecord:
        record = self.store.read().installed.get(check_plugin_name(name))
        if record is None:
            raise PluginError(
                f"plugin {name} is not installed; installed: {', '.join(self.installed_plugins) or 'none'}"
            )
        return record

    def _require_free(self, name: str, present: InstalledRecord | None) -> None:
        """A name means one plugin: not one that this environment or the workbench has already."""
        other = find_candidates(self.store).get(name)
        if present is None and other is not None:
            raise PluginError(f"plugin {name} is there already ({other.origin}: {other.path})")

    def _choose(self, index: PluginIndex, name: str, version: str | None) -> IndexEntry:
        from packaging.version import InvalidVersion, Version

        versions = index.versions(name)
        if not versions:
            why = "the index only lists its name" if name in index.listed else "it is not in the index"
            raise PluginError(f"plugin {name}: {why}; there are {', '.join(index.names()) or 'none'}")
        if version is not None:
            try:
                wanted = Version(version)
            except InvalidVersion as error:
                raise PluginError(f"plugin {name}: {error}") from error
            found = [entry for entry in versions if Version(entry.version) == wanted]
            if not found:
                have = ", ".join(entry.version for entry in versions)
                raise PluginError(f"plugin {name}: there is no version {version}; there are {have}")
            self._require_one(found)
            return found[0]
        final = [entry for entry in versions if not Version(entry.version).is_prerelease] or versions
        for entry in final:
            if _fits(entry):
                self._require_one([other for other in versions if other.version == entry.version])
                return entry
        require_fit(name, final[0].metadata.requires_workbench, ())
        raise AssertionError("the newest version fits, so it was chosen")

    def _require_one(self, entries: list[IndexEntry]) -> None:
        if len({entry.sha256 for entry in entries}) > 1:
            first = entries[0]
            raise PluginVerificationError(f"plugin {first.name}: the index has two files for version {first.version}")

    def _is_step(self, present: InstalledRecord, entry: IndexEntry, allow_downgrade: bool) -> bool:
        """Whether there is something to do. Raises PluginError for an older version or other files of the same one."""
        from packaging.version import Version

        old, new = Version(present.version), Version(entry.version)
        if new == old:
            if present.sha256 != entry.sha256:
                raise PluginVerificationError(
                    f"plugin {entry.name} {entry.version} is installed with other files (SHA-256 {present.sha256}): "
                    "a version never changes"
                )
            return False
        if new < old and not allow_downgrade:
            raise PluginError(
                f"plugin {entry.name}: {entry.version} is older than the installed {present.version}; "
                "allow the downgrade, or roll back"
            )
        return True

    def _signer(self, entry: IndexEntry) -> str:
        signer = self.keys.signer(entry.values)
        if signer is None and not self._allow_unsigned:
            raise PluginVerificationError(
                f"plugin {entry.name} {entry.version} is not signed; allow unsigned plugins if you trust this index"
            )
        return signer or ""

    def _unpack(
        self, index: PluginIndex, entry: IndexEntry, signer: str, present: InstalledRecord | None, *, is_enabled: bool
    ) -> InstalledRecord:
        """Fetch, check and unpack a version, and put it where it belongs. Nothing stays of one that fails."""
        folder_id = entry.sha256[:16]
        target = self.store.version_folder(entry.name, folder_id)
        with self.store.building() as building:
            wheel = building / entry.file
            index.fetch(entry, wheel)
            check_wheel(wheel, entry)
            unpacked = building / "unpacked"
            unpack_wheel(wheel, unpacked)
            entry_point = folder_entry_point(unpacked, entry.name)
            if is_enabled:
                # It was allowed to run before, so the new version may be tried before the old one is given up.
                try_import(Candidate(entry.name, entry_point, "installed", unpacked), self._trial_limit_s)
            _put_in_place(unpacked, target, building)
        records = () if present is None else (*present.earlier, asdict(replace(present, earlier=())))
        earlier = tuple(record for record in records if record["folder"] != folder_id)
        return InstalledRecord(
            name=entry.name,
            version=entry.version,
            folder=folder_id,
            entry_point=entry_point,
            sha256=entry.sha256,
            source=index.source,
            signed_by=signer,
            permissions=entry.metadata.permissions,
            requires_workbench=entry.metadata.requires_workbench,
            description=entry.metadata.description,
            earlier=earlier[-_NUM_EARLIER_KEPT:],
        )

    def _sweep_versions(self, name: str) -> None:
        """Delete versions that nothing leads back to."""
        with self.store.changing() as change:
            record = change.state.installed.get(name)
            kept = {record.folder, *(earlier["folder"] for earlier in record.earlier)} if record else set()
            for folder in (self.store.folder / "versions" / name).glob("*"):
                if folder.name not in kept:
                    shutil.rmtree(folder, ignore_errors=True)


def _put_in_place(unpacked: Path, target: Path, building: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        # Left by a process that was killed in between, or kept for a rollback: the new one is known to be whole.
        target.rename(building / "replaced")
    unpacked.rename(target)


def _fits(entry: IndexEntry) -> bool:
    try:
        require_fit(entry.name, entry.metadata.requires_workbench, ())
    except PluginError:
        return False
    return True
