"""Steps as ints: what there must be room for."""

from __future__ import annotations

import numpy as np
from engine.fake_runner import make_limits

from workbench.engine.sampling_params import SamplingParams
from workbench.engine.scheduler import Scheduler
from workbench.engine.sequence import Sequence
from workbench.engine.step_packer import StepKind, StepPacker, StepShapes


def add(scheduler: Scheduler, *prompts: list[int]) -> None:
    for prompt in prompts:
        params = SamplingParams(max_tokens=30, temperature=1.0)
        scheduler.add(Sequence("r", 0, list(prompt), len(prompt), params, 0, frozenset(), 100))


def test_guesses_beside_many_short_prompts_have_room_for_every_choice() -> None:
    limits = make_limits(
        max_num_seqs=12, max_num_batched_tokens=64, max_prompt_tokens_beside_decodes=64, num_blocks=200,
        max_context=100, draft_tokens=3, draft_rows=8, enable_prefix_caching=False,
    )  # fmt: skip
    scheduler, shapes = Scheduler(limits), StepShapes.of(limits)
    add(scheduler, [1, 2, 3, 1, 2], [2, 3, 1, 2, 3])
    first = scheduler.schedule()
    scheduler.commit(first)
    for item in first.items:
        # The text repeats itself, so its next tokens are guessed.
        item.sequence.token_ids.append(item.sequence.token_ids[-3])
    add(scheduler, *[[7, 8]] * 10)
    plan = scheduler.schedule()
    choices = sum(item.num_choices for item in plan.items)
    assert plan.num_drafts > 0 and choices > limits.max_num_seqs
    step, _ = StepPacker(shapes, pinned=False).pack(plan)
    assert step.kind is StepKind.MIXED and step.num_sampled == choices <= shapes.max_choices
    layout = shapes.layouts[StepKind.MIXED]
    at = 6 * layout.max_tokens
    table = step.ints.numpy()[at : at + 5 * layout.max_choices].view(np.float32).reshape(-1, 5)
    assert (table[:choices, 0] == 1.0).all() and (table[choices:, 0] == 0.0).all()


def test_steps_with_guesses_have_places_only_where_there_are_some() -> None:
    without, with_guesses = (StepShapes.of(make_limits(draft_tokens=count, max_num_seqs=40)) for count in (0, 3))
    assert StepKind.GUESSES not in without.layouts and StepKind.GUESSES not in without.captured_sizes
    layout = with_guesses.layouts[StepKind.GUESSES]
    assert with_guesses.captured_sizes[StepKind.GUESSES][-1] == layout.max_tokens == layout.max_seqs == 32
    assert layout.max_table < with_guesses.layouts[StepKind.DECODES].max_table
