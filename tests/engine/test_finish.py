"""Text piece by piece: characters are whole, stop strings never show, and the pieces make up the whole text."""

from __future__ import annotations

import random

import pytest
from tokenizers import Tokenizer as FastTokenizer
from tokenizers import decoders, models

from workbench.engine.finish import AnswerText
from workbench.engine.sampling_params import SamplingParams
from workbench.engine.sequence import FinishReason, Sequence
from workbench.models.tokenizer import load_tokenizer

EOS = 0
TEXTS = [
    "héllo 😀👩‍👩‍👧 世界 مرحبا  🇩🇪 \n\n x",
    "naïve café",
    "日本語のテキスト",
    "\ufffd a real replacement character \ufffd\ufffd",
    "   spaces   ",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 🤷🏽‍♀️",
]


@pytest.fixture(scope="module")
def tokenizer(embedded_model_folder):
    return load_tokenizer(embedded_model_folder)


class Answer:
    """Feeds tokens to an AnswerText; `decode(ids, skip_special_tokens)`."""

    def __init__(self, decode, prompt=(1,), **sampling) -> None:
        params = SamplingParams(**{"max_tokens": None, **sampling})
        self.sequence = Sequence("r", 0, list(prompt), len(prompt), params, 0, frozenset({EOS}), 10**6)
        self._text = AnswerText(self.sequence, lambda ids: decode(ids, params.skip_special_tokens))
        self.pieces: list[str] = []

    def feed(self, token_ids):
        """The end, if one of the tokens brought it."""
        for token_id in token_ids:
            self.sequence.token_ids.append(token_id)
            piece = self._text.advance()
            self.pieces.append(piece.text)
            if piece.finished:
                return piece.finished
        return None

    def flush(self) -> str:
        self.pieces.append(self._text.flush())
        return self.text

    @property
    def text(self) -> str:
        return "".join(self.pieces)


def letters(token_ids, skip_special_tokens=True) -> str:
    """One letter a token; EOS is special."""
    return "".join(chr(i) if i else "" if skip_special_tokens else "</s>" for i in token_ids)


def codes(text: str) -> list[int]:
    return [ord(letter) for letter in text]


@pytest.mark.parametrize("text", TEXTS)
def test_characters_come_whole(tokenizer, text):
    token_ids = tokenizer.encode(text)
    answer = Answer(tokenizer.decode, tokenizer.encode("Say:"))
    answer.feed(token_ids)
    assert answer.flush() == text
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in answer.pieces)
        # The longest wait is for the four bytes of one character.
        assert all(answer.pieces[i : i + 4] != [""] * 4 for i in range(len(answer.pieces) - 4))


def test_pieces_make_up_the_whole_text_whatever_tokens_come(tokenizer):
    rng = random.Random(0)
    parts_of_characters = [i for i in range(tokenizer.vocab_size) if "\ufffd" in tokenizer.decode([i])]
    specials = tokenizer.hf.all_special_ids
    kinds = [
        lambda: tokenizer.encode(rng.choice(TEXTS)),
        lambda: [rng.choice(specials)] * rng.randrange(1, 30),
        lambda: [rng.choice(parts_of_characters) for _ in range(rng.randrange(1, 9))],
        lambda: [rng.randrange(tokenizer.vocab_size) for _ in range(rng.randrange(1, 5))],
    ]
    for _ in range(1500):
        token_ids = [i for _ in range(rng.randrange(1, 8)) for i in rng.choice(kinds)()]
        prompt = tokenizer.encode(rng.choice(["hello", "😀 ", "a b c d e f g h"]))
        skip = rng.random() < 0.5
        answer = Answer(tokenizer.decode, prompt, skip_special_tokens=skip, ignore_eos=True)
        answer.feed(token_ids)
        whole = tokenizer.decode(prompt + token_ids, skip)
        assert tokenizer.decode(prompt, skip) + answer.flush() == whole


@pytest.fixture(scope="module")
def byte_fallback_decode():
    """Decodes like SentencePiece tokenizers: a leading space is stripped, a run of byte tokens is one unit."""
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁the", "▁", "a", "é"]
    fast = FastTokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, [], byte_fallback=True))
    fast.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return lambda token_ids, skip=True: fast.decode(list(token_ids), skip_special_tokens=skip)


def test_characters_that_are_spelt_byte_by_byte_come_whole(byte_fallback_decode):
    word, space, letter = 257, 258, 259
    rng = random.Random(2)
    for _ in range(200):
        answer, whole = Answer(byte_fallback_decode, [word], ignore_eos=True), ""
        for _ in range(rng.randrange(1, 9)):
            text = rng.choice(["😀", "世界", "é", "😀" * 9])
            answer.feed(1 + byte for byte in text.encode())
            whole += text
            if rng.random() < 0.5:
                answer.feed([word, space, letter])
                whole += " the a"
        assert answer.flush() == whole
        assert not any("\ufffd" in piece for piece in answer.pieces)


def test_tokens_without_text_do_not_break_the_character_after_them(tokenizer):
    answer = Answer(tokenizer.decode, [1], ignore_eos=True)
    answer.feed([tokenizer.hf.eos_token_id] * 40 + tokenizer.encode("𝔘𝔫𝔦"))
    assert answer.flush() == "𝔘𝔫𝔦"


