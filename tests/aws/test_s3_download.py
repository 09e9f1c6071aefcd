"""Downloads over real HTTP, with cuts, stalls, wrong checksums and cancels in the middle."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import boto3
import pytest
from aws.object_server import BUCKET, ObjectServer, serve_objects
from botocore.config import Config

from workbench.aws.s3_download import DownloadOptions, download_s3
from workbench.aws.s3_etag import Verification
from workbench.errors import ConfigError, DownloadError, LoadCancelled, ModelFormatError, ModelNotFoundError
from workbench.progress import Progress

_PART = 64 * 1024
_OPTIONS = DownloadOptions(num_workers=4, part_bytes=_PART, num_attempts=3, retry_delay_s=0)
_URL = f"s3://{BUCKET}/llama"


def _model() -> dict[str, bytes]:
    weights = random.Random(0).randbytes(10 * _PART + 123)
    return {
        "llama/config.json": b"{}",
        "llama/sub/model.safetensors": weights,
        "llama2/other": b"x",
        "llama/empty": b"",
    }


def _client(server: ObjectServer):
    config = Config(s3={"addressing_style": "path"}, read_timeout=60, retries={"total_max_attempts": 1})
    return boto3.client("s3", endpoint_url=server.endpoint, config=config)


def _download(server: ObjectServer, folder: Path, **options):
    return download_s3(_URL, folder, client=_client(server), options=_OPTIONS, **options)


def _files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _expected(objects: dict[str, bytes]) -> dict[str, bytes]:
    return {key.removeprefix("llama/"): data for key, data in objects.items() if key.startswith("llama/")}


def test_a_prefix_becomes_a_folder(tmp_path: Path):
    with serve_objects(_model()) as server:
        result = _download(server, tmp_path / "model")
    assert _files(tmp_path / "model") == _expected(server.objects)
    assert result.total_bytes == 10 * _PART + 125 and result.resumed_bytes == 0
    assert {file.verification for file in result.files} == {Verification.MD5}
    assert len([read for read in server.reads if "safetensors" in read[0]]) == 11
    assert list((tmp_path / ".s3-parts").glob("*/*")) == []


def test_one_object_becomes_one_file(tmp_path: Path):
    with serve_objects({"a/model.gguf": b"GGUF" * 100}) as server:
        result = download_s3(f"s3://{BUCKET}/a/model.gguf", tmp_path / "m", client=_client(server), options=_OPTIONS)
    assert _files(tmp_path / "m") == {"model.gguf": b"GGUF" * 100}
    assert result.files[0].path == tmp_path / "m" / "model.gguf"


def test_a_list_of_several_pages_is_read_whole(tmp_path: Path):
    with serve_objects({f"llama/{index}": b"x" for index in range(5)}) as server:
        server.page_size = 2
        assert len(_download(server, tmp_path / "model").files) == 5


def test_progress_counts_every_byte_once(tmp_path: Path):
    seen: list[Progress] = []
    with serve_objects(_model()) as server:
        result = _download(server, tmp_path / "model", progress=seen.append)
    for stage in ("download", "check"):
        counts = [each.completed for each in seen if each.stage == stage]
        assert counts == sorted(counts) and counts[0] == 0 and counts[-1] == result.total_bytes
        assert {each.total for each in seen if each.stage == stage} == {result.total_bytes}


def test_an_object_cut_in_the_middle_is_taken_up_where_it_ended(tmp_path: Path):
    weights = random.Random(3).randbytes(1 << 20)
    cuts = {0: 300_000, 512 * 1024: 0}
    seen: list[Progress] = []
    options = DownloadOptions(num_workers=2, part_bytes=512 * 1024, num_attempts=3, retry_delay_s=0)
    with serve_objects({"llama/weights": weights}) as server:
        server.before_body = lambda handler, key, start: cuts.pop(start, None)
        result = download_s3(_URL, tmp_path / "m", client=_client(server), options=options, progress=seen.append)
    assert result.files[0].path.read_bytes() == weights
    assert max(each.completed for each in seen) == result.total_bytes
    # What had come before the cut (in blocks of 256 KiB) was not asked for again.
    starts = sorted(start for _, start, _ in server.reads)
    assert starts[0] == 0 and 256 * 1024 <= starts[1] <= 300_000 and starts[2:] == [512 * 1024] * 2


def test_an_object_that_is_always_cut_is_given_up_and_nothing_is_shown(tmp_path: Path):
    with serve_objects(_model()) as server:
        server.before_body = lambda handler, key, start: 7 if "safetensors" in key else None
        with pytest.raises(DownloadError, match="model.safetensors|reached|cut"):
            _download(server, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_second_call_fetches_only_what_is_missing(tmp_path: Path):
    with serve_objects(_model()) as server:
        server.before_body = lambda handler, key, start: 0 if start >= 6 * _PART else None
        with pytest.raises(DownloadError):
            _download(server, tmp_path / "model")
    with serve_objects(_model()) as server:
        result = _download(server, tmp_path / "model")
    assert _files(tmp_path / "model") == _expected(server.objects)
    assert result.resumed_bytes > 0
    assert sum(end - start for _, start, end in server.reads) == result.total_bytes - result.resumed_bytes


def test_parts_of_an_object_that_changed_are_not_used(tmp_path: Path):
    with serve_objects(_model()) as server:
        server.before_body = lambda handler, key, start: 0 if start >= 6 * _PART else None
        with pytest.raises(DownloadError):
            _download(server, tmp_path / "model")
        server.before_body = lambda handler, key, start: None
        server.objects["llama/sub/model.safetensors"] = random.Random(1).randbytes(10 * _PART + 123)
        _download(server, tmp_path / "model")
    assert _files(tmp_path / "model") == _expected(server.objects)


def test_an_object_that_changes_meanwhile_is_refused(tmp_path: Path):
    with serve_objects(_model()) as server:

        def change(handler, key: str, start: int) -> None:
            server.objects["llama/sub/model.safetensors"] = random.Random(2).randbytes(10 * _PART + 123)

        server.before_body = change
        with pytest.raises(DownloadError, match="changed meanwhile"):
            _download(server, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_wrong_etag_throws_the_file_away(tmp_path: Path):
    with serve_objects(_model()) as server:
        server.etags["llama/sub/model.safetensors"] = "0" * 32
        with pytest.raises(DownloadError, match="model.safetensors did not arrive.*wrong ETag"):
            _download(server, tmp_path / "model")
        assert not (tmp_path / "model").exists()
        server.etags.clear()
        server.reads.clear()
        _download(server, tmp_path / "model")
    # What was good is kept: only the bad file is fetched again.
    assert {key for key, _, _ in server.reads} == {"llama/sub/model.safetensors"}


@pytest.mark.parametrize("etag", ["0123456789abcdef0123456789abcdef", "0123456789abcdef0123456789abcdef-3"])
def test_an_encrypted_objects_etag_is_not_taken_for_a_checksum(tmp_path: Path, etag: str):
    with serve_objects({"llama/secret": b"abc"}) as server:
        server.etags["llama/secret"] = etag
        server.encryption = "aws:kms"
        assert _download(server, tmp_path / "model").files[0].verification is Verification.SIZE
        server.encryption = "AES256"
        with pytest.raises(DownloadError, match="wrong ETag"):
            _download(server, tmp_path / "model")


def test_a_flipped_byte_on_the_disk_is_found(tmp_path: Path):
    with serve_objects(_model()) as server:
        server.before_body = lambda handler, key, start: 0 if start >= 6 * _PART else None
        with pytest.raises(DownloadError):
            _download(server, tmp_path / "model")
        server.before_body = lambda handler, key, start: None
        data = max((tmp_path / ".s3-parts").rglob("*.data"), key=lambda path: path.stat().st_size)
        with data.open("r+b") as file:
            file.write(bytes([file.read(1)[0] ^ 1]))
            file.seek(0)
            first = file.read(1)
            file.seek(0)
            file.write(bytes([first[0] ^ 1]))
        with pytest.raises(DownloadError, match="wrong ETag"):
            _download(server, tmp_path / "model")


def test_cancelling_stops_at_once_and_the_rest_can_go_on(tmp_path: Path):
    release = threading.Event()
    first_part_is_there = threading.Event()

    def stall(handler, key: str, start: int) -> None:
        if "safetensors" in key and start > 0:
            release.wait(60)

    def cancel(progress: Progress) -> None:
        if progress.completed >= _PART:
            first_part_is_there.set()
            raise LoadCancelled("stopped by the test")

    with serve_objects(_model()) as server:
        server.before_body = stall
        with pytest.raises(LoadCancelled):
            _download(server, tmp_path / "model", progress=cancel)
        assert first_part_is_there.is_set()
        assert not (tmp_path / "model").exists()
        release.set()
        result = _download(server, tmp_path / "model")
    assert result.resumed_bytes >= _PART
    assert _files(tmp_path / "model") == _expected(server.objects)


def test_a_second_process_waits_for_the_first(tmp_path: Path):
    waits = threading.Event()
    finished: list[str] = []

    def hold(handler, key: str, start: int) -> None:
        if "safetensors" in key:
            waits.wait(60)

    def see(progress: Progress) -> None:
        if progress.stage == "wait for another process":
            waits.set()

    with serve_objects(_model()) as server:
        server.before_body = hold
        started = threading.Event()
        first = threading.Thread(
            target=lambda: (
                _download(server, tmp_path / "model", progress=lambda p: started.set()),
                finished.append("1"),
            )
        )
        first.start()
        started.wait(60)
        _download(server, tmp_path / "model", progress=see)
        first.join()
    assert waits.is_set() and finished == ["1"]


def test_nothing_there_is_said(tmp_path: Path):
    with serve_objects(_model()) as server:
        with pytest.raises(ModelNotFoundError, match="s3://models/lla: nothing lies there"):
            download_s3(f"s3://{BUCKET}/lla", tmp_path / "model", client=_client(server))


@pytest.mark.parametrize("key", ["llama/../../etc/passwd", "llama//x", "llama/./x", "llama/a\\b", "llama/" + "x" * 300])
def test_keys_that_would_leave_the_folder_are_refused(tmp_path: Path, key: str):
    with serve_objects({**_model(), key: b"x"}) as server:
        with pytest.raises(ModelFormatError, match="cannot be a file's path"):
            _download(server, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_key_that_is_also_a_prefix_is_refused(tmp_path: Path):
    with serve_objects({"llama/a": b"1", "llama/a/b": b"2"}) as server:
        with pytest.raises(ModelFormatError, match="both an object and the prefix"):
            _download(server, tmp_path / "model")


def test_a_server_without_ranges_is_refused_for_large_objects(tmp_path: Path):
    with serve_objects(_model()) as server:
        server.serves_ranges = False
        with pytest.raises(DownloadError, match="does not serve ranges"):
            _download(server, tmp_path / "model")


def test_too_small_a_disk_is_said_before_anything_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import shutil
    from types import SimpleNamespace

    with serve_objects(_model()) as server:
        monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
        with pytest.raises(DownloadError, match="MiB free"):
            _download(server, tmp_path / "model")
        assert server.reads == []


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with serve_objects(_model()) as server:
        with pytest.raises(DownloadError, match="cannot write"):
            _download(server, tmp_path / "file" / "model")


@pytest.mark.usefixtures("no_credentials")
def test_absent_credentials_are_said(tmp_path: Path):
    with pytest.raises(DownloadError, match="no AWS credentials"):
        download_s3("s3://some-bucket/x", tmp_path / "model")


@pytest.mark.parametrize("field", ["num_workers", "part_bytes", "num_attempts"])
def test_options_are_checked(field: str):
    with pytest.raises(ConfigError, match=f"{field}=0"):
        DownloadOptions(**{field: 0})
