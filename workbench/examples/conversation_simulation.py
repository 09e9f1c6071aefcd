"""Lets a model talk with itself: two roles of a scenario, each by its own instructions."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from workbench.errors import RequestError
from workbench.examples.answers import ask_all

if TYPE_CHECKING:
    from workbench.llm import LlamaGPU

__all__ = ["SCENARIOS", "ConversationSimulator", "Scenario"]


@dataclass(frozen=True)
class Scenario:
    """Two roles with a sentence on what each does, and the words that open the conversation."""

    first: str
    first_task: str
    second: str
    second_task: str
    opening: str


SCENARIOS = MappingProxyType(
    {
        "customer_support": Scenario(
            "Customer", "You have a problem with an order and want it solved.",
            "Agent", "You work in customer support, help politely and ask for what you need to know.",
            "Hello, my order has not arrived yet.",
        ),
        "interview": Scenario(
            "Interviewer", "You interview somebody for a job and ask one question at a time.",
            "Candidate", "You apply for the job and answer briefly and honestly.",
            "Thank you for coming. Why do you want this job?",
        ),
        "therapy": Scenario(
            "Client", "You talk about what troubles you.",
            "Therapist", "You listen, ask open questions and never judge.",
            "I have not been sleeping well lately.",
        ),
        "teaching": Scenario(
            "Student", "You want to understand and ask when you do not.",
            "Teacher", "You explain step by step, with simple examples.",
            "Can you explain how plants make food?",
        ),
        "negotiation": Scenario(
            "Buyer", "You want a lower price and give reasons.",
            "Seller", "You want a fair price and offer small concessions.",
            "Your price is higher than we expected.",
        ),
    }
)  # fmt: skip


class ConversationSimulator:
    """Simulates conversations; both sides are the same model with other instructions."""

    def __init__(self, llm: LlamaGPU, max_tokens_per_turn: int = 64, temperature: float = 0.7) -> None:
        self._llm = llm
        self._sampling = {"max_tokens": max_tokens_per_turn, "temperature": temperature}

    def simulate_conversation(
        self, scenario: str, turns: int = 10, context: str = "", seed: int | None = None
    ) -> dict[str, Any]:
        """{scenario, turns, context, conversation, total_tokens, simulation_time, tokens_per_second, backend,
        gpu_used}; a turn is {speaker, text}, and the first one is the scenario's opening."""
        return self.batch_simulate([scenario], turns, context, seed)[0]

    def batch_simulate(
        self, scenarios: Sequence[str], turns: int = 10, context: str = "", seed: int | None = None
    ) -> list[dict[str, Any]]:
        """The same for several scenarios at once: each turn of all of them is one batch."""
        if turns < 1:
            raise RequestError(f"turns={turns}: must be at least 1")
        talks = [_Talk(name, _known(name), context) for name in scenarios]
        tokens, started_s = [0] * len(talks), time.perf_counter()
        for turn in range(1, turns):
            seeded = {} if seed is None else {"seed": seed + turn}
            requests = [{"messages": talk.messages(), **self._sampling, **seeded} for talk in talks]
            for index, completion in enumerate(ask_all(self._llm, requests)):
                talks[index].add(completion.text)
                tokens[index] += completion.timings.num_generated_tokens
        seconds = time.perf_counter() - started_s
        return [
            {
                "scenario": talk.name,
                "turns": turns,
                "context": context,
                "conversation": talk.said,
                "total_tokens": count,
                "simulation_time": round(seconds, 3),
                "tokens_per_second": round(count / seconds, 2) if seconds else 0.0,
                "backend": self._llm.backend.name,
                "gpu_used": self._llm.backend.device_type != "cpu",
            }
            for talk, count in zip(talks, tokens, strict=True)
        ]


def _known(name: str) -> Scenario:
    if name not in SCENARIOS:
        raise RequestError(f"scenario={name!r}: use one of {', '.join(SCENARIOS)}")
    return SCENARIOS[name]


class _Talk:
    """One conversation and whose turn it is."""

    def __init__(self, name: str, scenario: Scenario, context: str) -> None:
        self.name = name
        self._scenario = scenario
        self._context = context
        self.said = [{"speaker": scenario.first, "text": scenario.opening}]

    def messages(self) -> list[dict[str, str]]:
        """What the next speaker sees: its own words are the assistant's, the other's the user's."""
        scenario = self._scenario
        is_first = len(self.said) % 2 == 0
        role, task = (scenario.first, scenario.first_task) if is_first else (scenario.second, scenario.second_task)
        instructions = f"You are the {role.lower()}. {task} Say one or two sentences. {self._context}".strip()
        turns = [
            {"role": "assistant" if turn["speaker"] == role else "user", "content": turn["text"]} for turn in self.said
        ]
        return [{"role": "system", "content": instructions}, *turns]

    def add(self, text: str) -> None:
        speaker = self._scenario.first if len(self.said) % 2 == 0 else self._scenario.second
        # A turn without a word would leave the other side nothing to answer.
        self.said.append({"speaker": speaker, "text": text.strip() or "..."})
