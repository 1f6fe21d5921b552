"""Shares of the traffic, by users."""

from __future__ import annotations

import math

import pytest

from tunesmith.serve.arms import Route, choose_arm, sticky_key

USERS = [f"user:{number}" for number in range(10_000)]


def users_of(ref: str, arms: dict[str, float]) -> set[str]:
    return {user for user in USERS if choose_arm(arms, key=user) == ref}


def about(share: float) -> object:
    """So many of the users, up to five standard deviations of the binomial."""
    return pytest.approx(share * len(USERS), abs=5 * math.sqrt(len(USERS) * share * (1 - share)))


@pytest.mark.parametrize("arms", [{"m@1": 0.95, "m@2": 0.05}, {"m@1": 0.5, "m@2": 0.3, "m@3": 0.2}, {"m@1": 0.999, "m@2": 0.001}])
def test_every_version_has_its_share_of_the_users(arms: dict[str, float]) -> None:
    found = {ref: len(users_of(ref, arms)) for ref in arms}
    assert found == {ref: about(share) for ref, share in arms.items()}
    assert sum(found.values()) == len(USERS)


def test_a_share_that_grows_keeps_its_users_and_takes_only_what_it_needs() -> None:
    before, after = users_of("m@2", {"m@1": 0.95, "m@2": 0.05}), users_of("m@2", {"m@1": 0.9, "m@2": 0.1})
    assert before < after
    assert len(after - before) == about(0.05)


def test_with_more_versions_users_move_only_to_the_one_that_grows_and_from_the_one_that_shrinks() -> None:
    before, after = {"m@1": 0.8, "m@2": 0.1, "m@3": 0.1}, {"m@1": 0.7, "m@2": 0.2, "m@3": 0.1}
    moves = {(choose_arm(before, key=user), choose_arm(after, key=user)) for user in USERS}
    assert moves <= {("m@1", "m@1"), ("m@2", "m@2"), ("m@3", "m@3"), ("m@1", "m@2"), ("m@3", "m@2"), ("m@1", "m@3")}
    assert len(users_of("m@3", before) - users_of("m@3", after)) < 0.02 * len(USERS)


def test_the_next_trial_meets_other_users() -> None:
    first, second = users_of("m@2", {"m@1": 0.9, "m@2": 0.1}), users_of("m@3", {"m@1": 0.9, "m@3": 0.1})
    # Not independent: who is fond of m@1 stays with it both times. Nothing like the same tenth.
    assert len(first & second) < 0.3 * len(first)


def test_the_order_in_which_versions_are_told_does_not_matter() -> None:
    arms = {"m@1": 0.5, "m@2": 0.3, "m@3": 0.2}
    assert all(choose_arm(arms, key=u) == choose_arm(dict(reversed(arms.items())), key=u) for u in USERS[:500])


def test_a_user_is_told_by_what_is_nearest_to_a_person() -> None:
    headers = [(b"x-session-id", b"s1"), (b"authorization", b"Bearer k1")]
    scope = {"type": "http", "headers": headers, "state": {"request_id": "r1"}}
    assert sticky_key(scope, user="ada") == "user:ada"
    assert sticky_key(scope) == "x-session-id:s1"
    assert sticky_key({**scope, "headers": headers[1:]}) == "authorization:Bearer k1"
    assert sticky_key({**scope, "headers": []}) == "request:r1"


def test_a_shadow_answers_nobody() -> None:
    route = Route("m@champion", "m@1", {"m@1": 1.0, "m@2": 0.0})
    assert (route.answering, route.shadows) == ({"m@1": 1.0}, ("m@2",))
