"""What a notebook shows of requests and of the engine: words that are the same in every run."""

from workbench.engine import Completion, EngineStats, FinishReason, Generation, Timings
from workbench.engine.messages import Chunk, Usage
from workbench.mailbox import Mailbox


def test_a_request_and_its_answer_in_words():
    mailbox = Mailbox()
    generation = Generation("r", 1, 5, mailbox, lambda name: None)
    assert repr(generation) == "Generation (running)\n  text so far  "
    end = {"finish_reason": FinishReason.STOP, "stop_reason": "x", "usage": Usage(3, 2, 0, 0.0, 1.0, 2.0)}
    mailbox.put(Chunk("r", 0, " <b>", (1, 2), **end))
    answer = generation.result()
    assert repr(answer) == (
        "Completion\n  text       <b>\n  ended by  stop ('x')\n  tokens    3 of the prompt, 2 generated"
    )
    assert "&lt;b&gt;" in answer._repr_mimebundle_()["text/html"]
    assert repr(generation) == "Generation (finished)\n  text so far   <b>"


def test_the_times_of_an_answer_are_not_in_its_words():
    def answer(seconds, seed):
        timings = Timings(3, 2, seconds, seconds, None)
        return Completion("a", (1,), FinishReason.LENGTH, None, 3, 0, timings, (), None, seed)

    assert repr(answer(1.0, 1)) == repr(answer(2.0, 2))


def test_the_engines_figures_in_words():
    stats = EngineStats(
        num_running=1,
        kv_blocks_used=2,
        kv_blocks_total=728,
        block_size=16,
        kv_bytes=536_739_840,
        weight_bytes=269_030_016,
        requests_total=4,
        requests_finished_total=3,
        finished_by_reason={"stop": 2, "length": 1},
    )
    text = repr(stats)
    assert "1 running, 0 waiting" in text and "1 by length, 2 by stop" in text
    assert "2 of 728 blocks of 16 tokens in use (537 MB)" in text and "guessed" not in text
    assert "10 of 20 tokens were right" in repr(EngineStats(draft_tokens_total=20, accepted_draft_tokens_total=10))
