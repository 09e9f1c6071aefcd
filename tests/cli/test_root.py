import resource
import subprocess
import sys

import pytest

from workbench import __version__
from workbench.cli import main


@pytest.mark.parametrize("args", [["--help"], ["--version"], ["models", "--help"], ["info", "--help"]])
def test_quick_answers_load_neither_torch_nor_transformers(args):
    code = (
        "import sys; from workbench.cli import main; code = main(sys.argv[1:]);"
        "sys.exit(code or bool({'torch', 'transformers', 'rich'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code, *args], stdout=subprocess.DEVNULL).returncode == 0


@pytest.mark.parametrize("command", ["generate", "chat", "serve", "app"])
def test_help_of_a_model_command_loads_no_torch_and_no_web_framework(command):
    code = (
        f"import sys; from workbench.cli import main; main(['{command}', '--help']);"
        "sys.exit(bool({'torch', 'fastapi', 'gradio'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 0


def test_help_takes_little_work():
    def processor_seconds():
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "workbench.cli", "--help"], check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    # Of the processor, since others may be using the machine.
    assert min(processor_seconds() for _ in range(3)) < 0.5


def test_help_lists_the_commands(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"\n  {command} " in out for command in ("info", "models", "generate", "chat"))


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"{__version__}\n"


def test_unknown_commands_are_wrong_usage(capsys):
    assert main(["generat"]) == 2
    assert "'generate'" in capsys.readouterr().err
    assert main(["--wrong"]) == 2
    assert main([]) == 2
