"""The three plugins that come along, each at its work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from workbench.plugins import FinishedRequest, PluginContext
from workbench.plugins.examples.min_p_floor import MinPFloor
from workbench.plugins.examples.request_logger import RequestLogger
from workbench.plugins.examples.stop_phrases import StopPhrases


def _through(pieces: list[str], **options: object) -> tuple[str, bool]:
    part = StopPhrases(options)
    shown = ""
    for piece in pieces:
        result = part.feed(piece)
        shown += result.text
        if result.stop:
            return shown, True
    return shown + part.finish(), False


@pytest.mark.parametrize("size", [1, 2, 3, 100])
@pytest.mark.parametrize(
    ("text", "options", "shown", "stops"),
    [
        ("It was THE End of it", {"stop": ["the end"]}, "It was ", True),
        ("the en", {"stop": ["the end"]}, "the en", False),
        ("a secret, a Secret", {"replace": {"secret": "***"}}, "a ***, a ***", False),
        ("secretly", {"replace": {"secret": "x", "secretly": "y"}}, None, False),
        ("plain", {"watermark": " [m]"}, "plain [m]", False),
        ("plain stop", {"stop": ["stop"], "watermark": " [m]"}, "plain  [m]", True),
        ("İstanbul the end", {"stop": ["the end"]}, "İstanbul ", True),
        ("aab", {"stop": ["ab"]}, "a", True),
        ("nothing", {}, "nothing", False),
    ],
)
def test_phrases_however_the_text_is_cut(text: str, options: dict, shown: str | None, stops: bool, size: int) -> None:
    pieces = [text[i : i + size] for i in range(0, len(text), size)]
    got, has_stopped = _through(pieces, **options)
    assert has_stopped is stops
    assert got in ({"xly", "y"} if shown is None else {shown})


def test_what_cannot_be_a_phrase_is_shown_at_once() -> None:
    part = StopPhrases({"stop": ["the end"]})
    assert part.feed("hello t").text == "hello " and part.feed("oday").text == "today"


@pytest.mark.parametrize(
    "options", [{"stop": "x"}, {"stop": [""]}, {"replace": {"a": 1}}, {"colour": 1}, {"watermark": 1}]
)
def test_wrong_options_of_the_filter(options: dict) -> None:
    with pytest.raises(ValueError):
        StopPhrases(options)


def test_min_p_with_certainty() -> None:
    sure = torch.tensor([0.9, 0.06, 0.04]).log()
    unsure = torch.tensor([0.4, 0.35, 0.25]).log()
    part = MinPFloor({"min_p": 0.1})
    # The share is min_p * p_max: 0.09 of 0.9 and 0.04 of 0.4.
    assert part.process(sure, [], 0).isinf().tolist() == [False, True, True]
    assert part.process(unsure, [], 0).isinf().tolist() == [False, False, False]
    # certainty 0 is min-p itself, as in Nguyen et al.
    flat = MinPFloor({"min_p": 0.65, "certainty": 0})
    assert flat.process(unsure, [], 0).isinf().tolist() == [False, False, True]
    assert MinPFloor({"min_p": 1.0, "keep": 2}).process(sure, [], 0).isinf().tolist() == [False, False, True]
    assert MinPFloor({"min_p": 0}).process(sure, [], 0) is sure


@pytest.mark.parametrize("options", [{"min_p": 2}, {"min_p": "x"}, {"keep": -1}, {"certainty": True}, {"other": 1}])
def test_wrong_options_of_the_sampler(options: dict) -> None:
    with pytest.raises(ValueError):
        MinPFloor(options)


def _finished(number: int) -> FinishedRequest:
    return FinishedRequest(f"r{number}", 0, (1, 2, 3), {}, "täxt", (4, 5), "stop", 1, 0.1, 0.5, None)


def test_the_logger_writes_lines(tmp_path: Path) -> None:
    logger = RequestLogger()
    logger.initialize(PluginContext("request-logger", tmp_path, {}))
    logger.post_request(_finished(1))
    (line,) = logger.file.read_text().splitlines()
    entry = json.loads(line)
    assert entry["num_prompt_tokens"] == 3 and entry["num_generated_tokens"] == 2 and "text" not in entry
    assert (entry["finish_reason"], entry["ttft_s"], entry["error"]) == ("stop", 0.1, None)
    assert logger.file.stat().st_mode & 0o077 == 0


def test_the_logger_keeps_texts_and_begins_anew(tmp_path: Path) -> None:
    logger = RequestLogger()
    logger.initialize(
        PluginContext("request-logger", tmp_path, {"texts": True, "max_bytes": 400, "file": str(tmp_path / "x")})
    )
    for number in range(3):
        logger.post_request(_finished(number))
    assert json.loads(logger.file.read_text().splitlines()[-1])["text"] == "täxt"
    assert (tmp_path / "x.1").is_file() and logger.file.stat().st_size <= 400
    with pytest.raises(ValueError, match="colour"):
        RequestLogger().initialize(PluginContext("request-logger", tmp_path, {"colour": 1}))
