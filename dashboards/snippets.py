"""Calls of an endpoint, ready to be pasted. Plain text; a key is named by its variable, never written in."""

from __future__ import annotations

import json
from dataclasses import dataclass

__all__ = ["Snippets", "snippets_of"]


@dataclass(frozen=True)
class Snippets:
    """The same question in three ways; the key is taken from WORKBENCH_API_KEY."""

    curl: str
    openai: str
    langchain: str


def snippets_of(url: str, model: str) -> Snippets:
    """Snippets for the endpoint at `url` (which ends in /v1)."""
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Say hello."}]})
    return Snippets(
        curl=(
            f"curl {url}/chat/completions \\\n"
            '  -H "Authorization: Bearer $WORKBENCH_API_KEY" \\\n'
            '  -H "Content-Type: application/json" \\\n'
            f"  -d {_quoted(body)}"
        ),
        openai=(
            "import os\nfrom openai import OpenAI\n\n"
            f'client = OpenAI(base_url="{url}", api_key=os.environ["WORKBENCH_API_KEY"])\n'
            "reply = client.chat.completions.create(\n"
            f'    model={json.dumps(model)}, messages=[{{"role": "user", "content": "Say hello."}}]\n'
            ")\nprint(reply.choices[0].message.content)"
        ),
        langchain=(
            "import os\nfrom langchain_openai import ChatOpenAI\n\n"
            f'chat = ChatOpenAI(base_url="{url}", api_key=os.environ["WORKBENCH_API_KEY"], model={json.dumps(model)})\n'
            'print(chat.invoke("Say hello.").content)'
        ),
    )


def _quoted(text: str) -> str:
    """For a POSIX shell."""
    return "'" + text.replace("'", "'\\''") + "'"
