import io
import json
from dataclasses import fields

import pytest
from cli.scripted_llm import INTERRUPT, ScriptedLlama

from workbench.cli import main
from workbench.cli.services import Services
from workbench.engine import EngineConfig, SamplingParams
from workbench.errors import BackendUnavailableError, OutOfMemoryError


def run(llm, *args):
    return main(["generate", *args], Services(open_llm=llm.open))


def test_prints_the_completion_and_nothing_else(capsys):
    llm = ScriptedLlama([" Paris", "."])
    assert run(llm, "The capital of France is") == 0
    assert capsys.readouterr().out == " Paris.\n"
    assert llm.requests[0]["prompt"] == "The capital of France is"
    assert llm.is_unloaded


def test_stream_prints_the_same_text(capsys):
    assert run(ScriptedLlama([" Paris", "."]), "x", "--stream") == 0
    assert capsys.readouterr().out == " Paris.\n"


def test_prompt_from_stdin(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("two\nlines\n"))
    llm = ScriptedLlama(["ok"])
    assert run(llm, "-") == 0
    assert llm.requests[0]["prompt"] == "two\nlines\n"


def test_chat_sends_a_message():
    llm = ScriptedLlama(["ok"])
    assert run(llm, "hello", "--chat") == 0
    assert llm.requests[0]["messages"] == [{"role": "user", "content": "hello"}]


def test_json_has_text_counts_reason_and_timings(capsys):
    assert run(ScriptedLlama([" Paris", "."]), "x", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["text"], answer["finish_reason"], answer["seed"]) == (" Paris.", "stop", 1234)
    assert (answer["num_prompt_tokens"], answer["num_cached_tokens"], answer["num_generated_tokens"]) == (7, 2, 5)
    assert (answer["timings"]["ttft_s"], answer["timings"]["decode_tokens_per_s"]) == (0.25, 8.0)


def test_json_stream_gives_pieces_then_the_answer(capsys):
    assert run(ScriptedLlama([" Paris", "."]), "x", "--json", "--stream") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["delta"] for line in lines[:-1]] == [" Paris", "."]
    assert lines[-1]["text"] == " Paris."


def test_several_answers(capsys):
    assert run(ScriptedLlama(["yes"]), "x", "--n", "2", "--json") == 0
    assert [json.loads(line)["index"] for line in capsys.readouterr().out.splitlines()] == [0, 1]
    assert run(ScriptedLlama(["yes"]), "x", "--n", "2", "--stream") == 2
    assert "--json" in capsys.readouterr().err


# One value, other than the default, for every sampling parameter.
SAMPLING_OPTIONS = {
    "max_tokens": (["--max-tokens", "none"], None),
    "temperature": (["--temperature", "0.7"], 0.7),
    "top_k": (["--top-k", "5"], 5),
    "top_p": (["--top-p", "0.5"], 0.5),
    "min_p": (["--min-p", "0.1"], 0.1),
    "typical_p": (["--typical-p", "0.9"], 0.9),
    "repetition_penalty": (["--repetition-penalty", "1.1"], 1.1),
    "presence_penalty": (["--presence-penalty", "-0.5"], -0.5),
    "frequency_penalty": (["--frequency-penalty", "0.5"], 0.5),
    "no_repeat_ngram_size": (["--no-repeat-ngram-size", "3"], 3),
    "logit_bias": (["--logit-bias", "42=-5", "--logit-bias", "7=1.5"], {42: -5.0, 7: 1.5}),
    "seed": (["--seed", "11"], 11),
    "plugins": (["--plugins", "a", "--plugins", 'b={"x": [1]}'], {"a": {}, "b": {"x": [1]}}),
    "stop": (["--stop", "END", "--stop", "\n"], ("END", "\n")),
    "stop_token_ids": (["--stop-token-ids", "1", "--stop-token-ids", "2"], (1, 2)),
    "min_tokens": (["--min-tokens", "2"], 2),
    "ignore_eos": (["--ignore-eos"], True),
    "n": (["--n", "2"], 2),
    "logprobs": (["--logprobs"], True),
    "top_logprobs": (["--logprobs", "--top-logprobs", "3"], 3),
    "prompt_logprobs": (["--prompt-logprobs", "1"], 1),
    "skip_special_tokens": (["--no-skip-special-tokens"], False),
}


@pytest.mark.parametrize("name", [field.name for field in fields(SamplingParams) if field.metadata.get("option", True)])
def test_every_sampling_parameter_is_an_option(name):
    options, value = SAMPLING_OPTIONS[name]
    llm = ScriptedLlama(["ok"])
    assert run(llm, "x", *options) == 0
    given = llm.requests[0]["sampling"]
    assert given[name] == value
    # Everything else has the class's own default.
    defaults = SamplingParams()
    others = {key for key in given if key != name and not (name == "top_logprobs" and key == "logprobs")}
    assert all(given[key] == getattr(defaults, key) for key in others)


def test_model_and_engine_options():
    llm = ScriptedLlama(["ok"])
    options = ["--model", "m", "--backend", "cpu", "--quant", "bf16", "--no-prefer-gpu", "--trust-remote-code"]
    assert run(llm, "x", *options, "--kv-cache-tokens", "64", "--no-enable-prefix-caching") == 0
    opened = llm.opened_with
    assert (opened["model_path"], opened["backend"], opened["quant_type"]) == ("m", "cpu", "bf16")
    assert (opened["prefer_gpu"], opened["trust_remote_code"], opened["allow_pickle"]) == (False, True, False)
    assert opened["engine"] == EngineConfig(kv_cache_tokens=64, enable_prefix_caching=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--temperature", "nan"], "temperature=nan"),
        (["--max-tokens", "0"], "max_tokens=0"),
        (["--max-tokens", "-3"], "max_tokens=-3"),
        (["--block-size", "0"], "block_size=0"),
    ],
)
def test_bad_values_are_refused_before_the_model_is_opened(options, message, capsys):
    llm = ScriptedLlama()
    assert run(llm, "x", *options) == 1
    assert f"error: {message}" in capsys.readouterr().err
    assert llm.opened_with == {}


@pytest.mark.parametrize(
    "options",
    [["--max-tokens", "many"], ["--logit-bias", "a=b"], ["--logit-bias", "5"], ["--temprature", "1"], ["--top-k", "x"]],
)
def test_wrong_usage(options, capsys):
    assert run(ScriptedLlama(), "x", *options) == 2
    assert options[0] in capsys.readouterr().err


def test_an_error_is_one_line_without_traceback(capsys):
    assert run(ScriptedLlama(BackendUnavailableError("no such luck")), "x") == 1
    assert capsys.readouterr().err == "error: no such luck\n"


@pytest.mark.parametrize("args", [["--debug", "generate", "x"], ["generate", "x", "--debug"]])
def test_debug_shows_the_traceback(args, capsys):
    llm = ScriptedLlama(BackendUnavailableError("no such luck"))
    assert main(args, Services(open_llm=llm.open)) == 1
    assert "Traceback" in capsys.readouterr().err


def test_out_of_memory_says_what_would_fit(capsys):
    error = OutOfMemoryError("too big", needed_bytes=2, free_bytes=1, would_fit=("bf16", "a smaller context"))
    assert run(ScriptedLlama(error), "x") == 1
    assert "what would fit: bf16; a smaller context" in capsys.readouterr().err


@pytest.mark.parametrize("options", [["--stream"], ["--no-stream"]])
def test_an_interrupt_stops_the_request(options):
    llm = ScriptedLlama(["a", INTERRUPT])
    assert run(llm, "x", *options) == 130
    assert llm.aborted
    assert llm.is_unloaded
