"""The script, run by bash with stand-ins for the commands that would change the machine."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from workbench.aws import InstanceCatalogue
from workbench.aws.user_data import UserDataPlan, render_user_data
from workbench.errors import ConfigError

WHEEL = "https://example.org/llm_workbench-0.1.0-py3-none-any.whl"

# Each stand-in writes its name and arguments to the log; `install` also keeps what it was given to put somewhere.
_RECORD = '#!/bin/bash\necho "$(basename "$0") $*" >> "$LOG"\n'
_STAND_INS = {
    "apt-get": _RECORD + '[[ "$*" == *linux-modules-nvidia* && -n "${NO_MODULES:-}" ]] && exit 100; exit 0\n',
    "nvidia-smi": _RECORD + '[[ -n "${HAS_DRIVER:-}" ]] || grep -q "^modprobe nvidia" "$LOG"\n',
    "modprobe": _RECORD,
    "systemctl": _RECORD,
    "useradd": _RECORD,
    "id": _RECORD + "exit 1\n",
    "mdadm": _RECORD,
    "mkfs.ext4": _RECORD,
    "mount": _RECORD,
    "mountpoint": _RECORD + "exit 1\n",
    "lsblk": '#!/bin/bash\nprintf "%b" "${DISKS:-}"\n',
    "install": _RECORD + 'for last; do :; done\n[[ "$*" == *stdin* ]] && cat > "$FILES/$(basename "$last")"\nexit 0\n',
    "python3": _RECORD
    + 'if [[ "$1" == -c ]]; then [[ -z "${OLD_PYTHON:-}" ]]; exit; fi\n'
    + 'mkdir -p "$3/bin"\ncp "$STAND_INS/modprobe" "$3/bin/pip"\ncp "$STAND_INS/modprobe" "$3/bin/python"\n',
}


class _Machine:
    """A folder of stand-ins, and what they were asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = folder / "files"
        stand_ins = folder / "bin"
        for path in (self.files, stand_ins):
            path.mkdir()
        for name, text in _STAND_INS.items():
            (stand_ins / name).write_text(text)
            (stand_ins / name).chmod(0o755)
        self.log = folder / "log"
        self.log.touch()
        self._environ = {
            "PATH": f"{stand_ins}:/usr/bin:/bin",
            "LOG": str(self.log),
            "FILES": str(self.files),
            "STAND_INS": str(stand_ins),
        }

    def plan(self, instance_type: str, **options: object) -> UserDataPlan:
        return UserDataPlan(
            instance_type,
            package=options.pop("package", WHEEL),
            program_folder=str(self.folder / "program"),
            state_folder=str(self.folder / "state"),
            **options,
        )

    def run(self, plan: UserDataPlan, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash"], input=render_user_data(plan), env={**self._environ, **environ}, capture_output=True, text=True
        )

    def commands(self) -> list[str]:
        return self.log.read_text().splitlines()

    def ran(self, part: str) -> bool:
        return any(part in command for command in self.commands())


@pytest.fixture
def machine(tmp_path: Path) -> _Machine:
    return _Machine(tmp_path)


def test_a_plain_image_gets_driver_environment_and_service(machine: _Machine):
    result = machine.run(machine.plan("g6e.xlarge", model="org/name@main"))
    assert result.returncode == 0, result.stderr
    kernel = os.uname().release
    assert machine.ran(f"linux-modules-nvidia-580-server-open-{kernel}")
    assert machine.ran(f"pip install --no-cache-dir {WHEEL}")
    assert machine.ran("systemctl enable --now workbench.service")
    assert not machine.ran("fabricmanager") and not machine.ran("mkfs")
    unit = (machine.files / "workbench.service").read_text()
    assert f"ExecStart={machine.folder}/program/bin/serve" in unit
    assert f"WORKBENCH_HOME={machine.folder}/state/cache" in unit
    serve = (machine.files / "serve").read_text()
    assert "workbench serve --model org/name@main --host 127.0.0.1 --port 8000" in serve
    assert subprocess.run(["bash", "-n"], input=serve, text=True).returncode == 0


def test_a_driver_that_is_there_is_kept(machine: _Machine):
    assert machine.run(machine.plan("g6.xlarge"), HAS_DRIVER="1").returncode == 0
    assert not machine.ran("modprobe") and not machine.ran("linux-modules")


def test_modules_are_built_where_ubuntu_has_none(machine: _Machine):
    assert machine.run(machine.plan("g6.xlarge"), NO_MODULES="1").returncode == 0
    assert machine.ran("nvidia-dkms-580-server-open") and machine.ran("linux-headers-")


def test_switched_gpus_get_the_fabric_manager(machine: _Machine):
    assert machine.run(machine.plan("p5.48xlarge"), HAS_DRIVER="1").returncode == 0
    assert machine.ran("nvidia-fabricmanager-580")
    assert machine.ran("systemctl enable --now nvidia-fabricmanager")


def test_v100_gets_its_driver_and_its_build_of_torch(machine: _Machine):
    assert machine.run(machine.plan("p3dn.24xlarge", torch_index="https://wheels.example/cu126")).returncode == 0
    assert machine.ran("nvidia-headless-no-dkms-580-server nvidia-utils-580-server")
    assert not machine.ran("server-open") and not machine.ran("fabricmanager")
    with pytest.raises(ConfigError, match="CUDA 12.6 build"):
        render_user_data(UserDataPlan("p3dn.24xlarge", package=WHEEL))
    assert machine.ran("torch --index-url https://wheels.example/cu126")


