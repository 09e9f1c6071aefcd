"""The examples that write: text, code, conversations, words about a table."""

import json
import math

import pandas as pd
import pytest
from answering_llm import AnsweringLlama

from workbench.errors import RequestError
from workbench.examples import CodeGenerator, ConversationSimulator, DataAnalyzer, InferenceDemo, TextGenerator
from workbench.examples.answers import ask_all
from workbench.examples.data_analysis import DATA_TYPES, generate_sample_data, load_data_from_file


def test_a_style_is_part_of_the_question_and_sampling_goes_through():
    llm = AnsweringLlama(" Waves. ")
    result = TextGenerator(llm, "business").generate_text("The sea", max_tokens=9, temperature=0.1, seed=3)
    assert result["generated_text"] == "Waves."
    assert (result["prompt"], result["token_count"], result["backend"], result["gpu_used"]) == (
        "The sea",
        5,
        "cpu",
        False,
    )
    (request,) = llm.requests
    assert "colleagues" in request["messages"][0]["content"]
    assert (request["max_tokens"], request["temperature"], request["seed"]) == (9, 0.1, 3)


def test_no_more_than_the_batch_size_wait_at_once_and_order_is_kept():
    llm = AnsweringLlama(lambda request: request["prompt"])
    answers = ask_all(llm, [{"prompt": f"p{i}"} for i in range(7)], batch_size=3)
    assert [answer.text for answer in answers] == [f"p{i}" for i in range(7)]
    assert llm.most_waiting == 3


def test_the_code_is_what_stands_in_the_first_fence():
    llm = AnsweringLlama("Sure:\n```python\na = 1\n\nb = 2\n```\nDone.")
    result = CodeGenerator(llm).generate_code("set a and b")
    assert result["generated_code"] == "a = 1\n\nb = 2"
    assert result["line_count"] == 2
    assert llm.requests[0]["max_tokens"] == 300


@pytest.mark.parametrize(("answer", "code"), [("```cpp\nint a;", "int a;"), ("x = 1", "x = 1")])
def test_an_open_fence_and_none_at_all(answer, code):
    assert CodeGenerator(AnsweringLlama(answer)).generate_code("x", "cpp", "high")["generated_code"] == code


def test_speakers_take_turns_and_each_sees_itself_as_the_assistant():
    llm = AnsweringLlama("Yes.")
    result = ConversationSimulator(llm).simulate_conversation("teaching", 4, "It is May.", seed=1)
    assert [turn["speaker"] for turn in result["conversation"]] == ["Student", "Teacher", "Student", "Teacher"]
    assert result["total_tokens"] == 15
    teacher, student, _ = llm.requests
    assert [message["role"] for message in teacher["messages"]] == ["system", "user"]
    assert [message["role"] for message in student["messages"]] == ["system", "assistant", "user"]
    assert "student" in student["messages"][0]["content"] and "It is May." in student["messages"][0]["content"]
    assert (teacher["seed"], student["seed"]) == (2, 3)


def test_conversations_run_side_by_side():
    llm = AnsweringLlama("Yes.")
    first, second = ConversationSimulator(llm).batch_simulate(["interview", "therapy"], 2)
    assert (first["scenario"], second["scenario"]) == ("interview", "therapy")
    assert llm.most_waiting == 2


def test_the_figures_are_the_table_s_own():
    llm = AnsweringLlama("It grows.")
    table = pd.DataFrame({"day": ["a", "b", "c"], "sold": [1, 2, 3], "left": [3, 2, 1]})
    result = DataAnalyzer(llm).analyze_data(table, "trend")
    assert result["data_points"] == 3
    assert result["data_summary"]["columns"]["sold"] == {"mean": 2.0, "min": 1.0, "max": 3.0, "change_percent": 200.0}
    assert result["data_summary"]["correlations"] == {"sold / left": -1.0}
    assert "change percent 200.0" in llm.requests[0]["messages"][0]["content"]


def test_what_is_no_number_is_left_out_of_the_figures():
    table = pd.DataFrame({"sold": [math.nan, 1.0, math.inf, 3.0], "empty": [math.nan] * 4})
    summary = DataAnalyzer(AnsweringLlama("x")).analyze_data(table)["data_summary"]
    assert summary["columns"] == {"sold": {"mean": 2.0, "min": 1.0, "max": 3.0, "change_percent": 200.0}}
    json.dumps(summary, allow_nan=False)


def test_in_a_batch_each_answer_has_its_own_speed():
    for results in (
        TextGenerator(AnsweringLlama("x")).batch_generate(["a", "b"]),
        CodeGenerator(AnsweringLlama("x")).batch_generate(["a", "b"]),
    ):
        assert [(each["generation_time"], each["tokens_per_second"]) for each in results] == [(1.0, 5.0)] * 2


@pytest.mark.parametrize("data_type", DATA_TYPES)
def test_made_up_tables_have_the_rows_asked_for_and_repeat(data_type):
    table = generate_sample_data(data_type, 12)
    assert len(table) == 12
    assert (table.select_dtypes("number").nunique() > 1).all()
    assert table.equals(generate_sample_data(data_type, 12))


def test_a_file_is_read_and_a_bad_one_told(tmp_path):
    good, empty = tmp_path / "good.csv", tmp_path / "empty.csv"
    good.write_text("a,b\n1,2\n")
    empty.write_text("a,b\n")
    assert load_data_from_file(good).to_dict("list") == {"a": [1], "b": [2]}
    for path in (empty, tmp_path / "missing.csv"):
        with pytest.raises(RequestError, match=path.name):
            load_data_from_file(path)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda llm: TextGenerator(llm, "rude"),
        lambda llm: CodeGenerator(llm).generate_code("x", "cobol"),
        lambda llm: CodeGenerator(llm).generate_code("x", complexity="huge"),
        lambda llm: ConversationSimulator(llm).simulate_conversation("heist"),
        lambda llm: ConversationSimulator(llm).simulate_conversation("therapy", 0),
        lambda llm: DataAnalyzer(llm).analyze_data(pd.DataFrame({"a": ["x"]})),
        lambda llm: DataAnalyzer(llm).analyze_data(generate_sample_data(), "guess"),
        lambda llm: generate_sample_data("weather"),
        lambda llm: generate_sample_data(size=1),
        lambda llm: InferenceDemo(llm).benchmark("x", 0),
        lambda llm: ask_all(llm, [], 0),
    ],
)
def test_wrong_choices_are_refused_before_the_model_is_asked(wrong):
    llm = AnsweringLlama("x")
    with pytest.raises(RequestError):
        wrong(llm)
    assert not llm.requests
