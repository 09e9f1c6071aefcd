"""The marketplace: install, update, uninstall, roll back; and everything that an index can get wrong."""

from __future__ import annotations

import functools
import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from plugin_packages import plugin_source, write_wheel

from workbench.errors import ConfigError, PluginError, PluginVerificationError
from workbench.plugins import PluginManager, PluginMarketplace, PluginStore, SigningKey, plugin_rows, write_index

KEY = SigningKey.generate()


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """A folder for an index."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    return folder


@pytest.fixture
def market(shelf: Path, workbench_home: Path) -> PluginMarketplace:
    market = PluginMarketplace(str(shelf), trial_limit_s=60)
    market.keys.trust("us", KEY.public_key)
    return market


@pytest.fixture
def loaded(workbench_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PluginManager]:
    monkeypatch.setattr("workbench.plugins.loader.try_import", lambda candidate, limit_s: None)
    with PluginManager(time_limit_s=60) as manager:
        yield manager


def _change_index(shelf: Path, **values: object) -> None:
    """Change the first entry, as somebody without the key would."""
    index = json.loads((shelf / "index.json").read_text())
    index["plugins"][0].update(values)
    (shelf / "index.json").write_text(json.dumps(index))


def test_a_plugin_comes_is_used_updated_rolled_back_and_goes(
    shelf: Path, market: PluginMarketplace, loaded: PluginManager
) -> None:
    write_wheel(shelf, "my-plugin", "1.0", description="mine")
    assert write_index(shelf, KEY) == ["my-plugin 1.0"]
    assert market.discover_plugins() == market.available_plugins == ["my-plugin"]
    assert market.list_installed_plugins() == market.installed_plugins == []
    assert market.install_plugin("my-plugin") is True
    assert market.install_plugin("my-plugin") is True
    assert market.list_installed_plugins() == ["my-plugin"]
    record = PluginStore().read().installed["my-plugin"]
    assert (record.version, record.signed_by, record.description) == ("1.0", "us", "mine")
    assert "my-plugin" in loaded.scan_available_plugins() and "my_plugin" not in sys.modules
    loaded.enable("my-plugin")
    assert loaded.get_plugin_metadata("my-plugin")["version"] == "1.0"
    assert [row.origin for row in plugin_rows(loaded) if row.name == "my-plugin"] == ["installed"]

    assert market.update_plugin("my-plugin") is False
    write_wheel(shelf, "my-plugin", "1.1.0")
    write_index(shelf, KEY)
    assert market.update_plugin("my-plugin") is True
    assert loaded.get_plugin_metadata("my-plugin")["version"] == "1.0"
    assert loaded.reload_plugin("my-plugin")
    assert loaded.get_plugin_metadata("my-plugin")["version"] == "1.1.0"

    assert market.rollback_plugin("my-plugin") == "1.0"
    assert loaded.reload_plugin("my-plugin")
    assert loaded.get_plugin_metadata("my-plugin")["version"] == "1.0"
    with pytest.raises(PluginError, match="no earlier version"):
        market.rollback_plugin("my-plugin")

    loaded.unload_plugin("my-plugin")
    assert market.uninstall_plugin("my-plugin") is True
    assert market.uninstall_plugin("my-plugin") is False
    assert market.list_installed_plugins() == [] and "my-plugin" not in PluginStore().read().enabled
    assert not list((PluginStore().folder / "versions").glob("my-plugin"))


def test_a_fresh_process_loads_what_was_installed_and_enabled(shelf: Path, market: PluginMarketplace) -> None:
    write_wheel(shelf, "my-plugin")
    write_index(shelf, KEY)
    market.install_plugin("my-plugin")
    program = (
        "from workbench.plugins import default_plugins as d\n"
        "d().enable('my-plugin')\nprint(d().object_of('my-plugin').run(4), d().get_plugin_status('my-plugin'))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(4,) loaded | valid: True | dependencies: ok"


EVIL = "from pathlib import Path\nPath({mark!r}).write_text('ran')\n"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sha256": "0" * 64}, "signature"),
        ({"version": "9.0"}, "signature"),
        ({"permissions": []}, "signature"),
        ({"signature": "AAAA"}, "signature"),
        ({"signature": "not base64"}, "base64"),
        ({"signature": None}, "not signed"),
    ],
)
def test_what_was_changed_after_signing_is_refused_and_never_run(
    shelf: Path, market: PluginMarketplace, tmp_path: Path, change: dict, words: str
) -> None:
    mark = tmp_path / "mark"
    write_wheel(shelf, "evil", permissions=("samplers",), source=EVIL.format(mark=str(mark)) + plugin_source("evil"))
    write_index(shelf, KEY)
    _change_index(shelf, **change)
    with pytest.raises(PluginVerificationError, match=words):
        market.install_plugin("evil")
    assert market.list_installed_plugins() == [] and not mark.exists()
    assert not list((PluginStore().folder / "versions").glob("**/*.py"))


def test_installing_runs_nothing_of_a_plugin(shelf: Path, market: PluginMarketplace, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    write_wheel(shelf, "eager", source=EVIL.format(mark=str(mark)) + plugin_source("eager"))
    write_index(shelf, KEY)
    assert market.discover_plugins() == ["eager"] and market.install_plugin("eager")
    assert not mark.exists()


@pytest.mark.parametrize("is_signed", [True, False])
def test_a_wrong_hash_is_refused(shelf: Path, workbench_home: Path, is_signed: bool) -> None:
    """Also where the index itself is signed, or nobody asks for signatures."""
    wheel = write_wheel(shelf, "my-plugin")
    write_index(shelf, KEY if is_signed else None)
    wheel.write_bytes(wheel.read_bytes() + b"\0")
    market = PluginMarketplace(str(shelf), allow_unsigned=not is_signed)
    market.keys.trust("us", KEY.public_key)
    with pytest.raises(PluginVerificationError, match="its SHA-256 is"):
        market.install_plugin("my-plugin")
    assert market.list_installed_plugins() == []


def test_a_key_that_is_not_trusted_any_more(shelf: Path, market: PluginMarketplace) -> None:
    write_wheel(shelf, "my-plugin")
    write_index(shelf, SigningKey.generate())
    with pytest.raises(PluginVerificationError, match="trusted are: us"):
        market.install_plugin("my-plugin")
    market.keys.distrust("us")
    write_index(shelf, KEY)
    with pytest.raises(PluginVerificationError, match="trusted are: none"):
        PluginMarketplace(str(shelf), allow_unsigned=True).install_plugin("my-plugin")


def test_unsigned_plugins_only_where_allowed(shelf: Path, market: PluginMarketplace) -> None:
    write_wheel(shelf, "my-plugin")
    write_index(shelf)
    with pytest.raises(PluginVerificationError, match="not signed"):
        market.install_plugin("my-plugin")
    assert PluginMarketplace(str(shelf), allow_unsigned=True).install_plugin("my-plugin")


@pytest.mark.parametrize("name", ["../my-plugin", "/etc/x", "my-plugin/../../x", "MY", ""])
def test_names_that_lead_outside_are_refused(market: PluginMarketplace, name: str) -> None:
    for method in (market.install_plugin, market.update_plugin, market.uninstall_plugin, market.rollback_plugin):
        with pytest.raises(PluginError, match="plugin name"):
            method(name)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "../my-plugin"},
        {"name": 7},
        {"file": "../my_plugin-1.0-py3-none-any.whl"},
        {"file": "/etc/passwd"},
        {"file": "http://elsewhere/x.whl"},
        {"file": "my-plugin.tar.gz"},
        {"sha256": "abc"},
        {"version": "latest"},
        {"requires": ["../x"]},
        {"permissions": ["root"]},
        {"requires_workbench": "any"},
    ],
)
def test_an_index_with_nonsense_is_refused_whole(shelf: Path, market: PluginMarketplace, change: dict) -> None:
    write_wheel(shelf, "my-plugin")
    write_index(shelf, KEY)
    _change_index(shelf, **change)
    with pytest.raises(PluginError):
        market.discover_plugins()


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"plugins": 3}', '{"plugins": [{}]}', '{"format": 2, "plugins": [{}]}']
)
def test_what_is_no_index(shelf: Path, market: PluginMarketplace, text: str) -> None:
    (shelf / "index.json").write_text(text)
    with pytest.raises(PluginError):
        market.discover_plugins()


def test_a_bare_list_of_names_can_be_looked_at_only(shelf: Path, market: PluginMarketplace) -> None:
    (shelf / "index.json").write_text('{"plugins": ["b", "a"]}')
    assert market.discover_plugins() == ["a", "b"]
    with pytest.raises(PluginError, match="only lists its name"):
        market.install_plugin("a")


def test_no_index_at_all(workbench_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="WORKBENCH_PLUGIN_INDEX"):
        PluginMarketplace().discover_plugins()
    with pytest.raises(PluginError, match="no index"):
        PluginMarketplace(str(tmp_path / "nowhere")).discover_plugins()
    with pytest.raises(PluginError, match="only read over https"):
        PluginMarketplace("http://plugins.example/index.json").discover_plugins()
    (tmp_path / "index.json").write_text('{"plugins": ["a"]}')
    monkeypatch.setenv("WORKBENCH_PLUGIN_INDEX", str(tmp_path))
    assert PluginMarketplace().discover_plugins() == ["a"]


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"../outside.py": "x"}, "leads outside"),
        ({"/outside.py": "x"}, "leads outside"),
        ({"my_plugin-1.0.data/scripts/tool": "x"}, "only modules"),
    ],
)
def test_a_wheel_that_would_write_elsewhere(shelf: Path, market: PluginMarketplace, extra: dict, words: str) -> None:
    write_wheel(shelf, "my-plugin", extra=extra)
    write_index(shelf, KEY)
    with pytest.raises(PluginVerificationError, match=words):
        market.install_plugin("my-plugin")


def test_a_wheel_must_be_the_plugin_that_the_index_names(shelf: Path, market: PluginMarketplace) -> None:
    wheel = write_wheel(shelf, "my-plugin", entry_name="other")
    write_index(shelf, KEY)
    with pytest.raises(PluginError, match="gives other"):
        market.install_plugin("my-plugin")
    wheel.rename(shelf / "other-1.0-py3-none-any.whl")
    with pytest.raises(PluginError, match="says my-plugin"):
        write_index(shelf, KEY)


def test_of_two_versions_the_newest_that_fits_is_taken(shelf: Path, market: PluginMarketplace) -> None:
    for version, needs in (("1.0", ""), ("1.2", ""), ("1.10", ""), ("3.0", ">=99"), ("2.0b1", "")):
        write_wheel(shelf, "my-plugin", version, requires_workbench=needs)
    write_index(shelf, KEY)
    market.install_plugin("my-plugin")
    assert PluginStore().read().installed["my-plugin"].version == "1.10"
    with pytest.raises(PluginError, match="needs workbench >=99"):
        market.install_plugin("my-plugin", "3.0")
    with pytest.raises(PluginError, match="there is no version 4.0"):
        market.install_plugin("my-plugin", "4.0")
    assert PluginStore().read().installed["my-plugin"].version == "1.10"


def test_a_downgrade_must_be_asked_for(shelf: Path, market: PluginMarketplace) -> None:
    for version in ("1.0", "2.0"):
        write_wheel(shelf, "my-plugin", version)
    write_index(shelf, KEY)
    market.install_plugin("my-plugin")
    with pytest.raises(PluginError, match="1.0 is older than the installed 2.0"):
        market.install_plugin("my-plugin", "1.0")
    # An old index played back, with every signature in order, changes nothing.
    (shelf / "my_plugin-2.0-py3-none-any.whl").unlink()
    write_index(shelf, KEY)
    with pytest.raises(PluginError, match="older than the installed"):
        market.update_plugin("my-plugin")
    market.install_plugin("my-plugin", "1.0", allow_downgrade=True)
    assert PluginStore().read().installed["my-plugin"].version == "1.0"
    assert market.rollback_plugin("my-plugin") == "2.0"


def test_a_version_never_changes(shelf: Path, market: PluginMarketplace) -> None:
    write_wheel(shelf, "my-plugin", "1.0")
    write_index(shelf, KEY)
    market.install_plugin("my-plugin")
    write_wheel(shelf, "my-plugin", "1.0", source=plugin_source("my-plugin") + "\nother = 1\n")
    write_index(shelf, KEY)
    with pytest.raises(PluginVerificationError, match="a version never changes"):
        market.install_plugin("my-plugin")


@pytest.mark.parametrize("source", ["raise RuntimeError('broken')", "while True: pass"])
def test_a_broken_update_leaves_the_old_version(shelf: Path, market: PluginMarketplace, source: str) -> None:
    write_wheel(shelf, "my-plugin", "1.0")
    write_index(shelf, KEY)
    market.install_plugin("my-plugin")
    with market.store.changing() as change:
        change.update(enabled=("my-plugin",))
    write_wheel(shelf, "my-plugin", "2.0", source=source)
    write_index(shelf, KEY)
    quick = PluginMarketplace(str(shelf), trial_limit_s=2)
    with pytest.raises(PluginError, match="cannot be imported|took longer"):
        quick.update_plugin("my-plugin")
    record = PluginStore().read().installed["my-plugin"]
    assert record.version == "1.0" and PluginStore().version_folder("my-plugin", record.folder).is_dir()
    assert not (PluginStore().folder / ".building").exists()


def test_a_pip_that_fails_leaves_the_old_version(
    shelf: Path, market: PluginMarketplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_wheel(shelf, "my-plugin", "1.0")
    write_index(shelf, KEY)
    market.install_plugin("my-plugin")
    write_wheel(shelf, "my-plugin", "2.0", extra={"my_plugin-2.0.dist-info/WHEEL": "Wheel-Version: 99.0\n"})
    write_index(shelf, KEY)
    with pytest.raises(PluginError, match="pip refused it"):
        market.update_plugin("my-plugin")
    assert PluginStore().read().installed["my-plugin"].version == "1.0"


def test_missing_requirements_are_named_before_anything_is_done(shelf: Path, market: PluginMarketplace) -> None:
    write_wheel(shelf, "my-plugin", dependencies=["no-such-package>=3"])
    write_index(shelf, KEY)
    with pytest.raises(PluginError, match="no-such-package>=3"):
        market.install_plugin("my-plugin")
    assert not list((PluginStore().folder / "versions").glob("*"))


def test_the_allow_list_holds_for_installing_too(shelf: Path, market: PluginMarketplace) -> None:
    write_wheel(shelf, "my-plugin")
    write_index(shelf, KEY)
    with market.store.changing() as change:
        change.update(allowed=())
    with pytest.raises(PluginError, match="allow-list"):
        market.install_plugin("my-plugin")


def test_a_name_that_is_there_already_is_not_taken_over(shelf: Path, market: PluginMarketplace) -> None:
    write_wheel(shelf, "stop-phrases")
    write_index(shelf, KEY)
    with pytest.raises(PluginError, match="there already"):
        market.install_plugin("stop-phrases")


def test_a_plugin_that_wants_more_than_its_index_said(
    shelf: Path, market: PluginMarketplace, loaded: PluginManager
) -> None:
    source = plugin_source("greedy", "1.0", ("samplers", "network"))
    write_wheel(shelf, "greedy", "1.0", permissions=("samplers",), source=source)
    write_index(shelf, KEY)
    market.install_plugin("greedy")
    with pytest.raises(PluginError, match="wants network, which its index did not say"):
        loaded.enable("greedy")


def test_a_module_like_one_that_is_here_is_refused(
    shelf: Path, market: PluginMarketplace, loaded: PluginManager
) -> None:
    write_wheel(shelf, "json")
    write_index(shelf, KEY)
    market.install_plugin("json")
    with pytest.raises(PluginError, match="called like one that is here already"):
        loaded.enable("json")
    assert json.dumps({}) == "{}" and sys.modules["json"] is json


def test_installs_at_once_end_with_one_whole_version(shelf: Path, market: PluginMarketplace) -> None:
    for version in ("1.0", "2.0", "3.0"):
        write_wheel(shelf, "my-plugin", version)
    write_index(shelf, KEY)
    program = (
        "import sys\nfrom workbench.plugins import PluginMarketplace\n"
        "PluginMarketplace(sys.argv[1]).install_plugin('my-plugin', sys.argv[2], allow_downgrade=True)"
    )
    command = [sys.executable, "-c", program, str(shelf)]
    running = [subprocess.Popen([*command, version]) for version in ("1.0", "2.0", "3.0", "3.0")]
    assert [process.wait(120) for process in running] == [0, 0, 0, 0]
    record = PluginStore().read().installed["my-plugin"]
    folder = PluginStore().version_folder("my-plugin", record.folder)
    assert (folder / f"my_plugin-{record.version}.dist-info").is_dir()
    assert len(list(folder.parent.iterdir())) == 1 + len(record.earlier)


def test_an_index_over_http(shelf: Path, market: PluginMarketplace) -> None:
    write_wheel(shelf, "my-plugin")
    write_index(shelf, KEY)
    handler = functools.partial(_Quiet, directory=str(shelf))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        assert PluginMarketplace(url).discover_plugins() == ["my-plugin"]
        assert PluginMarketplace(f"{url}/index.json").install_plugin("my-plugin")
        with pytest.raises(PluginError, match="the server answered 404"):
            PluginMarketplace(f"{url}/other.json").discover_plugins()
        server.shutdown()
    assert market.list_installed_plugins() == ["my-plugin"]


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def test_a_signing_key_is_kept_private(tmp_path: Path) -> None:
    path = tmp_path / "key"
    KEY.write(path)
    assert SigningKey.read(path) == KEY and path.stat().st_mode & 0o077 == 0
    assert KEY.secret.hex() not in repr(KEY)
    with pytest.raises(PluginError, match="exists"):
        KEY.write(path)
    path.write_text("AAAA")
    with pytest.raises(PluginError, match="32 bytes"):
        SigningKey.read(path)
    with pytest.raises(PluginError, match="32 bytes"):
        PluginMarketplace(str(tmp_path)).keys.trust("x", "AAAA")