def test_types_that_need_a_prepared_image_stop_on_a_plain_one(machine: _Machine):
    result = machine.run(machine.plan("p6-b200.48xlarge"))
    assert result.returncode == 1
    assert "Deep Learning AMI" in result.stdout
    assert machine.run(machine.plan("p6-b200.48xlarge"), HAS_DRIVER="1").returncode == 0


def test_types_without_gpus_serve_on_the_cpu(machine: _Machine):
    assert machine.run(machine.plan("m7i.4xlarge")).returncode == 0
    assert not machine.ran("nvidia")


def test_one_local_disk_holds_the_models(machine: _Machine):
    disks = "/dev/nvme0n1 Amazon Elastic Block Store\n/dev/nvme1n1 Amazon EC2 NVMe Instance Storage\n"
    assert machine.run(machine.plan("g5.xlarge"), DISKS=disks).returncode == 0
    assert machine.ran(f"mount -o noatime /dev/nvme1n1 {machine.folder}/state")
    assert not machine.ran("mdadm") and not machine.ran("mkfs.ext4 -q -E nodiscard /dev/nvme0n1")


def test_several_local_disks_are_joined(machine: _Machine):
    disks = "".join(f"/dev/nvme{i}n1 Amazon EC2 NVMe Instance Storage\n" for i in (1, 2, 3))
    assert machine.run(machine.plan("g6.48xlarge"), DISKS=disks).returncode == 0
    assert machine.ran("--raid-devices=3 /dev/nvme1n1 /dev/nvme2n1 /dev/nvme3n1")
    assert machine.ran("mount -o noatime /dev/md/workbench")


def test_an_old_python_stops_before_anything_is_installed(machine: _Machine):
    result = machine.run(machine.plan("g6.xlarge"), OLD_PYTHON="1")
    assert result.returncode == 1
    assert "Ubuntu 24.04" in result.stdout
    assert not machine.ran("nvidia")


def test_the_key_is_read_from_its_parameter_and_is_not_in_the_script(machine: _Machine):
    plan = machine.plan("g6.xlarge", host="0.0.0.0", api_key_parameter="/workbench/key", region="eu-west-1")
    assert machine.run(plan).returncode == 0
    serve = machine.files / "serve"
    program = machine.folder / "program" / "venv" / "bin"
    (program / "python").write_text('#!/bin/bash\ncat >/dev/null; echo "key-of:$2:$3"\n')
    (program / "workbench").write_text('#!/bin/bash\necho "$WORKBENCH_API_KEY $*"\n')
    for name in ("python", "workbench"):
        (program / name).chmod(0o755)
    output = subprocess.run(["bash", str(serve)], capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"}).stdout
    assert output == "key-of:/workbench/key:eu-west-1 serve --model default --host 0.0.0.0 --port 8000\n"


def test_every_usable_type_has_a_script_that_bash_can_read():
    for row in InstanceCatalogue.shipped().list():
        if row.not_runnable_reason:
            with pytest.raises(ConfigError, match=row.name):
                render_user_data(UserDataPlan(row.name, package=WHEEL))
        elif row.name.endswith(("xlarge", "large", "metal")) and row.family in ("g6", "p5", "g6f"):
            script = render_user_data(UserDataPlan(row.name, package=WHEEL))
            assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0
            assert len(script) < 16 * 1024


@pytest.mark.parametrize("instance_type", ["g6e.xlarge", "p5.48xlarge", "p6-b200.48xlarge", "m7i.4xlarge"])
def test_shellcheck_finds_nothing(instance_type: str):
    script = render_user_data(UserDataPlan(instance_type, package="s3://my-bucket/dist/w.whl"))
    found = subprocess.run(["shellcheck", "-"], input=script, text=True, capture_output=True)
    assert (found.returncode, found.stdout) == (0, "")


def test_a_wheel_in_s3_is_fetched_by_the_role_of_the_instance(machine: _Machine):
    assert machine.run(machine.plan("g6.xlarge", package="s3://my-bucket/dist/w-1-py3-none-any.whl")).returncode == 0
    program = machine.folder / "program"
    # The stand-in for pip and python of the environment only notes what it was asked.
    assert machine.ran("pip install --no-cache-dir boto3")
    assert machine.ran(f"python - s3://my-bucket/dist/w-1-py3-none-any.whl {program}")
    assert machine.ran(f"pip install --no-cache-dir {program}/w-1-py3-none-any.whl")


def test_a_repository_needs_git(machine: _Machine):
    assert machine.run(machine.plan("g6.xlarge", package="git+https://example.org/w@v0.1.0")).returncode == 0
    assert machine.ran("--no-install-recommends git")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", "x; rm -rf /"),
        ("model", "$(id)"),
        ("model", "-x"),
        ("package", "a\nb"),
        ("package", ""),
        ("package", "s3://my-bucket/dist"),
        ("package", "s3://B/x.whl"),
        ("package", "--index-url=http://evil"),
        ("port", 80),
        ("host", "0.0.0.0"),
        ("api_key_parameter", "/key"),
        ("driver_branch", "new"),
        ("torch_index", "http://x"),
        ("program_folder", "relative"),
        ("instance_type", "g6e"),
        ("instance_type", "p9.48xlarge"),
        ("instance_type", "inf2.xlarge"),
    ],
)
def test_what_does_not_belong_in_a_script_is_refused(field: str, value: object):
    with pytest.raises(ConfigError):
        render_user_data(UserDataPlan(**{"instance_type": "g6.xlarge", "package": WHEEL, field: value}))
