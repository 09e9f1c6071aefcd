"""The command line as its user meets it: processes, pipes and a terminal, on the real embedded model."""

import json
import os
import signal
import subprocess
import sys

import pytest
from cli.terminal import CTRL_C, Terminal

from workbench.cli import main

WORKBENCH = (sys.executable, "-m", "workbench.cli")

pytestmark = pytest.mark.usefixtures("home_with_embedded_model")


def workbench(*args, stdin=""):
    return subprocess.run([*WORKBENCH, *args], input=stdin, capture_output=True, text=True, timeout=120)


def test_generate_prints_a_completion(capsys):
    """In this process; one of its own is interrupted below."""
    assert main(["generate", "The capital of France is", "--max-tokens", "8", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert "Paris" in answer["text"]
    assert not answer["text"].startswith("The capital")
    assert (answer["finish_reason"], answer["num_generated_tokens"]) == ("length", 8)
    assert answer["timings"]["ttft_s"] > 0


def test_chat_through_a_pipe():
    lines = "What is the capital of France?\n/reset\nSay yes.\n"
    done = workbench("chat", "--json", "--max-tokens", "12", stdin=lines)
    assert done.returncode == 0, done.stderr
    first, second = (json.loads(line) for line in done.stdout.splitlines())
    assert "Paris" in first["text"]
    assert second["num_prompt_tokens"] < first["num_prompt_tokens"] + first["num_generated_tokens"]


def test_models_knows_the_embedded_model(embedded_model_folder):
    (default,) = json.loads(workbench("models", "list", "--json").stdout)
    assert (default["name"], default["ready"]) == ("default", True)
    folder = workbench("models", "path", "default").stdout.strip()
    assert os.path.samefile(folder, embedded_model_folder)


def test_chat_on_a_terminal_outlives_an_interrupted_reply():
    with Terminal(*WORKBENCH, "chat", "--max-tokens", "4000", "--ignore-eos") as terminal:
        terminal.wait_for("> ")
        terminal.press("Tell me a long story.\n")
        terminal.wait_for("story.\r\n")
        terminal.wait_for_length(30)
        terminal.press(CTRL_C)
        terminal.wait_for("stopped")
        terminal.wait_for("tokens/s")
        terminal.wait_for("> ")
        # Ctrl-C at the prompt leaves the chat open.
        terminal.press(CTRL_C)
        terminal.wait_for("Ctrl-D or /exit leaves")
        terminal.wait_for("> ")
        terminal.press("/reset\n")
        terminal.wait_for("> ")
        terminal.press("What is the capital of France?\n")
        terminal.wait_for("France?\r\n")
        terminal.wait_for("Paris")
        terminal.press(CTRL_C)
        terminal.wait_for("stopped")
        terminal.wait_for("> ")
        assert terminal.leave() == 0


def test_an_interrupted_generate_says_so_with_its_exit_code():
    command = [*WORKBENCH, "generate", "Once upon a time", "--stream", "--max-tokens", "4000", "--ignore-eos"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.read(10)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Traceback" not in errors
