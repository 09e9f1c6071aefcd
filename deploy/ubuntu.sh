#!/usr/bin/env bash
# Makes a bare Ubuntu (24.04 or newer) serve a model: packages, an environment, a user, a key, and a systemd service.
#
#   sudo deploy/ubuntu.sh [--model NAME] [--host ADDRESS] [--port PORT] [--torch-index URL] [--no-service]
#
# Run from a clone. Running it again upgrades what is there and keeps the key. An NVIDIA GPU needs its driver first
# (ubuntu-drivers install); torch brings CUDA's libraries.
set -euo pipefail

SOURCE=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PROGRAM=/opt/workbench
STATE=/var/lib/workbench
SETTINGS=/etc/workbench/environment
MODEL=default
HOST=127.0.0.1
PORT=8000
TORCH_INDEX=
SERVICE=yes

say() { echo "workbench-setup: $*"; }

fail() {
    say "$*" >&2
    exit 1
}

read_options() {
    while [[ $# -gt 0 ]]; do
        case $1 in
            --model | --host | --port | --torch-index)
                [[ $# -ge 2 ]] || fail "$1 needs a value"
                case $1 in
                    --model) MODEL=$2 ;;
                    --host) HOST=$2 ;;
                    --port) PORT=$2 ;;
                    --torch-index) TORCH_INDEX=$2 ;;
                esac
                shift 2
                ;;
            --no-service)
                SERVICE=no
                shift
                ;;
            -h | --help)
                sed -n '2,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
                exit 0
                ;;
            *) fail "unknown option $1" ;;
        esac
    done
    [[ $PORT =~ ^[0-9]+$ ]] || fail "--port $PORT: must be a number"
}

install_packages() {
    apt-get -o DPkg::Lock::Timeout=600 update
    # A C++ compiler: the engine compiles its CPU kernels, and Triton its launchers, here.
    DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 install --yes --no-install-recommends \
        python3 python3-venv python3-dev g++ ca-certificates openssl
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "Python 3.11 or newer is needed: this Ubuntu's is $(python3 -V)"
}

install_program() {
    id workbench >/dev/null 2>&1 ||
        useradd --system --home-dir "$STATE" --shell /usr/sbin/nologin workbench
    install -d -o workbench -g workbench -m 750 "$STATE"
    [[ -x $PROGRAM/venv/bin/pip ]] || python3 -m venv "$PROGRAM/venv"
    local pip=("$PROGRAM/venv/bin/pip" install --no-cache-dir --upgrade -c "$SOURCE/constraints.txt")
    if [[ -n $TORCH_INDEX ]]; then
        "${pip[@]}" --extra-index-url "$TORCH_INDEX" torch
    fi
    "${pip[@]}" "$SOURCE"
}

write_settings() {
    install -d -m 755 /etc/workbench
    if [[ ! -e $SETTINGS ]]; then
        install -m 600 /dev/null "$SETTINGS"
        echo "WORKBENCH_API_KEY=wb-$(openssl rand -hex 24)" >"$SETTINGS"
        say "made a key: sudo cat $SETTINGS"
    fi
    # What is asked for now; the key and all else stays.
    sed -i '/^WORKBENCH_MODEL_NAME=/d; /^WORKBENCH_LISTEN=/d; /^WORKBENCH_PORT=/d' "$SETTINGS"
    printf '%s\n' "WORKBENCH_MODEL_NAME=$MODEL" "WORKBENCH_LISTEN=$HOST" "WORKBENCH_PORT=$PORT" >>"$SETTINGS"
}

start_service() {
    install -m 644 "$SOURCE/deploy/workbench.service" /etc/systemd/system/workbench.service
    systemctl daemon-reload
    systemctl enable workbench.service
    systemctl restart workbench.service
    say "done; follow with: journalctl -u workbench -f"
}

main() {
    read_options "$@"
    [[ $(id -u) -eq 0 ]] || fail "must be run as root"
    install_packages
    install_program
    write_settings
    if [[ $SERVICE == yes ]]; then
        start_service
    else
        say "done; start with: $PROGRAM/venv/bin/workbench serve"
    fi
}

main "$@"
