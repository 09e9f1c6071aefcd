import threading

from widgets.coalescer import Coalescer


class Sink:
    """Collects emissions; `hold` keeps the emitting thread inside one."""

    def __init__(self):
        self.texts = []
        self.got_one = threading.Event()

    def __call__(self, text):
        self.texts.append(text)
        self.got_one.set()


def test_the_first_piece_goes_at_once_and_the_rest_together():
    sink = Sink()
    with Coalescer(sink, interval_s=60) as coalescer:
        coalescer.put("a")
        assert sink.got_one.wait(10)
        for piece in "bcdef":
            coalescer.put(piece)
    # Closing does not wait for the interval.
    assert sink.texts == ["a", "bcdef"]


def test_nothing_put_is_nothing_emitted_and_the_thread_ends():
    sink = Sink()
    before = threading.active_count()
    with Coalescer(sink, interval_s=60):
        pass
    assert sink.texts == []
    assert threading.active_count() == before


def test_no_piece_is_lost_between_threads():
    sink = Sink()
    with Coalescer(sink, interval_s=0.001) as coalescer:
        for number in range(2000):
            coalescer.put(f"{number} ")
    assert "".join(sink.texts) == "".join(f"{number} " for number in range(2000))
