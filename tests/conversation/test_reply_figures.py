from workbench.conversation import ReplyFigures


def test_a_reply_that_was_gone_on_with_is_told_of_as_a_whole():
    first = ReplyFigures("m", "length", 20, 4, 30, ttft_s=0.5, total_s=3.5, tokens_per_s=10.0, max_context=100)
    second = ReplyFigures("m", "stop", 55, 48, 10, ttft_s=0.1, total_s=0.6, tokens_per_s=20.0, max_context=100)
    whole = second.going_on_from(first)
    assert whole.line() == "40 tokens, 11.4 tokens/s, first token after 0.50 s, context 65 of 100"
    assert (whole.finish_reason, whole.num_cached_tokens, whole.total_s) == ("stop", 4, 4.1)


def test_a_last_piece_of_one_token_leaves_the_speed():
    first = ReplyFigures(num_generated_tokens=30, ttft_s=0.5, tokens_per_s=10.0)
    assert ReplyFigures(num_generated_tokens=1, ttft_s=0.1).going_on_from(first).tokens_per_s == 10.0


def test_where_nothing_was_measured_before_the_piece_is_all():
    piece = ReplyFigures(num_generated_tokens=3)
    for before in (None, ReplyFigures("m")):
        assert piece.going_on_from(before) is piece
