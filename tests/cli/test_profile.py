import json

from workbench.cli import main


def test_it_prints_the_split_and_writes_the_files(capsys, tmp_path):
    trace, page = tmp_path / "trace.json", tmp_path / "flame.html"
    words = ["random:tiny", "--backend", "cpu", "--context-length", "256", "--max-tokens", "3", "--json"]
    assert main(["profile", *words, "--trace", str(trace), "--flame-graph", str(page)]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["num_steps"] >= 3
    assert values["seconds"]["forward"] > 0
    assert json.loads(trace.read_text())["traceEvents"]
    assert "<button" in page.read_text()


def test_files_without_operations_are_refused(capsys, tmp_path):
    assert main(["profile", "random:tiny", "--no-operations", "--trace", str(tmp_path / "t")]) == 2
