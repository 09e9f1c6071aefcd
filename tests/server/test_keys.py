"""Keys in their file: made, found, revoked, by several processes, and never readable by others."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from workbench.errors import ConfigError
from workbench.server.keys import KeyFile, KeyRing, Scope, static_key
from workbench.server.settings import RateLimits


@pytest.fixture
def file(tmp_path):
    return KeyFile(tmp_path / "keys.json", clock=lambda: 1000.0)


def test_a_key_is_known_by_its_secret_only(file):
    made = file.create("laptop", Scope.ADMIN, RateLimits(requests_per_minute=5))
    ring = KeyRing(file=file)
    found = ring.find(made.secret.encode())
    assert found == made.key
    assert (found.name, found.scope, found.created_s) == ("laptop", Scope.ADMIN, 1000.0)
    assert found.limits == RateLimits(requests_per_minute=5)
    for other in (made.secret[:-1], made.secret + "x", made.key.key_id, made.key.digest, ""):
        assert ring.find(other.encode()) is None


def test_only_hashes_are_stored_and_only_the_owner_may_read(file):
    secrets = [file.create(f"key {i}").secret for i in range(3)]
    text = file.path.read_text()
    assert not [secret for secret in secrets if secret in text]
    assert len(json.loads(text)["keys"]) == 3
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert len(set(secrets)) == 3 and min(map(len, secrets)) > 40


def test_a_running_ring_notices_new_and_revoked_keys(file):
    ring = KeyRing([static_key("fixed", Scope.USE, "a-fixed-secret").key], file)
    assert len(ring.keys) == 1
    made = file.create("new")
    assert ring.find(made.secret.encode()) == made.key
    file.revoke(made.key.key_id)
    assert ring.find(made.secret.encode()) is None and not ring.is_valid(made.key)
    file.path.unlink()
    assert ring.find(b"a-fixed-secret").name == "fixed"


def test_an_unknown_id_is_told_with_those_that_exist(file):
    made = file.create("one")
    with pytest.raises(ConfigError, match=made.key.key_id):
        file.revoke("nope")


@pytest.mark.parametrize("name", ["", "  ", "x" * 65, "a\nb", "\x1b[2J"])
def test_a_name_is_short_and_printable(file, name):
    with pytest.raises(ConfigError, match="name"):
        file.create(name)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"keys": [{"key_id": 1}]}', '{"keys": [{"scope": "god"}]}'])
def test_a_damaged_file_is_not_overwritten(file, text):
    file.path.write_text(text)
    for act in (file.list, lambda: file.create("x"), lambda: file.revoke("x")):
        with pytest.raises(ConfigError, match="damaged"):
            act()
    assert file.path.read_text() == text


def test_many_at_once_lose_no_key(file):
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda i: KeyFile(file.path).create(f"key {i}"), range(24)))
    assert {key.key_id for key in file.list()} == {each.key.key_id for each in made}


def test_scopes():
    use, admin = static_key("u", Scope.USE).key, static_key("a", Scope.ADMIN).key
    assert use.allows(Scope.USE) and not use.allows(Scope.ADMIN)
    assert admin.allows(Scope.USE) and admin.allows(Scope.ADMIN)
