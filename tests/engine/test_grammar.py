"""Structures: what may come next, what is refused, and that compiling is bounded in time and memory."""

from __future__ import annotations

import json
import threading

import pytest
import torch

from workbench.engine import grammar
from workbench.engine.grammar import StructureCompiler, token_vocabulary
from workbench.engine.sampling_params import SamplingParams
from workbench.engine.structure import MAX_STRUCTURE_CHARS, StructureKind, StructureSpec
from workbench.errors import OverloadedError, RequestError
from workbench.models.tokenizer import load_tokenizer

BIT = {"type": "object", "properties": {"bit": {"enum": [0, 1]}}, "required": ["bit"], "additionalProperties": False}


@pytest.fixture(scope="module")
def tokenizer(embedded_model_folder):
    return load_tokenizer(embedded_model_folder)


@pytest.fixture(scope="module")
def vocabulary(tokenizer):
    return token_vocabulary(tokenizer, tokenizer.vocab_size, tokenizer.eos_token_ids)


@pytest.fixture
def compiler(vocabulary):
    return StructureCompiler(lambda: vocabulary)


def schema(value: object) -> StructureSpec:
    return StructureSpec(StructureKind.JSON_SCHEMA, json.dumps(value))


def test_every_token_on_the_way_is_allowed_and_the_end_is_known(compiler, tokenizer):
    matcher = compiler.matcher(schema(BIT))
    for token_id in tokenizer.encode('{"bit": 1}'):
        assert not matcher.is_complete
        assert matcher.allowed(tokenizer.vocab_size)[token_id]
        assert matcher.accept(token_id)
    assert matcher.is_complete
    assert matcher.error is None


def test_a_token_outside_the_structure_is_refused_with_a_reason(compiler, tokenizer):
    matcher = compiler.matcher(schema(BIT))
    (wrong,) = tokenizer.encode("x")
    assert not matcher.allowed(tokenizer.vocab_size)[wrong]
    assert not matcher.accept(wrong)
    assert matcher.error


def test_constrain_leaves_allowed_logits_alone_and_pads_rows_without_a_token(compiler, tokenizer):
    matcher = compiler.matcher(StructureSpec("regex", "[ab]"))
    logits = torch.arange(tokenizer.vocab_size + 8, dtype=torch.float32)
    before = logits.clone()
    matcher.constrain(logits)
    kept = [tokenizer.decode([i]) for i in torch.nonzero(logits.isfinite())[:, 0].tolist()]
    assert sorted(kept) == ["a", "b"]
    assert torch.equal(logits[logits.isfinite()], before[logits.isfinite()])


def test_the_structure_wins_where_everything_it_allows_was_forbidden(compiler, tokenizer):
    matcher = compiler.matcher(StructureSpec("regex", "[ab]"))
    logits = torch.full((tokenizer.vocab_size,), float("-inf"))
    matcher.constrain(logits)
    assert int(logits.isfinite().sum()) == 2


def test_a_grammar_may_be_lark_or_gbnf(compiler, tokenizer):
    for text in ('start: "a" | "b"', 'root ::= "a" | "b"'):
        matcher = compiler.matcher(StructureSpec("grammar", text))
        assert matcher.accept(tokenizer.encode("b")[0]) and matcher.is_complete


def test_matchers_of_one_structure_do_not_share_their_place(compiler, tokenizer):
    first, second = (compiler.matcher(StructureSpec("regex", "[ab]1")) for _ in range(2))
    (letter,), (digit,) = tokenizer.encode("a"), tokenizer.encode("1")
    assert first.accept(letter)
    assert first.allowed(tokenizer.vocab_size)[digit]
    assert not second.allowed(tokenizer.vocab_size)[digit]