def test_each_step_decodes_a_bounded_number_of_tokens():
    lengths = []

    def decode(token_ids, skip=True):
        lengths.append(len(token_ids))
        return "\ufffd" * len(token_ids)

    Answer(decode, [1] * 500).feed([2] * 500)
    assert max(lengths) < 40


def test_an_answer_that_begins_in_the_middle_of_a_word_keeps_its_spaces(tokenizer):
    answer = Answer(tokenizer.decode, tokenizer.encode("The capital of"))
    answer.feed(tokenizer.encode(" France is Paris"))
    assert answer.flush() == " France is Paris"


@pytest.mark.parametrize("stops", [("STOP",), ("S", "STOP"), ("xyz", "TOP!", "STOP"), ("ST", "OP")])
def test_no_part_of_a_stop_string_shows(stops):
    answer = Answer(letters, stop=stops)
    end = answer.feed(codes("say STOP! more"))
    text = "say STOP! more"
    at = min(text.find(stop) for stop in stops if stop in text)
    assert answer.text == text[:at]
    assert end.reason is FinishReason.STOP and end.stop in stops
    for number in range(1, len(answer.pieces) + 1):
        assert not any("".join(answer.pieces[:number]).endswith(stop[:1]) for stop in stops if stop in text)


def test_what_only_began_like_a_stop_string_comes_later():
    answer = Answer(letters, stop="STOP")
    answer.feed(codes("STO"))
    assert answer.text == ""
    answer.feed(codes("RE STO"))
    assert answer.text == "STORE "
    assert answer.flush() == "STORE STO"


def test_random_stop_strings_end_where_the_text_first_holds_one():
    rng = random.Random(1)
    for _ in range(500):
        stops = tuple("".join(rng.choices("ab", k=rng.randrange(1, 5))) for _ in range(rng.randrange(1, 3)))
        text = "".join(rng.choices("abc", k=12))
        answer = Answer(letters, stop=stops)
        end = answer.feed(codes(text))
        found = next((n for n in range(len(text) + 1) if any(stop in text[:n] for stop in stops)), None)
        if found is None:
            assert end is None and answer.flush() == text
        else:
            assert answer.text == text[: min(text[:found].find(stop) for stop in stops if stop in text[:found])]
            assert len(answer.pieces) == found
            assert end.stop in stops


def test_a_stop_string_inside_one_token_cuts_it():
    answer = Answer(lambda ids, skip: "".join("one two three" if i == 5 else "" for i in ids), stop="two")
    assert answer.feed([5]).stop == "two"
    assert answer.text == "one "


def test_a_stop_string_of_parts_of_characters_is_found_when_they_are_whole(tokenizer):
    answer = Answer(tokenizer.decode, stop="😀")
    end = answer.feed(tokenizer.encode("ab😀c"))
    assert (answer.text, end.stop) == ("ab", "😀")


def test_no_stop_before_min_tokens():
    answer = Answer(letters, stop=("b",), stop_token_ids=[ord("c")], min_tokens=4)
    end = answer.feed([*codes("abc"), *codes("ab")])
    assert (answer.text, end.stop, len(answer.pieces)) == ("abca", "b", 5)


def test_a_stop_token_gives_no_text_and_is_named():
    answer = Answer(letters, stop_token_ids=[ord("c")], stop=("abx",))
    end = answer.feed(codes("abc"))
    assert (answer.text, end.reason, end.stop) == ("ab", FinishReason.STOP, ord("c"))


def test_the_models_own_end_is_not_named_and_can_be_ignored():
    answer = Answer(letters)
    end = answer.feed([*codes("a"), EOS])
    assert (answer.text, end.reason, end.stop) == ("a", FinishReason.STOP, None)
    answer = Answer(letters, ignore_eos=True)
    assert answer.feed([*codes("a"), EOS, *codes("b")]) is None
    assert answer.flush() == "ab"


def test_special_tokens_show_where_they_are_wanted():
    answer = Answer(letters, ignore_eos=True, skip_special_tokens=False)
    answer.feed([*codes("a"), EOS, *codes("b")])
    assert answer.flush() == "a</s>b"


def test_the_last_token_gives_what_was_held_back():
    answer = Answer(letters, max_tokens=3, stop="cd")
    end = answer.feed(codes("abc"))
    assert (answer.text, end.reason) == ("abc", FinishReason.LENGTH)


def test_a_stop_string_that_the_last_bytes_complete_is_found_at_the_end():
    def decode(token_ids, skip=True):
        return "x\ufffd" if len(token_ids) > 1 else ""

    answer = Answer(decode, max_tokens=1, stop="\ufffd")
    end = answer.feed([2])
    assert (answer.text, end.reason, end.stop) == ("x", FinishReason.STOP, "\ufffd")


def test_tokens_in_flight_keep_a_full_answer_open():
    answer = Answer(letters, max_tokens=2)
    answer.sequence.num_pending_tokens = 1
    assert answer.feed(codes("a")) is None
    answer.sequence.num_pending_tokens = 0
    assert answer.feed(codes("b")).reason is FinishReason.LENGTH
