"""`workbench keys`: made and printed once, listed without secrets, revoked."""

from __future__ import annotations

import json

import pytest

from workbench.cli import main
from workbench.server.keys import KeyRing, Scope, default_key_file
from workbench.server.settings import RateLimits


def test_a_key_is_printed_once_and_listed_without_its_secret(capsys):
    assert main(["keys", "create", "laptop", "--scope", "admin", "--requests-per-minute", "5"]) == 0
    secret = capsys.readouterr().out.strip()
    found = KeyRing(file=default_key_file()).find(secret.encode())
    assert (found.name, found.scope, found.limits) == ("laptop", Scope.ADMIN, RateLimits(requests_per_minute=5))
    assert main(["keys", "list"]) == 0
    line = capsys.readouterr().out
    assert found.key_id in line and "laptop" in line and secret not in line and found.digest not in line


def test_the_list_shows_what_each_key_may_use(capsys):
    main(["keys", "create", "busy", "--requests-per-minute", "5", "--concurrent-requests", "2"])
    main(["keys", "create", "thrifty", "--tokens-per-minute", "700"])
    main(["keys", "create", "plain"])
    capsys.readouterr()
    main(["keys", "list"])
    busy, thrifty, plain = capsys.readouterr().out.splitlines()
    assert "5 requests/min, 2 at once" in busy
    assert "700 tokens/min" in thrifty and "requests/min" not in thrifty
    assert "server's limits" in plain


def test_json_for_scripts(capsys):
    main(["keys", "create", "script", "--json"])
    made = json.loads(capsys.readouterr().out)
    main(["keys", "list", "--json"])
    (listed,) = json.loads(capsys.readouterr().out)
    assert listed["key_id"] == made["key_id"] and listed["scope"] == "use"
    assert made["key"] not in json.dumps(listed) and "digest" not in listed


def test_a_revoked_key_is_gone(capsys):
    main(["keys", "create", "gone", "--json"])
    made = json.loads(capsys.readouterr().out)
    assert main(["keys", "revoke", made["key_id"]]) == 0
    assert KeyRing(file=default_key_file()).find(made["key"].encode()) is None
    assert main(["keys", "revoke", made["key_id"]]) == 1
    assert "there is no such key" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [["create"], ["create", "x", "--scope", "god"], ["revoke"], ["create", "x", "--requests-per-minute", "x"]],
)
def test_wrong_usage(arguments, capsys):
    assert main(["keys", *arguments]) == 2


def test_serving_on_an_open_address_needs_a_key_before_a_model_is_loaded(capsys):
    assert main(["serve", "--host", "0.0.0.0", "--port", "0", "--model", "/no/such/model"]) == 1
    assert "key of your own" in capsys.readouterr().err
