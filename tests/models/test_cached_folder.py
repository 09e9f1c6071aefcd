import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from workbench.child_lifetime import python_environment
from workbench.errors import LoadCancelled, ModelLoadError
from workbench.models.cached_folder import MANIFEST_NAME, CachedFolder, folder_bytes
from workbench.progress import Progress

# Builds one file, tells the test that it is inside, and waits to be killed or let on.
_SLOW_BUILDER = """
import sys
from pathlib import Path
from workbench.models.cached_folder import CachedFolder
def build(folder):
    (folder / "half").write_text("x")
    print("building", flush=True)
    sys.stdin.readline()
    (folder / "whole").write_text(sys.argv[2])
CachedFolder(Path(sys.argv[1]), "model", "key").ensure(build)
print("ready", flush=True)
"""


def _write(text: str, calls: list[str] | None = None):
    def build(folder: Path) -> None:
        if calls is not None:
            calls.append(text)
        (folder / "sub").mkdir()
        (folder / "sub" / "file").write_text(text)

    return build


def _no_build(folder: Path) -> None:
    raise AssertionError("built a second time")


def _leftovers(parent: Path) -> list[Path]:
    return [path for path in (parent / ".building").rglob("*") if path.is_file()]


def test_it_builds_once(tmp_path: Path) -> None:
    folder = CachedFolder(tmp_path, "model", "key", label="shown")
    assert not folder.is_ready()

    path = folder.ensure(_write("one"))

    assert folder.is_ready()
    assert (path / "sub" / "file").read_text() == "one"
    assert json.loads((path / MANIFEST_NAME).read_text())["label"] == "shown"
    assert folder.ensure(_no_build) == path
    assert _leftovers(tmp_path) == []


@pytest.mark.parametrize("error", [ValueError("broken"), LoadCancelled("stop"), KeyboardInterrupt()])
def test_a_failed_build_leaves_nothing_and_the_next_one_starts_clean(tmp_path: Path, error: BaseException) -> None:
    folder = CachedFolder(tmp_path, "model", "key")

    def fail(target: Path) -> None:
        (target / "half").write_text("x")
        raise error

    with pytest.raises(type(error)):
        folder.ensure(fail)

    assert not folder.path.exists()
    assert _leftovers(tmp_path) == []
    assert (folder.ensure(_write("two")) / "sub" / "file").read_text() == "two"


@pytest.mark.parametrize("damage", ["truncate", "delete", "manifest"])
def test_a_damaged_folder_is_built_again(tmp_path: Path, damage: str) -> None:
    folder = CachedFolder(tmp_path, "model", "key")
    path = folder.ensure(_write("whole"))
    match damage:
        case "truncate":
            os.truncate(path / "sub" / "file", 2)
        case "delete":
            (path / "sub" / "file").unlink()
        case "manifest":
            (path / MANIFEST_NAME).write_text("{")

    assert not folder.is_ready()
    assert (folder.ensure(_write("whole")) / "sub" / "file").read_text() == "whole"


def test_another_recipe_replaces_the_folder(tmp_path: Path) -> None:
    CachedFolder(tmp_path, "model", "old").ensure(_write("old"))

    path = CachedFolder(tmp_path, "model", "new").ensure(_write("new"))

    assert (path / "sub" / "file").read_text() == "new"


def test_remove_gives_the_bytes_freed(tmp_path: Path) -> None:
    folder = CachedFolder(tmp_path, "model", "key")
    size_bytes = folder_bytes(folder.ensure(_write("x" * 1000)))

    assert folder.remove() == size_bytes > 1000
    assert not folder.path.exists()
    assert folder.remove() == 0


def test_remove_takes_a_link_and_leaves_what_it_points_to(tmp_path: Path) -> None:
    kept = CachedFolder(tmp_path / "kept", "model", "key").ensure(_write("mine"))
    folder = CachedFolder(tmp_path / "cache", "model", "key")
    (tmp_path / "cache").mkdir()
    folder.path.symlink_to(kept)

    folder.remove()

    assert not folder.path.exists()
    assert (kept / "sub" / "file").read_text() == "mine"


def test_a_cache_that_cannot_be_written_says_what_to_set(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(ModelLoadError, match="cannot write to the model cache .*; set WORKBENCH_HOME"):
        CachedFolder(tmp_path / "file" / "models", "model", "key").ensure(_write("x"))


def test_threads_at_once_build_once(tmp_path: Path) -> None:
    calls: list[str] = []
    start = threading.Barrier(4)

    def ensure() -> None:
        start.wait()
        CachedFolder(tmp_path, "model", "key").ensure(_write("one", calls))

    threads = [threading.Thread(target=ensure) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert calls == ["one"]


def test_a_killed_builder_is_swept_and_its_lock_is_free(tmp_path: Path) -> None:
    builder = _start_builder(tmp_path, "first")
    builder.send_signal(signal.SIGKILL)
    builder.wait()
    builder.stdin.close()
    builder.stdout.close()
    assert len(_leftovers(tmp_path)) == 1

    def build(folder: Path) -> None:
        assert _leftovers(tmp_path) == [], "room is made before more is written"
        (folder / "whole").write_text("second")

    path = CachedFolder(tmp_path, "model", "key").ensure(build)

    assert (path / "whole").read_text() == "second"
    assert _leftovers(tmp_path) == []


def test_a_second_process_waits_for_the_first_and_can_be_cancelled(tmp_path: Path) -> None:
    builder = _start_builder(tmp_path, "first")
    folder = CachedFolder(tmp_path, "model", "key")

    def cancel(progress: Progress) -> None:
        assert progress.stage == "wait for another process"
        raise LoadCancelled("enough")

    with pytest.raises(LoadCancelled):
        folder.ensure(_no_build, cancel)

    def let_it_finish(progress: Progress) -> None:
        if not builder.stdin.closed:
            builder.stdin.close()

    assert (folder.ensure(_no_build, let_it_finish) / "whole").read_text() == "first"
    assert builder.stdout.readline() == "ready\n"
    assert builder.wait() == 0
    builder.stdout.close()


def _start_builder(parent: Path, text: str) -> subprocess.Popen[str]:
    builder = subprocess.Popen(
        [sys.executable, "-c", _SLOW_BUILDER, str(parent), text],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=python_environment(),
    )
    assert builder.stdout.readline() == "building\n"
    return builder
