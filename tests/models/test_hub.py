from pathlib import Path

import pytest
import torch
from fake_hub import COMMIT, FakeHub
from model_folders import copy_folder
from safetensors.torch import load_file

from workbench.errors import DownloadError, LoadCancelled, ModelNotFoundError, UnsafeModelError
from workbench.models import Catalogue, load_model
from workbench.models.hub_client import NoWeights, UnsafeRepository, choose_files
from workbench.progress import Progress


@pytest.fixture(autouse=True)
def hub_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub cache of the test's own, and no way to the real hub."""
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    # Nobody listens on the port with number 9 ("discard").
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    return tmp_path / "hf"


@pytest.fixture
def hub(tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pickled = copy_folder(tiny_model_folder, tmp_path / "pickled")
    torch.save(load_file(pickled / "model.safetensors"), pickled / "pytorch_model.bin")
    (pickled / "model.safetensors").unlink()
    tiny = copy_folder(tiny_model_folder, tmp_path / "tiny")
    (tiny / "README.md").write_text("not needed")
    repos = {"org/tiny": tiny, "org/pickled": pickled, "org/gated": tiny_model_folder}
    with FakeHub(repos, gated=frozenset({"org/gated"})) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


def test_it_downloads_loads_lists_and_removes(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Progress] = []
    catalogue = Catalogue()

    files = catalogue.resolve("org/tiny@main", progress=seen.append)

    assert files.name == "org/tiny@main"
    assert load_model(files, device="cpu", dtype="fp32").spec.num_parameters == 139_584
    assert seen[-1].stage == "download"
    assert seen[-1].completed == seen[-1].total > 4 * 139_584
    (entry,) = [entry for entry in catalogue.list() if entry.kind == "hub"]
    assert (entry.name, entry.ready, entry.path) == ("org/tiny", True, files.path)

    assert not any("README" in request for request in hub.requests)
    num_bodies = sum(request.startswith("GET /org/") for request in hub.requests)
    assert catalogue.path("org/tiny") == files.path
    assert sum(request.startswith("GET /org/") for request in hub.requests) == num_bodies, "downloaded again"

    # Offline, by setting and by a dead connection, the cached copy serves.
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert catalogue.path("org/tiny") == files.path
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert catalogue.path(f"org/tiny@{COMMIT}") == files.path

    assert catalogue.remove("org/tiny") == entry.size_bytes > 4 * 139_584
    with pytest.raises(DownloadError, match=r"cannot be reached \(offline\) and org/tiny is not in its cache"):
        catalogue.resolve("org/tiny")
    with pytest.raises(ModelNotFoundError, match="nothing is cached for org/tiny"):
        catalogue.remove("org/tiny")


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("org/missing", ModelNotFoundError, "the hub has no model 'org/missing'"),
        ("org/tiny@v9", ModelNotFoundError, "org/tiny has no revision 'v9'"),
        ("org/gated", DownloadError, "org/gated is gated: accept its terms on its page and set HF_TOKEN"),
        ("org/pickled", UnsafeModelError, r"only pickle weights \(pytorch_model.bin\).*allow_pickle=True"),
    ],
)
def test_what_the_hub_refuses_is_said_in_our_words(
    hub: FakeHub, name: str, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        Catalogue().resolve(name)


def test_a_hub_that_is_broken_is_not_called_offline(hub: FakeHub) -> None:
    cached = Catalogue().path("org/tiny")
    hub.is_broken = True

    assert Catalogue().path("org/tiny") == cached
    with pytest.raises(DownloadError, match="org/pickled could not be downloaded: HfHubHTTPError: .*500"):
        Catalogue().resolve("org/pickled")


def test_pickle_weights_come_with_the_flag(hub: FakeHub) -> None:
    files = Catalogue().resolve("org/pickled", allow_pickle=True)

    assert load_model(files, device="cpu", dtype="fp32").spec.num_parameters == 139_584


def test_an_interrupted_download_is_finished_by_the_next(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    def break_off(name: str) -> None:
        if name == "model.safetensors":
            raise ConnectionResetError

    hub.on_file = break_off
    monkeypatch.setattr(hub._server, "handle_error", lambda *arguments: None)

    def cancel(progress: Progress) -> None:
        if any("model.safetensors" in request for request in hub.requests if request.startswith("GET /org/")):
            raise LoadCancelled("stop")

    with pytest.raises(LoadCancelled):
        Catalogue().resolve("org/tiny", progress=cancel)

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DownloadError, match="the cached copy of org/tiny is incomplete: connect"):
        Catalogue().resolve("org/tiny")
    monkeypatch.delenv("HF_HUB_OFFLINE")

    hub.on_file = lambda name: None
    assert load_model(Catalogue().resolve("org/tiny"), device="cpu", dtype="fp32").spec.num_layers == 2


_SMALL = ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["model.safetensors", "pytorch_model.bin", "README.md"], ["model.safetensors"]),
        (["model-1.safetensors", "model.safetensors.index.json", "original/x.safetensors"],
         ["model-1.safetensors", "model.safetensors.index.json"]),
        (["consolidated.safetensors", "model.safetensors"], ["model.safetensors"]),
        (["consolidated.safetensors", "tokenizer.model"], ["consolidated.safetensors", "tokenizer.model"]),
        (["model.safetensors", "modeling_own.py", "onnx/model.onnx", "model.gguf"], ["model.safetensors"]),
    ],
)  # fmt: skip
def test_only_what_loading_needs_is_fetched(names: list[str], chosen: list[str]) -> None:
    assert choose_files(_SMALL + names, allow_pickle=False, allow_code=False) == sorted(_SMALL + chosen)


def test_flags_widen_the_choice() -> None:
    assert choose_files(["pytorch_model.bin"], allow_pickle=True, allow_code=False) == ["pytorch_model.bin"]
    names = ["model.safetensors", "modeling_own.py"]
    assert choose_files(names, allow_pickle=False, allow_code=True) == names
    with pytest.raises(UnsafeRepository):
        choose_files(["pytorch_model.bin"], allow_pickle=False, allow_code=False)


def test_a_repository_of_packed_files_points_to_them() -> None:
    with pytest.raises(NoWeights, match=r"it has .gguf files \(a.gguf\): download one and name its path"):
        choose_files(["config.json", "a.gguf"], allow_pickle=True, allow_code=False)
    with pytest.raises(NoWeights):
        choose_files(["config.json"], allow_pickle=True, allow_code=False)
