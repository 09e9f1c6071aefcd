"""A cloud-init script that turns a fresh Ubuntu instance into a serving workbench. Writes text; starts nothing."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from string import Template

from workbench.aws.catalogue import InstanceCatalogue, InstanceKind, InstanceType, Interconnect, classify_name
from workbench.aws.s3_url import S3Url
from workbench.aws.torch_builds import torch_build_note, torch_cuda_build
from workbench.aws.user_data_script import ACCELERATOR_STEPS, SCRIPT
from workbench.errors import ConfigError

__all__ = ["UserDataPlan", "render_user_data"]

# EC2 takes no more than this before it is encoded.
_MAX_SCRIPT_BYTES = 16 * 1024
_WORD = re.compile(r"[A-Za-z0-9@%+=:,./_-]+")
_REQUIREMENT = re.compile(r"[A-Za-z0-9@%+=:,./_<>~!\[\] -]+")
_FOLDER = re.compile(r"/[A-Za-z0-9._/-]+")
# Their drivers must match parts that only the vendor's or AWS's images bring: subnet manager, IMEX, GRID licence.
_NEED_PREPARED_IMAGE = frozenset({"p6-b200", "p6-b300", "p6e-gb200", "g6f", "gr6f"})
_TURING = (7, 5)


@dataclass(frozen=True)
class UserDataPlan:
    """What the instance is to become.

    Attributes:
        instance_type: like "g6e.xlarge"; types without accelerators serve on the CPU.
        model: any model name the workbench takes, also `s3://bucket/prefix`.
        package: what pip installs: the wheel that `make wheel` builds, as s3://bucket/key.whl, a URL, `git+https://...`
            or a path on the image. There is no default: on the public index that name is not this project's.
        host: address to listen on; anything but loopback needs `api_key_parameter`.
        port: 1024 to 65535.
        api_key_parameter: name of the SecureString in Systems Manager that holds the key. A key itself never goes into
            user data, which every process on the instance can read.
        region: where that parameter is; needed with it.
        driver_branch: NVIDIA's driver branch, as Ubuntu names its packages. Branch 580 is the last for V100.
        torch_index: address of an index of torch wheels. Needed for V100, whose kernels only the builds for CUDA 12.6
            have; others take the package's own choice.
        program_folder: where the environment goes.
        state_folder: where models and settings go, unless the instance has disks of its own.
    """

    instance_type: str
    model: str = "default"
    package: str = field(kw_only=True)
    host: str = "127.0.0.1"
    port: int = 8000
    api_key_parameter: str | None = None
    region: str | None = None
    driver_branch: str = "580"
    torch_index: str | None = None
    program_folder: str = "/opt/workbench"
    state_folder: str = "/var/lib/workbench"

    def __post_init__(self) -> None:
        words = {"model": _WORD, "host": _WORD, "package": _REQUIREMENT, "region": _WORD, "api_key_parameter": _WORD}
        words["torch_index"] = re.compile(r"https://[A-Za-z0-9./_-]+")
        words |= {"program_folder": _FOLDER, "state_folder": _FOLDER, "driver_branch": re.compile(r"\d{3}")}
        for name, pattern in words.items():
            value = getattr(self, name)
            if value is not None and not (isinstance(value, str) and pattern.fullmatch(value)):
                raise ConfigError(f"{name}={value!r}: must match {pattern.pattern}")
        if not self.package:
            raise ConfigError("package: must say what pip installs")
        if not isinstance(self.port, int) or not 1024 <= self.port <= 65535:
            raise ConfigError(f"port={self.port!r}: must be 1024 to 65535")
        if self.model.startswith("-") or self.package.startswith("-"):
            raise ConfigError("model and package: must not start with '-'")
        if self.package.startswith("s3://"):
            _check_wheel(self.package)
        if self.host not in ("127.0.0.1", "::1", "localhost") and self.api_key_parameter is None:
            raise ConfigError(f"host={self.host!r}: listening beyond this machine needs api_key_parameter")
        if self.api_key_parameter is not None and self.region is None:
            raise ConfigError("region=None: must be given with api_key_parameter")


def render_user_data(plan: UserDataPlan, catalogue: InstanceCatalogue | None = None) -> str:
    """The script, ready for `aws ec2 run-instances --user-data`. For Ubuntu 24.04 or newer, plain or Deep Learning AMI.

    Raises ConfigError for types whose accelerators cannot be used and for GPU types the table does not have.
    """
    row = (catalogue or InstanceCatalogue.shipped()).find(plan.instance_type)
    _check_type(plan.instance_type, row)
    if row is not None and torch_cuda_build(row) and plan.torch_index is None:
        raise ConfigError(f"torch_index=None: {torch_build_note(row)}; give the address of its index")
    steps = ACCELERATOR_STEPS[_driver_kind(row)]
    open_suffix = "" if row and row.gpu and (row.gpu.compute_capability or _TURING) < _TURING else "-open"
    script = Template(SCRIPT).substitute(
        instance_type=plan.instance_type,
        accelerator_steps=Template(steps)
        .substitute(branch=plan.driver_branch, open=open_suffix, instance_type=plan.instance_type)
        .strip(),
        fabric_manager=f"nvidia-fabricmanager-{plan.driver_branch}" if _has_nvswitch(row) else "",
        program_folder=plan.program_folder,
        state_folder=plan.state_folder,
        torch_index=shlex.quote(plan.torch_index or ""),
        package=shlex.quote(plan.package),
        model=shlex.quote(plan.model),
        host=shlex.quote(plan.host),
        port=plan.port,
        parameter=shlex.quote(plan.api_key_parameter or ""),
        region=shlex.quote(plan.region or ""),
    )
    if len(script.encode()) > _MAX_SCRIPT_BYTES:
        raise ConfigError(f"the script has {len(script.encode())} bytes; EC2 takes {_MAX_SCRIPT_BYTES}")
    return script


def _check_type(name: str, row: InstanceType | None) -> None:
    if not re.fullmatch(r"[a-z0-9-]+\.[a-z0-9-]+", name):
        raise ConfigError(f"instance_type={name!r}: must be like g6e.xlarge")
    if row is not None and row.not_runnable_reason:
        raise ConfigError(f"instance_type={name!r}: {row.not_runnable_reason}")
    if row is None and classify_name(name) is not InstanceKind.CPU:
        InstanceCatalogue.shipped().get(name)


def _check_wheel(url: str) -> None:
    if not S3Url.parse(url).prefix.endswith(".whl"):
        raise ConfigError(f"package={url!r}: must be a wheel, s3://bucket/key.whl")


def _driver_kind(row: InstanceType | None) -> str:
    if row is None:
        return "none"
    return "prepared" if row.family in _NEED_PREPARED_IMAGE else "nvidia"


def _has_nvswitch(row: InstanceType | None) -> bool:
    """Whether the GPUs are joined by switches, which CUDA cannot use before the fabric manager has set them up.

    V100 types have NVLink without switches.
    """
    return (
        row is not None
        and row.interconnect is Interconnect.NVLINK
        and row.gpu is not None
        and row.gpu.product != "V100"
        and row.family not in _NEED_PREPARED_IMAGE
    )
