"""`workbench example NAME`, as a user types it."""

import json

import pytest
from answering_llm import AnsweringLlama, WeighingLlama

from workbench.cli import main
from workbench.cli.services import Services


def run(llm, *words):
    return main(["example", *words], Services(open_llm=llm.open))


def weighing():
    return WeighingLlama(lambda words, word: -1.0 if word in ("Legal", "French") and "N/A" not in words else -2.0)


def test_help_lists_all_nine(capsys):
    assert main(["example", "--help"]) == 0
    out = capsys.readouterr().out
    for name in (
        "inference", "named_entity_recognition", "document_classification", "language_detection",
        "question_answering", "text_generation", "code_generation", "conversation_simulation", "data_analysis",
    ):  # fmt: skip
        assert f"\n  {name} " in out


@pytest.mark.parametrize(
    ("words", "key", "value"),
    [
        (["document_classification"], "category", "LEGAL"),
        (["language_detection", "--input", "Bonjour"], "language", "French"),
    ],
)
def test_choices(words, key, value, capsys):
    assert run(weighing(), *words) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["results"][0][key] == value
    assert values["statistics"]["mean_confidence"] > 0


def test_unsure_results_and_families_are_left_out_when_asked(capsys):
    words = ["language_detection", "--input", "Bonjour"]
    assert run(weighing(), *words, "--no-include-families") == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert "family" not in result
    for threshold, num_kept in ((result["confidence"], 1), (1.0, 0)):
        for example in (words, ["document_classification"]):
            assert run(weighing(), *example, "--confidence-threshold", str(threshold)) == 0
            values = json.loads(capsys.readouterr().out)
            if example is words:
                assert (len(values["results"]), values["num_left_out"]) == (num_kept, 1 - num_kept)
    assert values["results"] == [] and values["statistics"]["mean_confidence"] is None
    assert run(weighing(), *words, "--confidence-threshold", "2") == 1
    assert "must be 0 to 1" in capsys.readouterr().err


def test_entities_of_a_file_s_lines_go_to_a_file(tmp_path, capsys):
    lines, out = tmp_path / "lines.txt", tmp_path / "out.json"
    lines.write_text("Ann left.\n\nAnn came.\n")
    llm = AnsweringLlama('[{"text": "Ann", "type": "PERSON"}]')
    words = ["named_entity_recognition", "--input-file", str(lines), "--output-file", str(out)]
    assert run(llm, *words, "--entity-types", "person,date", "--batch-size", "1") == 0
    assert capsys.readouterr().out == ""
    values = json.loads(out.read_text())
    assert [each["text"] for each in values["results"]] == ["Ann left.", "Ann came."]
    assert values["statistics"]["by_type"] == {"PERSON": 2}
    assert llm.most_waiting == 1


def test_questions_from_a_file(tmp_path, capsys):
    pairs = tmp_path / "pairs.json"
    pairs.write_text(json.dumps([{"context": "Built 1889.", "question": "When?"}]))
    assert run(AnsweringLlama("1889"), "question_answering", "--input-file", str(pairs)) == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert (result["answer"], result["found_in_context"]) == ("1889", True)
    words = ["question_answering", "--input-file", str(pairs), "--no-validate-answer"]
    assert run(AnsweringLlama("1889"), *words) == 0
    assert "found_in_context" not in json.loads(capsys.readouterr().out)["results"][0]


def test_inference_shows_every_way_and_measures_when_asked(capsys):
    llm = AnsweringLlama("red and blue")
    assert run(llm, "inference", "--benchmark", "--iterations", "2", "--no-auto-detect-aws", "--model", "m") == 0
    values = json.loads(capsys.readouterr().out)
    assert values["single"] == "red and blue"
    assert values["stream"] == ["red", "and", "blue"]
    assert values["benchmark"]["iterations"] == 2
    assert (llm.opened_with["model_path"], llm.opened_with["auto_detect_aws"]) == ("m", False)


def test_text_of_a_length_and_style(capsys):
    llm = AnsweringLlama("Waves.")
    words = ["text_generation", "--prompt", "The sea", "--style", "technical", "--length", "short", "--batch-size", "2"]
    assert run(llm, *words) == 0
    assert [each["generated_text"] for each in json.loads(capsys.readouterr().out)] == ["Waves.", "Waves."]
    assert {request["max_tokens"] for request in llm.requests} == {100}


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (["code_generation", "--task", "sort", "--language", "rust"], "generated_code"),
        (["conversation_simulation", "--scenario", "interview", "--turns", "2"], "conversation"),
        (["data_analysis", "--data-type", "financial", "--data-size", "9"], "analysis_result"),
    ],
)
def test_benchmark_runs_it_three_times(words, key, capsys):
    assert run(AnsweringLlama("x"), *words, "--benchmark") == 0
    runs = json.loads(capsys.readouterr().out)
    assert len(runs) == 3
    assert all(key in each for made in runs for each in made)


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["inference", "--input", "a", "--input-file", "b"], 2),
        (["inference", "--log-level", "LOUD"], 2),
        (["inference", "--input-file", "missing.txt"], 1),
        (["question_answering", "--context", "a"], 2),
        (["code_generation", "--language", "cobol"], 2),
        (["code_generation", "--complexity", "huge"], 2),
        (["text_generation", "--style", "rude"], 2),
        (["text_generation", "--length", "endless"], 2),
        (["conversation_simulation", "--scenario", "heist"], 2),
        (["data_analysis", "--analysis-type", "guess"], 2),
        (["data_analysis", "--output-file", "no-such-folder/x.json"], 2),
        (["data_analysis", "--data", "missing.csv", "--data-type", "sales"], 1),
        (["inference", "--iterations", "2"], 1),
        (["text_generation", "--length", "short", "--max-tokens", "5"], 1),
        (["language_detection", "--confidence-threshold", "2"], 1),
        (["data_analysis", "--data", "missing.csv"], 1),
        (["named_entity_recognition", "--entity-types", "COLOUR"], 1),
    ],
)
def test_bad_input_is_told_before_a_model_is_loaded(words, status, capsys):
    llm = AnsweringLlama("x")
    assert run(llm, *words) == status
    assert capsys.readouterr().err
    assert llm.opened_with == {}
