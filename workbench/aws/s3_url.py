"""Names of things in S3: `s3://bucket/prefix`. Knows the form, not what is there."""

from __future__ import annotations

import re
from dataclasses import dataclass

from workbench.errors import ConfigError

__all__ = ["S3Url"]

# The service's rule for buckets, and the ARN of an access point, which may stand in a bucket's place.
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_ACCESS_POINT = re.compile(r"arn:aws[a-z-]*:s3:[a-z0-9-]+:\d{12}:accesspoint/[a-z0-9-]{3,50}")


@dataclass(frozen=True)
class S3Url:
    """A bucket and a prefix without slashes at its ends; the prefix may be empty for the whole bucket."""

    bucket: str
    prefix: str = ""

    @classmethod
    def parse(cls, text: str) -> S3Url:
        """The url that `text` spells. Raises ConfigError for anything but `s3://bucket[/prefix]`."""
        scheme, separator, rest = str(text).strip().partition("://")
        if scheme.lower() != "s3" or not separator:
            raise ConfigError(f"{text!r} is not in S3: use s3://bucket/prefix")
        point = _ACCESS_POINT.match(rest)
        bucket = point[0] if point else rest.partition("/")[0]
        if not point and not _BUCKET.fullmatch(bucket):
            raise ConfigError(f"{text!r}: {bucket!r} cannot be a bucket (3 to 63 of a-z, 0-9, '.', '-')")
        prefix = rest[len(bucket) :].strip("/")
        if any(ord(character) < 32 for character in prefix):
            raise ConfigError(f"{text!r}: a prefix has no control characters")
        return cls(bucket, prefix)

    @property
    def name(self) -> str:
        """The last word of the url: what a folder made from it is called."""
        return self.prefix.rpartition("/")[2] or self.bucket

    def key(self, relative: str) -> str:
        """The key of a file below the prefix."""
        return f"{self.prefix}/{relative}" if self.prefix else relative

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"
