from workbench.distributed.joined_status import JoinedStatus
from workbench.engine.runner_status import MEANWHILE, RunnerStatus

COPIES = "2 replicas (round_robin)"


def test_replicas_compute_provisionally_until_the_last_one_is_ready() -> None:
    first, second = RunnerStatus(f"{MEANWHILE}1 of 2"), RunnerStatus(f"{MEANWHILE}0 of 2")
    joined = JoinedStatus(COPIES)
    joined.follow(0, first)
    joined.follow(1, second)
    assert joined.status.words == f"{MEANWHILE}1 of 2, in one of {COPIES}"

    first.words = "captured graphs"
    assert joined.status.words == f"{MEANWHILE}0 of 2, in one of {COPIES}"
    assert not joined.status.wait_until_final(0)

    second.words = "captured graphs"
    assert joined.status.words == f"{COPIES} of captured graphs"
    assert joined.status.wait_until_final(0)


def test_a_replica_that_is_started_anew_counts_by_what_it_says_now() -> None:
    stuck = RunnerStatus(f"{MEANWHILE}1 of 2")
    joined = JoinedStatus(COPIES)
    joined.follow(0, RunnerStatus("captured graphs"))
    joined.follow(1, stuck)
    assert joined.status.is_provisional

    joined.follow(1, RunnerStatus("captured graphs"))
    assert not joined.status.is_provisional


def test_a_replica_that_has_died_is_not_waited_for() -> None:
    dead, alive = RunnerStatus(f"{MEANWHILE}1 of 2"), RunnerStatus("captured graphs")
    joined = JoinedStatus(COPIES)
    joined.follow(0, dead)
    joined.follow(1, alive)
    dead.end()
    assert joined.status.wait_until_final(60) and joined.status.words == f"{COPIES} of captured graphs"

    alive.end()
    assert joined.status.has_ended
    joined.follow(0, RunnerStatus(f"{MEANWHILE}0 of 2"))
    assert joined.status.is_provisional
