"""Text to token ids and back, and chat messages to ids, for one model. Wraps transformers' fast tokenizer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import ModelFormatError, RequestError
from workbench.models.spec import read_json_object

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["Tokenizer", "load_tokenizer"]

# The names of one class, in transformers 5 and before; and the model types for which AutoTokenizer takes its word.
_GENERIC_CLASSES = ("TokenizersBackend", "PreTrainedTokenizerFast")
_GENERIC_MODEL_TYPES = ("llama", "qwen3")


class Tokenizer:
    """One model's tokenizer. Safe to share between threads as long as nobody changes `hf`.

    `hf` is the transformers tokenizer; `eos_token_ids` are all ids after which the model has said its piece, from
    the generation defaults, the config and the tokenizer itself; `vocab_size` counts ids the tokenizer can produce.
    """

    def __init__(self, hf: PreTrainedTokenizerBase, eos_token_ids: Iterable[int]) -> None:
        self.hf = hf
        self.eos_token_ids = frozenset(eos_token_ids)
        self.vocab_size = len(hf)
        self._backend = getattr(hf, "backend_tokenizer", None)

    @property
    def has_chat_template(self) -> bool:
        """Whether the model says how a conversation is written."""
        return bool(self.hf.chat_template)

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Token ids of `text`; with special tokens the way this model's own tokenizer adds them (BOS or none).

        Raises `RequestError` for what is no text: half of a surrogate pair.
        """
        _check_text(text)
        # Whether it fits is for the engine to say, which knows the context that it was given: no warning about it.
        token_ids: list[int] = self.hf.encode(text, add_special_tokens=add_special_tokens, verbose=False)
        return token_ids

    def decode(self, token_ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """Text of `token_ids`, exactly as they spell it."""
        # The engine calls this for every token: transformers' own decode spends five times as long around this call.
        if self._backend is not None:
            return str(self._backend.decode(list(token_ids), skip_special_tokens=skip_special_tokens))
        text = self.hf.decode(
            list(token_ids), skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False
        )
        # Several sequences would give a list.
        assert isinstance(text, str)
        return text

    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
    ) -> list[int]:
        """Token ids of a conversation, ready for the model's answer.

        With `continue_final_message` the last message is left open and the model goes on writing it. Raises
        `RequestError` when the model has no chat template, a message is malformed or the template refuses them.
        """
        text = self.render_chat(messages, add_generation_prompt, continue_final_message)
        return self.encode(text, add_special_tokens=False)

    def render_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
    ) -> str:
        """The conversation as the text that the model sees; parameters and errors as `apply_chat_template`."""
        from jinja2 import TemplateError

        if not self.has_chat_template:
            raise RequestError(
                "this model has no chat template, so it cannot take messages: give it a prompt, "
                "or load a model trained for chat (often named 'instruct' or 'chat')"
            )
        conversation = _checked_messages(messages)
        try:
            text = self.hf.apply_chat_template(
                conversation,
                tokenize=False,
                add_generation_prompt=add_generation_prompt and not continue_final_message,
                continue_final_message=continue_final_message,
            )
        # The sandbox refuses some arithmetic, such as endless ranges, in words of its own.
        except (TemplateError, ArithmeticError) as error:
            raise RequestError(f"the model's chat template refuses these messages: {error}") from error
        except ValueError as error:
            raise RequestError(f"messages: {error}") from error
        # One conversation, not tokenised.
        assert isinstance(text, str)
        return text

    def id_to_token(self, token_id: int) -> str:
        """The vocabulary's own spelling of one id. Raises `RequestError` for an id outside the vocabulary."""
        token = self.hf.convert_ids_to_tokens(token_id) if 0 <= token_id < self.vocab_size else None
        if token is None:
            raise RequestError(f"token id {token_id} is outside the vocabulary (0 to {self.vocab_size - 1})")
        # A list of ids would give a list.
        assert isinstance(token, str)
        return token


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RequestError(
            f"the text has half of a surrogate pair at position {error.start} ({text[error.start]!r}), which is no "
            "character: decode it anew, or leave it out"
        ) from None


def load_tokenizer(folder: Path, *, trust_remote_code: bool = False) -> Tokenizer:
    """The tokenizer of a model folder. Raises `ModelFormatError` when it cannot be built from the files."""
    failure = None
    hf: PreTrainedTokenizerBase | None = None
    try:
        hf = _of_generic_class(folder)
        if hf is None:
            from transformers import AutoTokenizer

            hf = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=trust_remote_code)
    # Boundary: the tokenizer's files decide which of transformers' many errors comes out.
    except Exception as error:
        failure = f"the tokenizer in {folder} cannot be loaded, its files are damaged or of another kind: "
        failure += f"{type(error).__name__}: {_first_line(error)}"
    if failure or hf is None:
        raise ModelFormatError(failure or f"there is no tokenizer in {folder}")
    return Tokenizer(hf, _eos_token_ids(folder, hf.eos_token_id))


def _of_generic_class(folder: Path) -> PreTrainedTokenizerBase | None:
    """The tokenizer where the files name the class that reads tokenizer.json as it is, which AutoTokenizer would choose
    too: so neither torch nor transformers' configs are imported. None for every other."""
    files = [folder / name for name in ("tokenizer_config.json", "tokenizer.json", "config.json")]
    if not all(file.is_file() for file in files):
        return None
    settings = read_json_object(files[0])
    if settings.get("tokenizer_class") not in _GENERIC_CLASSES or "auto_map" in settings:
        return None
    if read_json_object(files[2]).get("model_type") not in _GENERIC_MODEL_TYPES:
        return None
    from transformers import PreTrainedTokenizerFast

    hf: PreTrainedTokenizerBase = PreTrainedTokenizerFast.from_pretrained(str(folder), local_files_only=True)
    return hf


def _eos_token_ids(folder: Path, tokenizer_eos: int | list[int] | None) -> set[int]:
    found = _as_ids(tokenizer_eos)
    for name in ("generation_config.json", "config.json"):
        content = read_json_object(folder / name) if (folder / name).is_file() else {}
        found |= _as_ids(content.get("eos_token_id"))
        text_config = content.get("text_config")
        found |= _as_ids(text_config.get("eos_token_id") if isinstance(text_config, dict) else None)
    return found


def _as_ids(value: Any) -> set[int]:
    values = value if isinstance(value, list) else [value]
    return {token_id for token_id in values if isinstance(token_id, int) and token_id >= 0}


def _checked_messages(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Sequence) or not messages:
        raise RequestError("messages must be a non-empty list of {'role': ..., 'content': ...}")
    return [_checked_message(index, message) for index, message in enumerate(messages)]


def _checked_message(index: int, message: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise RequestError(f"messages[{index}] must be a mapping with 'role' and 'content', got {message!r}")
    for field in ("role", "content"):
        if not isinstance(message.get(field), str):
            raise RequestError(f"messages[{index}][{field!r}] must be text, got {message.get(field)!r}")
    return dict(message)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "")
