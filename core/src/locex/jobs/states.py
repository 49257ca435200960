"""The state machine of jobs."""

from __future__ import annotations

from locex.schemas.record import JobState as S

_ENDS = {S.FAILED, S.STOPPED, S.INTERRUPTED}

TRANSITIONS: dict[S, frozenset[S]] = {
    S.QUEUED: frozenset({S.CONFIGURING} | _ENDS),
    S.CONFIGURING: frozenset({S.PREPARING} | _ENDS),
    S.PREPARING: frozenset({S.WAITING} | _ENDS),
    S.WAITING: frozenset({S.TRAINING, S.EVALUATING, S.FINISHED} | _ENDS),
    S.TRAINING: frozenset({S.WAITING, S.EVALUATING, S.FINISHED} | _ENDS),
    S.EVALUATING: frozenset({S.WAITING, S.TRAINING, S.FINISHED} | _ENDS),
    S.INTERRUPTED: frozenset({S.QUEUED, S.FAILED, S.STOPPED}),
    S.FINISHED: frozenset(),
    S.FAILED: frozenset(),
    S.STOPPED: frozenset(),
}
"""From each state, the states that may follow."""

ACTIVE = tuple(state for state in S if not state.over)
"""The states of jobs that are not over."""


class ForbiddenTransition(Exception):
    """A change of state that the table does not have."""


def check(current: S, following: S) -> None:
    """Raise `ForbiddenTransition` unless the table allows the change."""
    if following not in TRANSITIONS[current]:
        raise ForbiddenTransition(f"a job that is {current.value} cannot become {following.value}")
