"""Abuse case 48: having models loaded that nobody allowed, and files that bring code along."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from live_endpoint import ADMIN_KEY, http_client, start_endpoint

from workbench import LlamaGPU
from workbench.server.endpoint import Endpoint
from workbench.server.settings import LoadSettings, QueueSettings, ServerSettings
from workbench.session import Session


def make_root(folder: Path, model: Path) -> Path:
    """A folder of models that may be loaded, beside one whose models may not."""
    for name in ("allowed/model", "allowed/other", "secret/model"):
        shutil.copytree(model, folder / name)
    return folder / "allowed"


def serve(root: Path) -> Endpoint:
    """An endpoint over the allowed folder, that never gets as far as loading."""

    def no_load(choice, progress):
        raise AssertionError(f"{choice.model} was loaded")

    session = Session(no_load)
    llm = LlamaGPU(root / "model", prefer_gpu=False, auto_detect_aws=False)
    session.adopt(llm)
    settings = ServerSettings(load=LoadSettings(model_roots=(str(root),)), queue=QueueSettings(drain_s=0.2))
    return start_endpoint(llm, settings, session=session, may_change=True)


@pytest.fixture(scope="module")
def shared(tmp_path_factory, tiny_model_folder):
    """An admin's client for tests that change no file."""
    root = make_root(tmp_path_factory.mktemp("shared"), tiny_model_folder)
    with serve(root) as endpoint, http_client(endpoint, ADMIN_KEY) as client:
        yield client


@pytest.fixture
def root(tmp_path, tiny_model_folder) -> Path:
    return make_root(tmp_path, tiny_model_folder)


@pytest.fixture
def admin(root):
    with serve(root) as endpoint, http_client(endpoint, ADMIN_KEY) as client:
        yield client


def load(client, name, **fields):
    return client.post("/v1/models/load", json={"model": name, **fields})


def still_serves(client):
    return client.post("/v1/completions", json={"prompt": "x", "max_tokens": 1}).status_code == 200


FORBIDDEN = [
    "../secret/model",
    "model/../../secret/model",
    "./../secret/model",
    "..",
    ".",
    "/",
    "/etc",
    "/etc/passwd",
    "~",
    "~root",
    "$HOME",
    "model\x00/../../secret",
    "C:\\models",
    "\\\\server\\share\\model",
    "//server/share",
    "http://127.0.0.1/model",
    "https://example.org/model.gguf",
    "s3://bucket/model",
    "file:///etc",
    "hf:org/name",
    "org/name",
    "org/name@main",
    "random:tiny",
    "no-such-model",
    "model/config.json",
    "model/model.safetensors",
    " ",
]


@pytest.mark.parametrize("name", FORBIDDEN)
def test_48_only_what_is_below_the_folder_can_be_loaded(shared, name):
    reply = load(shared, name)
    assert reply.status_code == 403
    assert reply.json()["error"]["code"] == "model_not_allowed"
    # The same words for what is forbidden, what is missing and what is of the wrong kind.
    assert reply.json()["error"]["message"] == "that is not a model that this server may load"


def test_48_nor_by_an_absolute_path_or_a_link_out_of_it(admin, root):
    (root / "link").symlink_to(root.parent / "secret" / "model", target_is_directory=True)
    (root / "up").symlink_to(root.parent, target_is_directory=True)
    for name in ("link", "up/secret/model", str(root.parent / "secret" / "model"), str(root / "other")):
        assert load(admin, name).status_code == 403
    assert still_serves(admin)


@pytest.mark.parametrize("name", ["", None, 7, ["model"], "x" * 600])
def test_48_a_name_is_a_text(shared, name):
    assert load(shared, name).status_code == 400


@pytest.mark.parametrize(
    "field",
    [
        "trust_remote_code",
        "allow_pickle",
        "torch_dtype",
        "dtype",
        "device_map",
        "path",
        "kwargs",
        "attn_implementation",
    ],
)
def test_48_nothing_else_can_be_asked_for(shared, field):
    reply = load(shared, "other", **{field: True})
    assert reply.status_code == 400 and reply.json()["error"]["param"] == field


def test_48_a_revision_is_only_for_hubs(shared):
    assert load(shared, "other", revision="main").json()["error"]["param"] == "revision"
    assert load(shared, "other", revision="../../x").status_code == 400


def change_config(folder, **fields):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **fields}))


def test_48_code_of_a_model_is_refused_before_anything_is_imported(admin, root):
    (root / "other" / "evil.py").write_text(f"open({str(root / 'ran')!r}, 'w')")
    change_config(root / "other", auto_map={"AutoModelForCausalLM": "evil.Model", "AutoConfig": "evil.Config"})
    reply = load(admin, "other")
    assert reply.status_code == 403 and reply.json()["error"]["code"] == "unsafe_model"
    assert not (root / "ran").exists()
    assert still_serves(admin)


@pytest.mark.parametrize("suffix", ["bin", "pt", "ckpt", "pth", "pkl"])
def test_48_pickles_are_refused(admin, root, suffix):
    (root / "other" / "model.safetensors").rename(root / "other" / f"pytorch_model.{suffix}")
    reply = load(admin, "other")
    assert reply.status_code in (400, 403)
    assert str(root) not in reply.text


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 8,
        b"\xff" * 100,
        (2**63).to_bytes(8, "little") + b"{}",
        (50).to_bytes(8, "little") + b'{"a": {"dtype": "F32", "shape": [9999999999], "data_offsets": [0, 4]}}',
        b"GGUF" + b"\x00" * 20,
    ],
)
def test_48_damaged_weights_are_found_while_the_old_model_serves(admin, root, content):
    (root / "other" / "model.safetensors").write_bytes(content)
    reply = load(admin, "other")
    assert reply.status_code == 400 and reply.json()["error"]["code"] == "invalid_model"
    assert str(root) not in reply.text
    assert still_serves(admin)


@pytest.mark.parametrize("content", [b"", b"GGUF", b"GGUF\x03\x00\x00\x00" + b"\xff" * 16, b"not a gguf at all" * 10])
def test_48_so_is_a_damaged_gguf(admin, root, content):
    (root / "bad.gguf").write_bytes(content)
    reply = load(admin, "bad.gguf")
    assert reply.status_code == 400 and reply.json()["error"]["code"] == "invalid_model"
    assert still_serves(admin)


def test_48_figures_tell_no_paths(admin, root):
    for path in (
        "/v1/models",
        "/v1/quantization/stats",
        "/v1/multi-gpu/stats",
        "/v1/monitor/workers",
        "/metrics",
        "/openapi.json",
    ):
        assert str(root) not in admin.get(path).text, path
