"""The text of the cloud-init script, with `$name` where a plan fills in. Dollars of the shell itself are doubled."""

from __future__ import annotations

__all__ = ["ACCELERATOR_STEPS", "SCRIPT"]

SCRIPT = r"""#!/bin/bash
# Sets up a workbench on $instance_type. cloud-init runs this once as root, at the first boot.
# What it prints is in /var/log/cloud-init-output.log. Running it again changes nothing that is in place.
set -euo pipefail

PROGRAM=$program_folder
STATE=$state_folder
TORCH_INDEX=$torch_index
PACKAGE=$package
FABRIC_MANAGER="$fabric_manager"

say() { echo "workbench-setup: $$*"; }

apt_install() {
    # Another apt may still be at work at the first boot.
    DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 install -y --no-install-recommends "$$@"
}

check_python() {
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
        say "Python 3.11 or newer is needed: start from an Ubuntu 24.04 image"
        exit 1
    }
}

$accelerator_steps

install_fabric_manager() {
    # Without it CUDA finds the GPUs and refuses to use them (error 802).
    [[ -n "$$FABRIC_MANAGER" ]] || return 0
    command -v nv-fabricmanager >/dev/null || apt_install "$$FABRIC_MANAGER"
    systemctl enable --now nvidia-fabricmanager
}

mount_instance_store() {
    # Models go to the local disks where there are any: they are fast, paid for, and empty after every stop.
    if [[ -d /opt/dlami/nvme ]]; then
        STATE=/opt/dlami/nvme/workbench
        return
    fi
    local disks
    mapfile -t disks < <(lsblk -dnpo NAME,MODEL | awk '/Instance Storage/ {print $$1}')
    [[ $${#disks[@]} -gt 0 ]] || return 0
    mountpoint -q "$$STATE" && return
    local device=$${disks[0]}
    if [[ $${#disks[@]} -gt 1 ]]; then
        apt_install mdadm
        device=/dev/md/workbench
        mdadm --create "$$device" --run --level=0 --raid-devices=$${#disks[@]} "$${disks[@]}"
    fi
    mkfs.ext4 -q -E nodiscard "$$device"
    install -d "$$STATE"
    mount -o noatime "$$device" "$$STATE"
}

install_program() {
    apt_install python3-venv ca-certificates gcc python3-dev
    id workbench >/dev/null 2>&1 || useradd --system --home-dir "$$STATE" --shell /usr/sbin/nologin workbench
    install -d -o workbench -g workbench -m 750 "$$STATE"
    [[ -x "$$PROGRAM/venv/bin/pip" ]] || python3 -m venv "$$PROGRAM/venv"
    # torch brings CUDA's libraries with it: the driver is all that the system needs.
    if [[ -n "$$TORCH_INDEX" ]]; then
        "$$PROGRAM/venv/bin/pip" install --no-cache-dir torch --index-url "$$TORCH_INDEX"
    fi
    fetch_package
    "$$PROGRAM/venv/bin/pip" install --no-cache-dir "$$PACKAGE"
}

fetch_package() {
    [[ "$$PACKAGE" != git+* ]] || apt_install git
    [[ "$$PACKAGE" == s3://* ]] || return 0
    # By the instance's own role, whose credentials boto3 finds.
    "$$PROGRAM/venv/bin/pip" install --no-cache-dir boto3
    "$$PROGRAM/venv/bin/python" - "$$PACKAGE" "$$PROGRAM" <<'PY'
import sys, boto3
url, folder = sys.argv[1:]
bucket, _, key = url.removeprefix("s3://").partition("/")
boto3.client("s3").download_file(bucket, key, folder + "/" + key.rpartition("/")[2])
PY
    PACKAGE="$$PROGRAM/$${PACKAGE##*/}"
}

install_service() {
    install -D -m 755 /dev/stdin "$$PROGRAM/bin/serve" <<'EOF'
#!/bin/bash
# Started by workbench.service. The API key is read at each start and kept in memory only.
set -euo pipefail
PARAMETER=$parameter
REGION=$region
if [[ -n "$$PARAMETER" ]]; then
    WORKBENCH_API_KEY="$$($program_folder/venv/bin/python - "$$PARAMETER" "$$REGION" <<'PY'
import sys, boto3
name, region = sys.argv[1:]
client = boto3.client("ssm", region_name=region)
print(client.get_parameter(Name=name, WithDecryption=True)["Parameter"]["Value"])
PY
)"
    export WORKBENCH_API_KEY
fi
exec $program_folder/venv/bin/workbench serve --model $model --host $host --port $port
EOF
    install -D -m 644 /dev/stdin /etc/systemd/system/workbench.service <<EOF
[Unit]
Description=LLM workbench
Wants=network-online.target
After=network-online.target nvidia-fabricmanager.service

[Service]
User=workbench
Environment=HOME=$$STATE WORKBENCH_HOME=$$STATE/cache HF_HOME=$$STATE/hub
WorkingDirectory=$$STATE
ExecStart=$$PROGRAM/bin/serve
Restart=on-failure
RestartSec=10
# A spot notice leaves two minutes: requests that run may end first.
TimeoutStopSec=110
NoNewPrivileges=yes
PrivateTmp=yes
ProtectHome=yes
ProtectSystem=strict
ReadWritePaths=$$STATE

[Install]
WantedBy=multi-user.target
EOF
    systemctl daemon-reload
    systemctl enable --now workbench.service
}

main() {
    apt-get -o DPkg::Lock::Timeout=600 update
    apt_install python3
    check_python
    install_driver
    install_fabric_manager
    mount_instance_store
    install_program
    install_service
    say "done; follow with: journalctl -u workbench -f"
}

main
"""

_NVIDIA = r"""
install_driver() {
    if nvidia-smi >/dev/null 2>&1; then
        say "the image has a working driver"
        return
    fi
    # Modules built for this kernel where Ubuntu has them, else built here.
    apt_install "linux-modules-nvidia-$branch-server$open-$$(uname -r)" ||
        apt_install "linux-headers-$$(uname -r)" "nvidia-dkms-$branch-server$open"
    apt_install "nvidia-headless-no-dkms-$branch-server$open" "nvidia-utils-$branch-server"
    modprobe nvidia
    nvidia-smi
}
"""

_PREPARED = r"""
install_driver() {
    # $instance_type needs more than a driver: only a prepared image has parts that fit each other.
    nvidia-smi || {
        say "start $instance_type from an image with its drivers (a Deep Learning AMI, or a GRID one for shared GPUs)"
        exit 1
    }
}
"""

_NONE = r"""
install_driver() {
    say "$instance_type has no GPU: models run on the CPU"
}
"""

# By kind of accelerator: how the function `install_driver` reads.
ACCELERATOR_STEPS = {"nvidia": _NVIDIA, "prepared": _PREPARED, "none": _NONE}
