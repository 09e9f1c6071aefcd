"""What a client needs to call an endpoint, ready to paste. The key is read from a variable and never written out."""

from __future__ import annotations

import shlex

__all__ = ["KEY_VARIABLE", "TOKEN_VARIABLE", "client_snippets", "masked"]

KEY_VARIABLE = "WORKBENCH_API_KEY"
# Jupyter's own name for it.
TOKEN_VARIABLE = "JUPYTER_TOKEN"
_DOTS = "\u2022" * 8


def masked(key: str | None) -> str:
    """The ends of a key, enough to tell two apart and too little to use one."""
    if key is None:
        return "no key needed"
    return _DOTS if len(key) < 16 else f"{key[:3]}{_DOTS}{key[-3:]}"


def client_snippets(
    base_url: str, model: str, *, needs_key: bool = True, through_jupyter: bool = False
) -> dict[str, str]:
    """A first call of `model` at `base_url` (ending in /v1): for a shell, openai's package and LangChain.

    `through_jupyter` sends what Jupyter's proxy wants: a token of Jupyter's, which is read from a variable, and the
    word by which it knows that an answer is a stream.
    """
    authorization = f' -H "Authorization: Bearer ${KEY_VARIABLE}"' if needs_key else ""
    body = f'{{"model": "{model}", "messages": [{{"role": "user", "content": "Hello"}}], "stream": true}}'
    key = f'os.environ["{KEY_VARIABLE}"]' if needs_key else '"none"'
    address, query = shlex.quote(base_url + "/chat/completions"), ""
    if through_jupyter:
        # The shell puts the variable in.
        address += f'"?token=${TOKEN_VARIABLE}" -H "Accept: text/event-stream"'
        query = (
            f',\n    default_query={{"token": os.environ["{TOKEN_VARIABLE}"]}},'
            '\n    default_headers={"Accept": "text/event-stream"},\n'
        )
    return {
        "curl": (f"curl -N {address}{authorization} -H 'Content-Type: application/json' \\\n  -d {shlex.quote(body)}"),
        "openai": (
            f"import os\nfrom openai import OpenAI\n\n"
            f"client = OpenAI(base_url={base_url!r}, api_key={key}{query})\n"
            f'messages = [{{"role": "user", "content": "Hello"}}]\n'
            f"for chunk in client.chat.completions.create(model={model!r}, messages=messages, stream=True):\n"
            f'    print(chunk.choices[0].delta.content or "", end="")'
        ),
        "langchain": (
            f"import os\nfrom langchain_openai import ChatOpenAI\n\n"
            f"llm = ChatOpenAI(base_url={base_url!r}, api_key={key}, model={model!r}{query})\n"
            f'print(llm.invoke("Hello").content)'
        ),
    }
