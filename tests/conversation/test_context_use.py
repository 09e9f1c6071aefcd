from workbench.conversation import measure_context


def _count(messages) -> int:
    """A template with a default system prompt of five tokens, three around each message, one token a word."""
    has_system = messages and messages[0]["role"] == "system"
    return (0 if has_system else 8) + sum(3 + len(str(m["content"]).split()) for m in messages)


def test_the_prompt_is_split_into_what_it_is_made_of():
    prompt = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "one two three"},
        {"role": "assistant", "content": "four"},
    ]
    use = measure_context(_count, prompt, "a draft of five words", 100)
    assert use.used_tokens == _count([*prompt, {"role": "user", "content": "a draft of five words"}])
    assert (use.system_tokens, use.draft_tokens, use.free_tokens) == (8, 8, 100 - use.used_tokens)
    assert use.line().startswith(f"{use.used_tokens} of 100 tokens: system 8, history")


def test_an_empty_chat_holds_what_the_template_writes():
    use = measure_context(_count, [], "", 100)
    assert (use.system_tokens, use.history_tokens, use.draft_tokens) == (11, 0, 0)


def test_a_prompt_that_does_not_fit_says_by_how_much():
    use = measure_context(_count, [], "one two three", 14)
    assert (use.used_tokens, use.fits, use.free_tokens) == (14, False, 0)
    assert use.line().endswith("1 too many")
