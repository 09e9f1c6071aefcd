"""Up and down again through S3 as moto has it: multipart ETags, encryption, permissions, what is skipped."""

from __future__ import annotations

import random
from pathlib import Path

import boto3
import pytest

from workbench.aws.s3_download import DownloadOptions, download_s3
from workbench.aws.s3_errors import reading_s3
from workbench.aws.s3_etag import Verification
from workbench.aws.s3_upload import upload_s3
from workbench.errors import ConfigError, LoadCancelled, ModelNotFoundError, WorkbenchError
from workbench.progress import Progress

_MIB = 1024**2
_BUCKET = "runs"


@pytest.fixture
def client(aws: None):
    client = boto3.client("s3", "us-east-1")
    client.create_bucket(Bucket=_BUCKET)
    return client


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder with a small file, one in a sub-folder, and one of three parts of at most 5 MiB."""
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "sub" / "empty").touch()
    (folder / "weights").write_bytes(random.Random(0).randbytes(11 * _MIB))
    return folder


def _upload(client, model: Path, **options):
    return upload_s3(model, f"s3://{_BUCKET}/q/int8", client=client, part_bytes=5 * _MIB, num_workers=2, **options)


def test_what_goes_up_comes_down_the_same(client, model: Path, tmp_path: Path):
    up = _upload(client, model)
    assert up.keys == ("q/int8/config.json", "q/int8/sub/empty", "q/int8/weights")
    down = download_s3(up.url, tmp_path / "back", client=client, options=DownloadOptions(part_bytes=_MIB))
    for path in model.rglob("*"):
        if path.is_file():
            assert (tmp_path / "back" / path.relative_to(model)).read_bytes() == path.read_bytes()
    verified = {file.path.name: file.verification for file in down.files}
    assert verified == {"config.json": Verification.MD5, "empty": Verification.MD5, "weights": Verification.PARTS}


def test_a_second_upload_sends_only_what_changed(client, model: Path):
    _upload(client, model)
    assert _upload(client, model).skipped_bytes == 11 * _MIB + 2
    (model / "config.json").write_text("{1}")
    assert _upload(client, model).skipped_bytes == 11 * _MIB


def test_progress_of_an_upload_adds_up(client, model: Path):
    seen: list[Progress] = []
    total = _upload(client, model, progress=seen.append).total_bytes
    assert [each.completed for each in seen if each.stage == "upload"][-1] == total
    assert [each.completed for each in seen if each.stage == "checksum"][-1] == total


def test_a_cancelled_upload_leaves_no_parts(client, model: Path):
    def cancel(progress: Progress) -> None:
        if progress.stage == "upload" and progress.completed > 100:
            raise LoadCancelled("stopped by the test")

    with pytest.raises(LoadCancelled):
        _upload(client, model, progress=cancel)
    assert client.list_multipart_uploads(Bucket=_BUCKET).get("Uploads", []) == []
    keys = [entry["Key"] for entry in client.list_objects_v2(Bucket=_BUCKET)["Contents"]]
    assert "q/int8/weights" not in keys


def test_a_single_file_goes_to_its_key(client, tmp_path: Path):
    (tmp_path / "run.jsonl").write_text("{}\n")
    upload_s3(tmp_path / "run.jsonl", f"s3://{_BUCKET}/history/1.jsonl", client=client)
    assert client.get_object(Bucket=_BUCKET, Key="history/1.jsonl")["Body"].read() == b"{}\n"
    with pytest.raises(ConfigError, match="needs a key"):
        upload_s3(tmp_path / "run.jsonl", f"s3://{_BUCKET}", client=client)


def test_sources_that_are_not_there_are_refused(client, tmp_path: Path):
    with pytest.raises(ConfigError, match="no such file"):
        upload_s3(tmp_path / "none", f"s3://{_BUCKET}/x", client=client)
    (tmp_path / "void").mkdir()
    with pytest.raises(ConfigError, match="no files"):
        upload_s3(tmp_path / "void", f"s3://{_BUCKET}/x", client=client)
    with pytest.raises(ConfigError, match="part_bytes=1"):
        upload_s3(tmp_path / "void", f"s3://{_BUCKET}/x", client=client, part_bytes=1)


def test_parts_of_uneven_sizes_are_checked_too(client, tmp_path: Path):
    bodies = [random.Random(i).randbytes(size) for i, size in enumerate((6 * _MIB, 5 * _MIB, 7))]
    upload_id = client.create_multipart_upload(Bucket=_BUCKET, Key="u/weights")["UploadId"]
    parts = []
    for number, body in enumerate(bodies, 1):
        answer = client.upload_part(Bucket=_BUCKET, Key="u/weights", UploadId=upload_id, PartNumber=number, Body=body)
        parts.append({"ETag": answer["ETag"], "PartNumber": number})
    client.complete_multipart_upload(
        Bucket=_BUCKET, Key="u/weights", UploadId=upload_id, MultipartUpload={"Parts": parts}
    )
    down = download_s3(f"s3://{_BUCKET}/u", tmp_path / "back", client=client)
    assert down.files[0].path.read_bytes() == b"".join(bodies)
    assert down.files[0].verification is Verification.PARTS


def test_folder_marks_of_consoles_are_passed_over(client, tmp_path: Path):
    client.put_object(Bucket=_BUCKET, Key="c/", Body=b"")
    client.put_object(Bucket=_BUCKET, Key="c/file", Body=b"abc")
    assert [file.path.name for file in download_s3(f"s3://{_BUCKET}/c/", tmp_path / "b", client=client).files] == [
        "file"
    ]


def test_an_absent_bucket_is_said(aws: None, tmp_path: Path):
    client = boto3.client("s3", "us-east-1")
    with pytest.raises(ModelNotFoundError, match="no such bucket"):
        download_s3("s3://not-here/x", tmp_path / "b", client=client)
    (tmp_path / "f").write_text("x")
    with pytest.raises(WorkbenchError, match="no such bucket"):
        upload_s3(tmp_path / "f", "s3://not-here/x", client=client)


def test_a_refusal_is_told_from_absence():
    from botocore.exceptions import ClientError

    from workbench.errors import DownloadError

    with pytest.raises(DownloadError, match="may not do that .AccessDenied."), reading_s3("s3://b/k"):
        raise ClientError({"Error": {"Code": "AccessDenied"}}, "GetObject")
