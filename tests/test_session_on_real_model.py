"""The session on the real `LlamaGPU` and the embedded model."""

from __future__ import annotations

import pytest

from workbench.session import LoadChoice, Session, SessionState

_LIMIT_S = 120


@pytest.fixture
def session(home_with_embedded_model):
    with Session() as session:
        yield session


def test_cancel_load_chat_and_unload(session):
    progress = []

    def cancel_at_first_weights(status):
        if status.progress is not None:
            progress.append(status.progress)
            session.cancel()

    forget = session.observe(cancel_at_first_weights)
    session.load(LoadChoice("default", "cpu", "fp32"))
    status = session.wait(_LIMIT_S)
    assert progress
    assert (status.state, status.failure) == (SessionState.EMPTY, None)
    forget()

    session.load(LoadChoice("default", "cpu", "fp32", context_length=512))
    status = session.wait(_LIMIT_S)
    assert status.state is SessionState.READY
    assert (status.facts.backend, status.facts.precision, status.facts.max_context) == ("cpu", "fp32", 512)
    reply = session.submit(messages="What is the capital of France?", max_tokens=16)
    assert "Paris" in "".join(chunk.text for chunk in reply)
    assert session.stats().generated_tokens_total > 0

    session.unload()
    status = session.wait(_LIMIT_S)
    # The weights: the KV pool takes memory only where it was used.
    assert status.freed_bytes["cpu"] > 200_000_000
    assert session.stats() is None


@pytest.mark.parametrize(
    ("choice", "kind"),
    [
        (LoadChoice("/no/such/folder"), "ModelNotFoundError"),
        (LoadChoice("default", precision="int3"), "ConfigError"),
        (LoadChoice("default", backend="tpu"), "ConfigError"),
    ],
)
def test_what_cannot_be_loaded_is_told_with_a_next_step(session, choice, kind):
    session.load(choice)
    status = session.wait(_LIMIT_S)
    assert (status.state, status.failure.kind) == (SessionState.FAILED, kind)
    assert status.failure.next_step
