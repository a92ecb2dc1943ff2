"""Whether calls are shared: on machines whose times are written down here, no calls take longer than alone."""

import itertools
import random

import pytest

from minimobile.execution import processors
from minimobile.execution.account import (
    EVERY,
    LEAST_REST,
    LIMIT,
    LOOKS,
    MOST_REST,
    RISK,
    UNPROVEN_REST,
    UNSEEN,
    WAKING,
    Account,
)

ALONE = 3e-4  # seconds


@pytest.fixture(autouse=True)
def processors_are_free(monkeypatch):
    monkeypatch.setattr(processors, "are_all_taken", lambda: False)


def run(account, calls, shared, alone=lambda: ALONE):
    """Make calls that take what `shared` and `alone` say; return their seconds, and how many were shared."""
    seconds, count = 0.0, 0
    for _ in range(calls):
        rests = account.rest > 0
        account.rest -= rests
        shares = not rests and account.to_share > 0
        taken = shared() if shares else alone()
        if not rests:
            account.note(taken, shares)
        seconds, count = seconds + taken, count + shares
    return seconds, count


def test_what_is_faster_is_shared_but_for_a_look_now_and_then():
    account = Account()
    _, count = run(account, 1000, lambda: ALONE / 2)
    assert count > 980
    assert run(account, 10 * (1 + EVERY), lambda: ALONE / 2)[1] == 10 * EVERY


def test_calls_begin_with_a_rest_where_no_processor_is_free(monkeypatch):
    monkeypatch.setattr(processors, "are_all_taken", lambda: True)
    account, rest = Account(), int(RISK * LEAST_REST / ALONE) + 1
    assert run(account, 1 + LOOKS + rest, lambda: ALONE / 2)[1] == 1
    assert run(account, 1000, lambda: ALONE / 2)[1] > 980


@pytest.mark.parametrize("slower", [1.0, 1.02, 1.1, 2.0, 30.0])
def test_what_is_slower_costs_a_hundredth_in_the_long_run(slower):
    account = Account()
    seconds, _ = run(account, 1000, lambda: slower * ALONE)
    assert seconds <= 1000 * ALONE + 4 * max(WAKING + slower * ALONE, LIMIT)  # first call, three trials
    run(account, 5000, lambda: slower * ALONE)
    seconds, _ = run(account, 20_000, lambda: slower * ALONE)
    assert seconds <= (1 + 1.5 / MOST_REST) * 20_000 * ALONE + WAKING + 2 * slower * ALONE


@pytest.mark.parametrize("often", [0.02, 0.05, 0.3])
@pytest.mark.parametrize("seed", range(3))
def test_calls_that_are_held_up_now_and_then_cost_a_hundredth(often, seed):
    chance = random.Random(seed)  # half as long, or another process's turn longer
    seconds, _ = run(Account(), 100_000, lambda: ALONE / 2 + (chance.random() < often) * 4e-3)
    assert seconds <= (1 + 1.5 / MOST_REST) * 100_000 * ALONE


def test_rare_hold_ups_are_worth_it():
    chance = random.Random(0)
    seconds, count = run(Account(), 100_000, lambda: ALONE / 2 + (chance.random() < 0.002) * 4e-3)
    assert count > 95_000 and seconds < 0.6 * 100_000 * ALONE


def test_a_helper_that_has_to_wake_is_given_time_to_win():
    asleep = [True]

    def shared():
        taken, asleep[0] = (1.3 if asleep[0] else 0.8) * ALONE, False
        return taken

    def alone():
        asleep[0] = True
        return ALONE

    _, count = run(Account(), 1000, shared, alone)
    assert count > 980


def test_a_machine_that_becomes_free_is_noticed():
    account = Account()
    _, count = run(account, 2000, lambda: 10 * ALONE)
    assert 2 <= count <= 8
    _, count = run(account, 4000, lambda: ALONE / 2)
    assert count > 2000


def test_an_accident_is_over_in_a_second():
    account = Account()
    run(account, 100, lambda: ALONE / 2)
    run(account, 1, lambda: 3600.0)
    rest = int(LEAST_REST * LIMIT / ALONE)
    assert run(account, rest, lambda: ALONE / 2)[1] == 0
    assert run(account, 1 + LOOKS + 10, lambda: ALONE / 2)[1] >= 10


def test_rests_double_until_sharing_pays_again():
    account, rests = Account(), []
    run(account, 100, lambda: ALONE / 2)
    run(account, 1, lambda: 3600.0)
    run(account, account.rest, lambda: ALONE)
    for _ in range(7):
        run(account, 1 + LOOKS, lambda: ALONE)
        run(account, 1, lambda: 3 * ALONE)
        rests.append(account.rest)
        run(account, rests[-1], lambda: ALONE)
    most = MOST_REST // (2 * LEAST_REST)
    assert [round(rest / rests[0]) for rest in rests] == [1, 2, 4, 8, most, most, most]
    run(account, 1000, lambda: ALONE / 2)
    run(account, 1, lambda: 1.0)
    assert account.rest == int(LEAST_REST * LIMIT / ALONE) + 1


def test_sharing_that_has_never_won_rests_for_a_tenth_of_a_second():
    account = Account()
    _, count = run(account, 200, lambda: 1.1 * ALONE)
    assert count < 20
    rest = account.rest
    assert UNPROVEN_REST / ALONE - 200 < rest <= UNPROVEN_REST / ALONE
    run(account, rest, lambda: ALONE)
    assert run(account, 1000, lambda: ALONE / 2)[1] > 980  # and is tried again


def test_calls_longer_than_any_debt_go_alone_too():
    _, count = run(Account(), 1000, lambda: 0.06, lambda: 0.05)
    assert count < 200


def test_one_look_that_was_held_up_changes_nothing():
    looks = iter([ALONE, 1.0, ALONE] + 1000 * [ALONE])
    _, count = run(Account(), 1000, lambda: 1.1 * ALONE, lambda: next(looks))
    assert count < 200


def test_what_takes_a_quarter_longer_for_a_while_is_no_reason_to_share():
    clock = itertools.count()  # of calls: slow and fast spells, in which sharing loses all the same

    def alone():
        return ALONE * (1.25 if next(clock) // 2000 % 2 else 1.0)

    account = Account()
    run(account, 5000, lambda: 1.1 * alone(), alone)
    _, count = run(account, 20_000, lambda: 1.1 * alone(), alone)
    assert count < 2000


def test_looks_of_which_some_come_after_a_pause_are_compared_with_such_calls():
    chance, pauses = random.Random(0), (1.0, 1.0, 2.4)  # bursts of three calls, of which the first finds caches cold

    def alone():
        return ALONE * chance.choice(pauses)

    _, count = run(Account(), 10_000, lambda: 0.9 * alone(), alone)
    assert count > 7000


def test_a_call_that_shares_as_fast_as_alone_goes_alone():
    _, count = run(Account(), 20_000, lambda: ALONE - UNSEEN / 10)
    assert count < 4000
