"""Whatever is logged while a server runs is one JSON line, whoever says it and however it looks."""

from __future__ import annotations

import io
import json
import logging
import threading
import warnings

import pytest

from workbench.server.json_log import json_log


@pytest.fixture
def stream():
    return io.StringIO()


def lines(stream):
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_messages_of_every_source_are_lines_of_one_form(stream, capsys):
    library = logging.getLogger("a_library_with_its_own_handler")
    own = logging.StreamHandler(io.StringIO())
    library.addHandler(own)
    library.propagate = False
    root_handlers = logging.getLogger().handlers[:]
    with json_log(stream):
        library.warning("first\nsecond line, %s", "forged")
        logging.getLogger("uvicorn.error").error("broken")
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("old", DeprecationWarning, stacklevel=1)
        failing = threading.Thread(target=lambda: 1 / 0, name="failing")
        failing.start()
        failing.join()
    told = lines(stream)
    assert [line["level"] for line in told] == ["warning", "error", "warning", "error"]
    assert told[0]["message"] == "first\nsecond line, forged" and told[0]["logger"] == library.name
    assert "DeprecationWarning: old" in told[2]["message"]
    assert told[3]["message"] == "thread failing failed" and "ZeroDivisionError" in told[3]["exception"]
    assert all(set(line) - {"exception"} == {"time", "level", "logger", "message"} for line in told)
    assert own.stream.getvalue() == "" and capsys.readouterr().err == ""
    assert library.handlers == [own] and not library.propagate
    assert logging.getLogger().handlers == root_handlers


def test_the_access_log_is_passed_on_as_it_is_or_left_out(stream):
    access = logging.getLogger("workbench.server.access")
    with json_log(stream):
        access.info("%s", '{"status": 200}')
    assert lines(stream) == [{"status": 200}]
    with json_log(stream, access=False):
        access.info("%s", '{"status": 201}')
    assert len(lines(stream)) == 1
