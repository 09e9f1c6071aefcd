"""Chats as values: the tree of messages, presets, context figures, token heat maps. For every surface; knows none."""

from __future__ import annotations

from workbench.conversation.agreement import Agreement, agreement
from workbench.conversation.archive import (
    archive_of_texts,
    conversation_text,
    export_conversations,
    import_conversations,
)
from workbench.conversation.context_use import ContextUse, measure_context
from workbench.conversation.conversation import Conversation, Versions
from workbench.conversation.message import Message, MessageStatus, ToolStep
from workbench.conversation.preset import Preset, export_presets, import_presets
from workbench.conversation.preset_shelf import BUILT_IN_PRESETS, PresetShelf, default_preset_shelf
from workbench.conversation.reasoning import REASONING_TAGS, ReplyPart, split_reasoning
from workbench.conversation.reply_figures import ReplyFigures
from workbench.conversation.text_score import score_text
from workbench.conversation.token_heat import Alternative, ScoredToken, perplexity, scored_tokens

__all__ = [
    "BUILT_IN_PRESETS",
    "REASONING_TAGS",
    "Agreement",
    "Alternative",
    "ContextUse",
    "Conversation",
    "Message",
    "MessageStatus",
    "Preset",
    "PresetShelf",
    "ReplyFigures",
    "ReplyPart",
    "ScoredToken",
    "ToolStep",
    "Versions",
    "agreement",
    "archive_of_texts",
    "conversation_text",
    "default_preset_shelf",
    "export_conversations",
    "export_presets",
    "import_conversations",
    "import_presets",
    "measure_context",
    "perplexity",
    "score_text",
    "scored_tokens",
    "split_reasoning",
]
