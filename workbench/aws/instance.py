"""What this machine knows about itself as an EC2 instance, looked up once. Knows nothing of GPUs or prices."""

from __future__ import annotations

import functools
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeGuard

from workbench.aws.imds import Deadline, IMDSClient, is_metadata_disabled
from workbench.aws.local_hint import HintVerdict, LocalHint, read_local_hint

__all__ = ["Instance", "InstanceIdentity", "default_instance"]

_DOCUMENT_PATH = "/latest/dynamic/instance-identity/document"
_TYPE_PATTERN = re.compile(r"[a-z0-9-]+\.[a-z0-9-]+")
_REGION_PATTERN = re.compile(r"[a-z0-9-]+")


@dataclass(frozen=True)
class InstanceIdentity:
    """The instance this process runs on.

    `lifecycle` is "on-demand", "spot" or "scheduled", and None where the service did not say;
    `placement_group` and `availability_zone_id` are None where there is none.
    """

    instance_id: str
    instance_type: str
    region: str
    availability_zone: str | None = None
    availability_zone_id: str | None = None
    placement_group: str | None = None
    architecture: str | None = None
    lifecycle: str | None = None


class Instance:
    """The answer to "is this EC2, and which instance?", asked at most once per object.

    `client` is made when first needed. `read_hint` is asked before any network is used.
    """

    def __init__(
        self,
        client: IMDSClient | None = None,
        *,
        read_hint: Callable[[], LocalHint] = read_local_hint,
        is_disabled: Callable[[], bool] = is_metadata_disabled,
    ) -> None:
        self._client = client
        self._read_hint = read_hint
        self._is_disabled = is_disabled
        self._lock = threading.Lock()
        self._is_looked_up = False
        self._identity: InstanceIdentity | None = None
        self._reason = ""

    def identity(self) -> InstanceIdentity | None:
        """The instance, or None: not EC2, switched off, or no answer in time (see `unavailable_reason`).

        The first call takes at most the client's budget, later ones nothing.
        """
        if self._is_disabled():
            return None
        with self._lock:
            if not self._is_looked_up:
                self._identity, self._reason = self._look_up()
                self._is_looked_up = True
            return self._identity

    def unavailable_reason(self) -> str | None:
        """Why there is no identity, in words; None when there is one."""
        if self._is_disabled():
            return "switched off by AWS_EC2_METADATA_DISABLED"
        return None if self.identity() else self._reason

    def _look_up(self) -> tuple[InstanceIdentity | None, str]:
        hint = self._read_hint()
        if hint.verdict is HintVerdict.NO:
            return None, f"not an EC2 instance: {hint.reason}"
        client = self._client or IMDSClient()
        deadline = client.start_deadline()
        answer = client.get(_DOCUMENT_PATH, deadline)
        if not answer.is_found:
            return None, answer.reason or f"the metadata service has no identity document (HTTP {answer.status})"
        identity = _parse_document(answer.text, lambda name: _optional_value(client, name, deadline))
        if identity is None:
            return None, "what answers is not the metadata service: its identity document is garbage"
        return identity, ""


@functools.cache
def default_instance() -> Instance:
    """The process's own instance object, made on first use."""
    return Instance()


def _optional_value(client: IMDSClient, name: str, deadline: Deadline) -> str | None:
    answer = client.get(f"/latest/meta-data/{name}", deadline)
    return answer.text.strip() or None if answer.is_found else None


def _parse_document(text: str, read: Callable[[str], str | None]) -> InstanceIdentity | None:
    """The identity in the document, completed by single values from `read`; None for anything but such a document."""
    try:
        document = json.loads(text)
    except ValueError:
        return None
    if not isinstance(document, dict):
        return None
    instance_type, region = document.get("instanceType"), document.get("region")
    if not _matches(instance_type, _TYPE_PATTERN) or not _matches(region, _REGION_PATTERN):
        return None
    return InstanceIdentity(
        instance_id=str(document.get("instanceId", "")),
        instance_type=instance_type,
        region=region,
        availability_zone=document.get("availabilityZone"),
        availability_zone_id=read("placement/availability-zone-id"),
        placement_group=read("placement/group-name"),
        architecture=document.get("architecture"),
        lifecycle=read("instance-life-cycle"),
    )


def _matches(value: object, pattern: re.Pattern[str]) -> TypeGuard[str]:
    return isinstance(value, str) and len(value) <= 64 and pattern.fullmatch(value) is not None
