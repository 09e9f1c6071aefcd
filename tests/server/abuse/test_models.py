"""Abuse case 48: having models loaded that nobody allowed, and files that bring code along."""

from __future__ import annotations

import json
import shutil
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import pytest
import tiny_gguf
from live_endpoint import ADMIN_KEY, USE_KEY, chat, http_client, start_endpoint, streaming
from model_folders import edit_json

from workbench import LlamaGPU
from workbench.server.endpoint import Endpoint
from workbench.server.settings import LoadSettings, QueueSettings, ServerSettings
from workbench.session import EngineFactory, Session

TINY = {"prefer_gpu": False, "auto_detect_aws": False}


def make_root(folder: Path, model: Path) -> Path:
    """A folder of models that may be loaded, beside one whose models may not."""
    for name in ("allowed/model", "allowed/other", "secret/model"):
        shutil.copytree(model, folder / name)
    return folder / "allowed"


@contextmanager
def serving(root: Path, loader: EngineFactory, **settings: object) -> Iterator[Endpoint]:
    """An endpoint over a model of the folder, which loads others of it with `loader`."""
    session = Session(loader)
    with LlamaGPU(root / "model", **TINY) as llm:
        session.adopt(llm)
        load = LoadSettings(model_roots=(str(root),), **settings)
        server = ServerSettings(load=load, queue=QueueSettings(drain_s=0.2))
        with start_endpoint(llm, server, session=session, may_change=True) as endpoint:
            yield endpoint


def no_load(choice, progress):
    raise AssertionError(f"{choice.model} was loaded")


@pytest.fixture(scope="module")
def root(tmp_path_factory, tiny_model_folder) -> Path:
    return make_root(tmp_path_factory.mktemp("shared"), tiny_model_folder)


@pytest.fixture(scope="module")
def shared(root):
    """An admin's client of one endpoint for all tests, which never gets as far as loading."""
    with serving(root, no_load) as endpoint, http_client(endpoint, ADMIN_KEY) as client:
        client.endpoint = endpoint
        yield client


@pytest.fixture
def spoilt(root, tiny_model_folder) -> Iterator[Path]:
    """One more model in the folder, for its test to spoil."""
    folder = root / "spoilt"
    shutil.copytree(tiny_model_folder, folder)
    yield folder
    shutil.rmtree(folder)


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


def test_48_nor_by_an_absolute_path_or_a_link_out_of_it(shared, root):
    (root / "link").symlink_to(root.parent / "secret" / "model", target_is_directory=True)
    (root / "up").symlink_to(root.parent, target_is_directory=True)
    for name in ("link", "up/secret/model", str(root.parent / "secret" / "model"), str(root / "other")):
        assert load(shared, name).status_code == 403
    assert still_serves(shared)