@pytest.mark.parametrize(
    "spec",
    [
        schema({"type": "hiccup"}),
        schema({"type": "string", "pattern": "(unclosed"}),
        schema({"$ref": "#"}),
        schema({"$ref": "http://127.0.0.1:9/schema.json"}),
        schema({"$ref": "file:///etc/passwd"}),
        schema({"type": "array", "uniqueItems": True}),
        schema({"not": {"type": "string"}}),
        schema({"type": "integer", "minimum": 5, "maximum": 1}),
        schema(False),
        StructureSpec("json_schema", "{not json"),
        StructureSpec("regex", "(unclosed"),
        StructureSpec("regex", "(?=a)b"),
        StructureSpec("grammar", "nonsense"),
        StructureSpec("grammar", "start: start"),
        StructureSpec("grammar", "root ::= missing"),
    ],
    ids=lambda spec: spec.text[:40],
)
def test_what_cannot_be_enforced_is_refused_in_one_line(compiler, spec):
    with pytest.raises(RequestError) as caught:
        compiler.prepare(spec)
    assert str(caught.value).startswith(f"{spec.kind}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("spec", [schema({"$ref": "#"}), schema(False), StructureSpec("regex", r"[^\s\S]")])
def test_what_nothing_can_meet_is_said_so(compiler, spec):
    with pytest.raises(RequestError, match="it allows no answer at all"):
        compiler.prepare(spec)


def test_only_the_latest_structures_are_kept(vocabulary):
    compiler = StructureCompiler(lambda: vocabulary, max_compiled=4)
    for number in range(40):
        compiler.prepare(StructureSpec("regex", f"a{number}"))
    assert compiler.num_compiled == 4


@pytest.fixture
def slow_compiler(vocabulary, monkeypatch):
    """Makes a compiler whose work goes through a function of the test's first."""

    def make(work, **options) -> StructureCompiler:
        real = grammar._compiled
        monkeypatch.setattr(grammar, "_compiled", lambda spec, tokenizer: (work(), real(spec, tokenizer))[1])
        return StructureCompiler(lambda: vocabulary, **options)

    return make


def test_a_structure_that_takes_too_long_is_refused_and_does_not_block_the_next(slow_compiler):
    may_end = threading.Event()

    def compute() -> None:
        while not may_end.is_set():
            sum(range(1000))

    compiler = slow_compiler(compute, timeout_s=0.05)
    with pytest.raises(RequestError, match="longer than"):
        compiler.prepare(StructureSpec("regex", "a"))
    may_end.set()
    compiler.prepare(StructureSpec("regex", "b"))


def test_a_busy_machine_is_no_fault_of_the_structure(slow_compiler):
    """Waiting costs no processor time: what was not compiled in the end can be sent again, and is compiled then."""
    may_go_on = threading.Event()
    compiler = slow_compiler(lambda: may_go_on.wait(60), timeout_s=0.02)
    with pytest.raises(OverloadedError, match="too busy"):
        compiler.prepare(StructureSpec("regex", "a"))
    with pytest.raises(OverloadedError, match="too busy"):
        compiler.prepare(StructureSpec("regex", "b"))
    with pytest.raises(OverloadedError, match="too many"):
        compiler.prepare(StructureSpec("regex", "c"))
    may_go_on.set()
    for text in "abc":
        compiler.prepare(StructureSpec("regex", text))


@pytest.mark.parametrize(
    "make",
    [
        lambda: StructureSpec("xml", "a"),
        lambda: StructureSpec("regex", ""),
        lambda: StructureSpec("json_object", "{}"),
        lambda: StructureSpec("regex", "a" * (MAX_STRUCTURE_CHARS + 1)),
        lambda: SamplingParams(structure="json"),
        lambda: SamplingParams(structure=StructureSpec("regex", "a"), ignore_eos=True),
        lambda: SamplingParams(structure=StructureSpec("regex", "a"), min_tokens=3),
    ],
)
def test_a_wrong_structure_names_the_field(make):
    with pytest.raises(RequestError, match="structure"):
        make()
