#!/usr/bin/env bash
# A newcomer's way, timed: from `git clone` to the first streamed token, with `make lab` and with `pip install .`;
# and after `make lab` the other targets that must work on a fresh machine.
#
#   benchmarks/newcomer.sh [lab|pip] [REPOSITORY]       wall-clock seconds, and processor seconds, of each stage
#
# Everything is made anew in a folder that is removed afterwards: clone, environment and model cache.
set -euo pipefail

WAY=${1:-lab}
REPOSITORY=${2:-$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)}
FOLDER=$(mktemp -d)
LAB=
trap '[[ -z $LAB ]] || kill "$LAB" 2>/dev/null || true; rm -rf "$FOLDER"' EXIT
export WORKBENCH_HOME=$FOLDER/home
TIMEFORMAT='%R s, of it %U s of processor time'

stage() {
    local name=$1
    shift
    echo -n "$name: "
    { time "$@" >"$FOLDER/log" 2>&1 || { tail -5 "$FOLDER/log" && exit 1; }; } 2>&1
}

first_token() {
    "$1" - <<'PY'
from workbench import LlamaGPU
with LlamaGPU("default") as llm:
    print(next(iter(llm.stream_infer("The capital of France is", max_tokens=8))))
PY
}

lab_answers() {
    make lab ARGS="--no-browser --port 18899 --IdentityProvider.token=x" >"$FOLDER/lab" 2>&1 &
    LAB=$!
    until curl --silent --fail --output /dev/null "http://127.0.0.1:18899/lab?token=x"; do
        kill -0 "$LAB"
        sleep 0.2
    done
}

stage "git clone" git clone --quiet "$REPOSITORY" "$FOLDER/clone"
cd "$FOLDER/clone"
if [[ $WAY == lab ]]; then
    stage "make setup, the first half of make lab: environment and model" make setup
    stage "make lab again, until the page answers" lab_answers
    stage "a notebook's first token" first_token .venv/bin/python
    kill "$LAB" && wait "$LAB" 2>/dev/null || true
    LAB=
    for target in lint docs bench; do
        stage "make $target" make "$target"
    done
else
    stage "python -m venv" python3 -m venv "$FOLDER/venv"
    stage "pip install -c constraints.txt ." "$FOLDER/venv/bin/pip" install -q -c constraints.txt .
    stage "workbench models fetch default" "$FOLDER/venv/bin/workbench" models fetch default
    cd "$FOLDER"
    stage "first token" first_token "$FOLDER/venv/bin/python"
fi
