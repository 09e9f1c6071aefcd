import subprocess
import sys
from pathlib import Path

import pytest
from model_folders import copy_folder, edit_json

from workbench.errors import ModelFormatError, RequestError
from workbench.models.byte_tokenizer import make_byte_tokenizer
from workbench.models.tokenizer import Tokenizer, _of_generic_class, load_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return make_byte_tokenizer(512)


@pytest.fixture
def folder(tiny_model_folder: Path, tmp_path: Path) -> Path:
    return copy_folder(tiny_model_folder, tmp_path / "model")


@pytest.mark.parametrize("text", ["", "Hello, world", "  two  blanks ", "naïve 日本語 🤗\n\t"])
def test_text_comes_back(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)

    assert len(ids) == len(text.encode())
    assert tokenizer.decode(ids) == text


def test_every_id_decodes_and_no_two_are_spelled_alike(tokenizer: Tokenizer) -> None:
    spellings = {tokenizer.id_to_token(i) for i in range(512)}

    assert tokenizer.vocab_size == len(spellings) == 512
    assert tokenizer.decode([511]).startswith(" ")


def test_special_tokens_are_left_out_on_request(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("<|im_start|>a<|im_end|>")

    assert len(ids) == 3
    assert tokenizer.decode(ids) == "a"
    assert tokenizer.decode(ids, skip_special_tokens=False) == "<|im_start|>a<|im_end|>"


@pytest.mark.parametrize("token_id", [-1, 512, 10**9])
def test_an_id_outside_the_vocabulary_is_named(tokenizer: Tokenizer, token_id: int) -> None:
    with pytest.raises(RequestError, match=rf"token id {token_id} is outside the vocabulary \(0 to 511\)"):
        tokenizer.id_to_token(token_id)


def test_a_conversation_is_written_by_the_template(tokenizer: Tokenizer) -> None:
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]

    def text(**options: bool) -> str:
        return tokenizer.decode(tokenizer.apply_chat_template(messages, **options), skip_special_tokens=False)

    closed = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n"
    assert text(add_generation_prompt=False) == closed
    assert text() == closed + "<|im_start|>assistant\n"
    assert text(continue_final_message=True) == closed.removesuffix("<|im_end|>\n")


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "messages must be a non-empty list"),
        ("Hi", "messages must be a non-empty list"),
        ({"role": "user", "content": "Hi"}, "messages must be a non-empty list"),
        (["Hi"], r"messages\[0\] must be a mapping"),
        ([{"content": "Hi"}], r"messages\[0\]\['role'\] must be text, got None"),
        ([{"role": "user", "content": "a"}, {"role": "user", "content": 3}], r"messages\[1\]\['content'\].*got 3"),
    ],
)
def test_malformed_messages_are_refused(tokenizer: Tokenizer, messages: object, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        tokenizer.apply_chat_template(messages)


def test_a_model_without_template_says_what_to_do(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    tokenizer = load_tokenizer(folder)

    assert not tokenizer.has_chat_template
    with pytest.raises(RequestError, match="no chat template, so it cannot take messages: give it a prompt"):
        tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}])


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('roles must alternate') }}", "refuses these messages: roles must alternate"),
        ("{% for %}", "refuses these messages"),
        ("{{ ''.__class__.__mro__ }}", "refuses these messages: .*unsafe"),
    ],
)
def test_what_the_template_refuses_is_the_requests_error(folder: Path, template: str, message: str) -> None:
    (folder / "chat_template.jinja").write_text(template)

    with pytest.raises(RequestError, match=message):
        load_tokenizer(folder).apply_chat_template([{"role": "user", "content": "Hi"}])


def test_all_ends_are_gathered(folder: Path) -> None:
    edit_json(folder / "config.json", eos_token_id=7, text_config={"eos_token_id": 8})
    edit_json(folder / "generation_config.json", eos_token_id=[9, 10])

    tokenizer = load_tokenizer(folder)

    assert tokenizer.eos_token_ids == {tokenizer.hf.eos_token_id, 7, 8, 9, 10}


def test_a_beginning_is_added_the_way_the_model_does(folder: Path) -> None:
    tokenizer = load_tokenizer(folder)
    plain = tokenizer.encode("a")
    from tokenizers.processors import TemplateProcessing

    tokenizer.hf.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", 1)]
    )
    tokenizer.hf.save_pretrained(folder)
    tokenizer = load_tokenizer(folder)

    assert tokenizer.encode("a") == [1, *plain]
    assert tokenizer.encode("a", add_special_tokens=False) == plain
    # The template writes the beginning itself.
    assert tokenizer.apply_chat_template([{"role": "user", "content": "a"}])[:2].count(1) == 1


def test_a_damaged_tokenizer_is_a_format_error(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"version": "1.0"')

    with pytest.raises(ModelFormatError, match=f"the tokenizer in {folder} cannot be loaded, its files"):
        load_tokenizer(folder)


# In a process of its own, where nothing has imported torch yet.
GENERIC = """
import pathlib, sys
from workbench.models.tokenizer import load_tokenizer
tokenizer = load_tokenizer(pathlib.Path(sys.argv[1]))
assert "torch" not in sys.modules
from transformers import AutoTokenizer
reference = AutoTokenizer.from_pretrained(sys.argv[1])
assert type(tokenizer.hf) is type(reference)
assert tokenizer.hf.backend_tokenizer.to_str() == reference.backend_tokenizer.to_str()
assert tokenizer.hf.special_tokens_map == reference.special_tokens_map
assert tokenizer.hf.chat_template == reference.chat_template
text = "naïve 日本語 <|im_start|> 12 apples"
assert tokenizer.encode(text) == reference.encode(text)
"""


def test_the_generic_class_is_read_without_torch_as_autotokenizer_reads_it(embedded_model_folder: Path) -> None:
    subprocess.run([sys.executable, "-c", GENERIC, str(embedded_model_folder)], check=True)


def test_another_class_is_left_to_autotokenizer(folder: Path) -> None:
    assert _of_generic_class(folder) is not None
    edit_json(folder / "config.json", model_type="mistral")
    assert _of_generic_class(folder) is None
    edit_json(folder / "config.json", model_type="llama")
    edit_json(folder / "tokenizer_config.json", tokenizer_class="LlamaTokenizer")
    assert _of_generic_class(folder) is None
