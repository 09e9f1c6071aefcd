"""The Dockerfile, the systemd unit and the script for a bare Ubuntu, as far as they can be tried without a machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
DEPLOY = PROJECT / "deploy"


def test_hadolint_finds_nothing() -> None:
    done = subprocess.run(["hadolint", PROJECT / "Dockerfile"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_image_is_given_every_file_that_it_copies() -> None:
    text = (PROJECT / "Dockerfile").read_text()
    copied = [word for line in re.findall(r"^COPY (.*)$", text, re.MULTILINE) for word in line.split()[:-1]]
    sent = {line[1:] for line in (PROJECT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert set(copied) == sent
    assert all((PROJECT / name).exists() for name in copied)
    assert re.findall(r"^FROM base AS (\w+)$", text, re.MULTILINE) == ["cpu", "cuda"]
    # Not root, and the program's own words for where it listens.
    assert "\nUSER 10001\n" in text and '["serve", "--host", "0.0.0.0"' in text


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_systemd_understands_the_unit() -> None:
    command = ["systemd-analyze", "verify", str(DEPLOY / "workbench.service")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    problems = [line for line in done.stderr.splitlines() if "workbench.service" in line]
    # The program is not installed where the unit will find it.
    assert [line for line in problems if "is not executable" not in line] == []


def test_the_unit_starts_a_command_that_there_is() -> None:
    from workbench.cli.root import root_command

    (line,) = re.findall(r"^ExecStart=\S+/workbench (.*)$", (DEPLOY / "workbench.service").read_text(), re.MULTILINE)
    name, *options = line.split()
    root = root_command()
    command = root.resolve_command(root.make_context("workbench", [name]), [name])[1]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in options if word.startswith("--")} <= known


@pytest.fixture
def ubuntu(tmp_path: Path) -> Path:
    """A folder that stands for the machine: the script with its paths inside, and commands that note their call."""
    text = (DEPLOY / "ubuntu.sh").read_text()
    for folder in ("/opt/workbench", "/var/lib/workbench", "/etc/workbench", "/etc/systemd/system"):
        (tmp_path / folder[1:]).parent.mkdir(parents=True, exist_ok=True)
        text = text.replace(folder, f"{tmp_path}{folder}")
    (tmp_path / "etc/systemd/system").mkdir(parents=True)
    (tmp_path / "clone" / "deploy").mkdir(parents=True)
    shutil.copy(DEPLOY / "workbench.service", tmp_path / "clone" / "deploy")
    _write(tmp_path / "clone" / "deploy" / "ubuntu.sh", text)
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    note = f'echo "$(basename "$0") $*" >> {tmp_path}/calls\n'
    for name in ("apt-get", "useradd", "systemctl"):
        _write(bin_folder / name, "#!/bin/bash\n" + note)
    _write(bin_folder / "id", f'#!/bin/bash\n[ "$1" = -u ] && cat {tmp_path}/uid\n')
    (tmp_path / "uid").write_text("0\n")
    pip = f"#!/bin/bash\\n{note}"
    _write(
        bin_folder / "python3",
        f'#!/bin/bash\n{note}[ "$2" = venv ] || exit 0\nmkdir -p "$3/bin"\n'
        f'printf \'%b\' {_quoted(pip)} > "$3/bin/pip"\nchmod +x "$3/bin/pip"\n',
    )
    # Ownership is root's to give.
    _write(bin_folder / "install", f'#!/bin/bash\n{note}exec {shutil.which("install")} "$@"\n')
    text = (tmp_path / "clone/deploy/ubuntu.sh").read_text().replace("-o workbench -g workbench ", "")
    (tmp_path / "clone/deploy/ubuntu.sh").write_text(text)
    return tmp_path


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''").replace("\n", "\\n") + "'"


def _write(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def _run(machine: Path, *options: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "PATH": f"{machine}/bin:{os.environ['PATH']}"}
    script = machine / "clone" / "deploy" / "ubuntu.sh"
    return subprocess.run([script, *options], env=variables, capture_output=True, text=True, timeout=60)


def test_ubuntu_is_set_up_and_again_with_the_same_key(ubuntu: Path) -> None:
    done = _run(ubuntu, "--model", "org/name", "--port", "9000")
    assert done.returncode == 0, done.stderr
    calls = (ubuntu / "calls").read_text()
    order = ["apt-get -o DPkg", "python3 -m venv", "pip install", "systemctl daemon-reload", "systemctl restart"]
    assert [calls.index(step) for step in order] == sorted(calls.index(step) for step in order)
    assert f"-c {ubuntu}/clone/constraints.txt {ubuntu}/clone" in calls
    settings = ubuntu / "etc/workbench/environment"
    key, *rest = settings.read_text().splitlines()
    assert re.fullmatch(r"WORKBENCH_API_KEY=wb-[0-9a-f]{48}", key) and settings.stat().st_mode & 0o077 == 0
    assert rest == ["WORKBENCH_MODEL_NAME=org/name", "WORKBENCH_LISTEN=127.0.0.1", "WORKBENCH_PORT=9000"]
    assert (ubuntu / "etc/systemd/system/workbench.service").is_file()

    assert _run(ubuntu, "--no-service").returncode == 0
    assert settings.read_text().splitlines()[0] == key
    assert (ubuntu / "calls").read_text().count("systemctl restart") == 1


@pytest.mark.parametrize(
    ("options", "said"), [(["--model"], "needs a value"), (["--frob"], "unknown option"), (["--port", "x"], "--port x")]
)
def test_wrong_options_change_nothing(ubuntu: Path, options: list[str], said: str) -> None:
    done = _run(ubuntu, *options)
    assert done.returncode == 1 and said in done.stderr
    assert not (ubuntu / "calls").exists()


def test_it_wants_root(ubuntu: Path) -> None:
    (ubuntu / "uid").write_text("1000\n")
    assert "must be run as root" in _run(ubuntu).stderr
