import io

import pytest

from workbench.byte_size import byte_size
from workbench.progress import Progress
from workbench.progress_display import ProgressDisplay


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    now_s = 0.0

    def __call__(self):
        return self.now_s


def shown(stream, *moments):
    clock = Clock()
    with ProgressDisplay(stream, clock) as display:
        for clock.now_s, progress in moments:
            display(progress)
    return stream.getvalue()


def test_short_work_shows_nothing():
    moments = (0.0, Progress("load", 0, 10)), (0.9, Progress("load", 10, 10))
    assert shown(io.StringIO(), *moments) == ""
    assert shown(Terminal(), *moments) == ""


def test_lines_can_be_kept_back_longer():
    clock, stream = Clock(), io.StringIO()
    with ProgressDisplay(stream, clock, lines_after_s=15.0) as display:
        for clock.now_s in (0.0, 14.0):
            display(Progress("load weights", 1, 9, "tensors"))
        assert stream.getvalue() == ""
        clock.now_s = 16.0
        display(Progress("load weights", 2, 9, "tensors"))
    assert stream.getvalue() == "load weights: 2 of 9 tensors (22%)\n"


def test_a_log_gets_a_line_per_stage_and_one_each_ten_seconds():
    text = shown(
        io.StringIO(),
        (0.0, Progress("download", 0, 100_000_000)),
        (2.0, Progress("download", 25_000_000, 100_000_000)),
        (3.0, Progress("download", 30_000_000, 100_000_000)),
        (13.0, Progress("download", 50_000_000, 100_000_000)),
        (14.0, Progress("convert", 0, None)),
        (25.0, Progress("convert", 0, None)),
        (26.0, Progress("load weights", 3, 9, "tensors")),
    )
    assert text.splitlines() == [
        "download: 25.0 MB of 100.0 MB (25%)",
        "download: 50.0 MB of 100.0 MB (50%), 11 s",
        "convert",
        "convert: 11 s",
        "load weights: 3 of 9 tensors (33%)",
    ]


def test_a_terminal_gets_a_bar_that_goes_away():
    text = shown(
        Terminal(),
        (0.0, Progress("download", 0, 100)),
        (2.0, Progress("download", 50, 100)),
        (3.0, Progress("convert", 1, None, "tensors")),
    )
    assert "download" in text
    assert "convert" in text
    # The last thing written erases the bar's line.
    assert "\x1b[2K" in text[-10:]


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (98_362_432, "98.4 MB"), (2_500_000_000_000, "2.5 TB"), (None, "?")],
)
def test_byte_size(num_bytes, text):
    assert byte_size(num_bytes) == text