def test_48_a_hub_id_while_offline_is_said_so_and_changes_nothing(root, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with serving(root, no_load, allow_hub=True) as endpoint, http_client(endpoint, ADMIN_KEY) as client:
        assert load(client, "hf:org/name").status_code == 403
        reply = load(client, "org/name")
        assert reply.status_code == 502 and reply.json()["error"]["code"] == "download_failed"
        assert still_serves(client)


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


def test_48_code_of_a_model_is_refused_before_anything_is_imported(shared, spoilt, tmp_path):
    (spoilt / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    change_config(spoilt, auto_map={"AutoModelForCausalLM": "evil.Model", "AutoConfig": "evil.Config"})
    reply = load(shared, "spoilt")
    assert reply.status_code == 403 and reply.json()["error"]["code"] == "unsafe_model"
    assert not (tmp_path / "ran").exists() and "evil" not in sys.modules
    assert still_serves(shared)


@pytest.mark.parametrize("suffix", ["bin", "pt", "ckpt", "pth", "pkl"])
def test_48_pickles_are_refused(shared, spoilt, root, suffix):
    (spoilt / "model.safetensors").rename(spoilt / f"pytorch_model.{suffix}")
    reply = load(shared, "spoilt")
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
def test_48_damaged_weights_are_found_while_the_old_model_serves(shared, spoilt, root, content):
    (spoilt / "model.safetensors").write_bytes(content)
    reply = load(shared, "spoilt")
    assert reply.status_code == 400 and reply.json()["error"]["code"] == "invalid_model"
    assert str(root) not in reply.text
    assert still_serves(shared)


@pytest.mark.parametrize("content", [b"", b"GGUF", b"GGUF\x03\x00\x00\x00" + b"\xff" * 16, b"not a gguf at all" * 10])
def test_48_so_is_a_damaged_gguf(shared, root, content):
    (root / "bad.gguf").write_bytes(content)
    reply = load(shared, "bad.gguf")
    assert reply.status_code == 400 and reply.json()["error"]["code"] == "invalid_model"
    assert still_serves(shared)


COMMAND = "{{ cycler.__init__.__globals__.os.system('touch RAN') }}"
TEMPLATES = [
    "{{ messages.__class__.__mro__[1].__subclasses__() }}",
    "{{ messages.append(messages) }}",
    "{% for i in range(10**9) %}x{% endfor %}",
    "{% import 'os' as os %}{{ os }}",
]


@pytest.mark.parametrize("kind", ["folder", "gguf"])
def test_48_a_models_template_runs_in_a_sandbox(spoilt, tmp_path, monkeypatch, kind):
    command = COMMAND.replace("RAN", str(tmp_path / "ran"))
    if kind == "folder":
        (spoilt / "chat_template.jinja").unlink(missing_ok=True)
        edit_json(spoilt / "tokenizer_config.json", chat_template=command)
        source = spoilt
    else:
        monkeypatch.setattr(tiny_gguf, "CHAT_TEMPLATE", command)
        source = tiny_gguf.write_tiny_gguf(tmp_path / "evil.gguf")
    with LlamaGPU(source, **TINY) as llm:
        assert llm.tokenizer.hf.chat_template == command
        for template in (command, *TEMPLATES):
            llm.tokenizer.hf.chat_template = template
            with start_endpoint(llm) as endpoint, http_client(endpoint) as client:
                reply = client.post("/v1/chat/completions", json=chat())
                assert reply.status_code == 400 and reply.json()["error"]["param"] == "messages", (template, reply.text)
                assert client.post("/v1/completions", json={"prompt": "x", "max_tokens": 1}).status_code == 200
    assert not (tmp_path / "ran").exists()


def test_48_a_load_that_fails_brings_the_old_model_back(root):
    attempts = []

    def load_first_only(choice, progress):
        attempts.append(choice.model)
        if choice.model.endswith("other"):
            raise MemoryError("no room")
        return LlamaGPU(choice.model, progress=progress, **TINY)

    with serving(root, load_first_only) as endpoint, http_client(endpoint, ADMIN_KEY) as client:
        reply = load(client, "other")
        assert reply.status_code == 500 and reply.json()["error"]["code"] == "load_failed"
        assert len(attempts) == 2
        assert [model["id"] for model in client.get("/v1/models").json()["data"]] == ["model"]
        assert still_serves(client)


def test_48_of_twenty_loads_at_once_one_wins_and_never_two_models_are_there(root):
    """During a generation, which is given its time and then told."""
    may_load, first_was_loaded = threading.Event(), []

    def slow_load(choice, progress):
        first_was_loaded.append(first.is_loaded)
        may_load.wait(120)
        return LlamaGPU(choice.model, progress=progress, **TINY)

    body = {"prompt": "x", "max_tokens": 1900, "ignore_eos": True}
    with (
        serving(root, slow_load) as endpoint,
        http_client(endpoint, ADMIN_KEY) as client,
        ThreadPoolExecutor(20) as pool,
    ):
        first = endpoint._services.host.served().llm
        with streaming(client, body) as lines:
            loads = [pool.submit(load, client, "other") for _ in range(20)]
            refused = [future.result().status_code for future in islice(as_completed(loads, timeout=60), 19)]
            rest = "".join(lines)
        assert refused == [409] * 19, "the one that loads is not done before it may"
        assert client.post("/v1/completions", json={"prompt": "x"}).status_code == 503
        may_load.set()
        assert sorted(future.result().status_code for future in loads) == [200] + [409] * 19
        assert first_was_loaded == [False], "the old one has gone before the new one comes"
        assert still_serves(client)
    assert '"error"' in rest or '"finish_reason":"length"' in rest
    assert rest.endswith("data: [DONE]")


@pytest.mark.parametrize(
    "body",
    [
        {"gpu_ids": [0, -1]},
        {"gpu_ids": [0, 99]},
        {"gpu_ids": [0, 0]},
        {"gpu_ids": ["GPU-no-such"]},
        {"gpu_ids": ["../../etc/passwd", 1]},
        {"gpu_ids": []},
        {"gpu_ids": [2**40]},
        {"gpu_ids": "all"},
        {"num_gpus": -2},
        {"num_gpus": 0},
        {"num_gpus": 10**9},
        {"num_gpus": 2, "strategy": "no_such"},
        {"num_gpus": 2, "tensor_parallel_size": -2},
        {"num_gpus": 4, "strategy": "hybrid", "tensor_parallel_size": 3},
        {"num_gpus": 2, "stages": 0},
        {"num_gpus": 2, "memory_fraction": -0.5},
        {"num_gpus": 2, "memory_fraction": 1.5},
        {"num_gpus": 2, "load_balancing": "no_such"},
        # A model is split evenly; shares are no setting, whatever they add up to.
        {"num_gpus": 2, "split": [-0.5, 1.5]},
        {"num_gpus": 2, "tensor_split": [0.5, 0.6]},
        {"num_gpus": 2, "gpu_split": [1, 1]},
    ],
    ids=str,
)
def test_48_devices_and_shares_that_cannot_be_are_a_400(shared, body):
    reply = shared.post("/v1/multi-gpu/config", json=body)
    assert reply.status_code == 400, reply.text
    assert reply.json()["error"]["type"] == "invalid_request_error"
    assert still_serves(shared)


@pytest.mark.parametrize("key", [USE_KEY, ADMIN_KEY])
def test_48_figures_tell_no_paths(shared, root, key):
    paths = (
        "/v1/models",
        "/v1/quantization/stats",
        "/v1/multi-gpu/stats",
        "/v1/monitor/queues",
        "/v1/monitor/batches",
        "/v1/monitor/workers",
        "/metrics",
        "/health",
        "/openapi.json",
    )
    with http_client(shared.endpoint, key) as client:
        for path in paths:
            reply = client.get(path)
            assert reply.status_code == 200
            assert str(root) not in reply.text and str(Path.home()) + "/" not in reply.text, path
