"""Which texts name a place in S3."""

from __future__ import annotations

import pytest

from workbench.aws.s3_url import S3Url
from workbench.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "bucket", "prefix", "name"),
    [
        ("s3://models/llama/8b", "models", "llama/8b", "8b"),
        ("s3://models/llama/8b/", "models", "llama/8b", "8b"),
        ("S3://my.bucket-1", "my.bucket-1", "", "my.bucket-1"),
        ("s3://arn:aws:s3:eu-west-1:123456789012:accesspoint/point/x/y", None, "x/y", "y"),
    ],
)
def test_urls_are_taken_apart(text: str, bucket: str | None, prefix: str, name: str):
    url = S3Url.parse(text)
    assert url.bucket == (bucket or "arn:aws:s3:eu-west-1:123456789012:accesspoint/point")
    assert (url.prefix, url.name) == (prefix, name)


def test_keys_are_below_the_prefix():
    assert S3Url("b", "x").key("y/z") == "x/y/z"
    assert S3Url("b").key("y") == "y"
    assert str(S3Url("b", "x")) == "s3://b/x"


@pytest.mark.parametrize(
    "text", ["", "models/x", "https://models/x", "s3://", "s3://AB/x", "s3://-ab/x", "s3://a/x", "s3://abc/a\tb"]
)
def test_other_texts_are_refused(text: str):
    with pytest.raises(ConfigError, match="s3://|bucket|control"):
        S3Url.parse(text)
