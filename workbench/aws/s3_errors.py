"""What S3 and botocore raise, in this package's words. Knows codes, not messages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from workbench.errors import DownloadError, ModelNotFoundError, WorkbenchError

__all__ = ["reading_s3", "writing_s3"]

_ABSENT = frozenset({"404", "NoSuchBucket", "NoSuchKey", "NotFound"})
_REFUSED = frozenset({"401", "403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"})
_CHANGED = frozenset({"412", "PreconditionFailed"})


@contextmanager
def reading_s3(what: str) -> Iterator[None]:
    """Turn failures inside the block into ModelNotFoundError or DownloadError about `what`."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        kind = ModelNotFoundError if error.response["Error"].get("Code", "") in _ABSENT else DownloadError
        raise kind(f"{what}: {_words(error)}") from error
    except BotoCoreError as error:
        raise DownloadError(f"{what}: {_words(error)}") from error


@contextmanager
def writing_s3(what: str) -> Iterator[None]:
    """Turn failures inside the block into WorkbenchError about `what`."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (ClientError, BotoCoreError) as error:
        raise WorkbenchError(f"{what}: {_words(error)}") from error


def _words(error: Exception) -> str:
    from botocore.exceptions import ClientError, NoCredentialsError

    if isinstance(error, NoCredentialsError):
        return "no AWS credentials were found (set AWS_PROFILE or the AWS_* variables, or give the instance a role)"
    if not isinstance(error, ClientError):
        return f"S3 cannot be reached ({error})"
    code = error.response["Error"].get("Code", "")
    if code in _ABSENT:
        return "there is no such bucket or object"
    if code in _REFUSED:
        return f"these credentials may not do that ({code})"
    if code in _CHANGED:
        return "the object changed meanwhile; start again"
    return f"S3 refused ({error})"
