import csv
import io
import json
import signal
import subprocess
import sys

import pytest

from workbench.cli import main


def test_csv_has_a_header_and_a_row_a_beat(capsys):
    assert main(["monitor", "--interval", "0.05", "--duration", "1", "--output-format", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(rows) >= 2
    assert int(rows[0]["host_memory_used_bytes"]) > 0
    assert rows[0]["time"] < rows[-1]["time"]


def test_json_is_one_object_a_line(capsys):
    assert main(["monitor", "--interval", "0.05", "--duration", "0.2", "--output-format", "json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines and lines[0]["host_memory_total_bytes"] > 0


def test_live_elsewhere_than_on_a_terminal_is_tables(capsys):
    assert main(["monitor", "--interval", "0.05", "--duration", "0.2", "--output-format", "live"]) == 0
    assert "host" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["--interval", "0"], ["--duration", "-1"]])
def test_bad_numbers_are_refused(words, capsys):
    assert main(["monitor", *words]) == 1
    assert capsys.readouterr().err.startswith("error: ")


def test_an_interrupt_ends_it_cleanly():
    command = [sys.executable, "-m", "workbench.cli", "monitor", "--interval", "0.1", "--output-format", "json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        json.loads(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    assert process.returncode in (0, 130)
    assert "Traceback" not in errors
