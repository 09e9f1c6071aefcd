from pathlib import Path

import pytest

from workbench.models.hub_cache import cached_repos, hub_cache_folder, remove_repo


@pytest.fixture(autouse=True)
def no_hub_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)


def test_the_cache_is_where_the_hubs_own_library_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/u")
    assert hub_cache_folder() == Path("/home/u/.cache/huggingface/hub")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert hub_cache_folder() == Path("/x/huggingface/hub")
    monkeypatch.setenv("HF_HOME", "/h")
    assert hub_cache_folder() == Path("/h/hub")
    monkeypatch.setenv("HF_HUB_CACHE", "/c")
    assert hub_cache_folder() == Path("/c")


def test_it_lists_models_and_counts_each_blob_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    blobs = tmp_path / "models--org--a--b" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / "1").write_bytes(b"x" * 1000)
    for commit in ("old", "new"):
        snapshot = blobs.parent / "snapshots" / commit
        snapshot.mkdir(parents=True)
        (snapshot / "model.safetensors").symlink_to(blobs / "1")
    (tmp_path / "models--org--config-only" / "snapshots" / "c").mkdir(parents=True)
    (tmp_path / "datasets--org--d" / "snapshots" / "c").mkdir(parents=True)
    (tmp_path / "models--org--begun").mkdir()

    found = {repo.repo: repo for repo in cached_repos()}

    assert found.keys() == {"org/a--b", "org/config-only"}
    assert (found["org/a--b"].size_bytes, found["org/a--b"].has_weights) == (1000, True)
    assert not found["org/config-only"].has_weights

    assert remove_repo("org/a--b") == 1000
    assert remove_repo("org/a--b") == 0
    assert cached_repos()[0].repo == "org/config-only"


def test_no_cache_is_an_empty_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "none"))

    assert cached_repos() == []
