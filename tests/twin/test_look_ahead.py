"""What-if questions asked of a control plane in the midst of things."""

import pytest

from pumasi.control.commands import MakeReservation
from pumasi.model.jobs import JobState
from pumasi.model.reservations import ReservationPurpose
from pumasi.testing.builders import START_MS
from pumasi.twin.run import look_ahead, simulate
from pumasi.twin.scenario import FaultRates
from pumasi.twin.world import CannotSimulate
from tests.twin.fleets import HOUR_MS, MINUTE_MS, job, scenario, village


def midst():
    """An hour into it: one job runs since 0 for two hours of at most three, one waits for it."""
    jobs = [
        job(0, 8, 2 * HOUR_MS, time_limit_seconds=3 * 3600),
        job(30 * MINUTE_MS, 8, HOUR_MS, time_limit_seconds=3 * 3600),
    ]
    return simulate(village({"a": 8}), jobs, scenario(until_ms=START_MS + HOUR_MS))


def test_it_goes_on_from_now_with_what_is_known():
    plane = midst().plane
    kernel_ms = plane.now_ms()
    more = [job(2 * HOUR_MS, 8, HOUR_MS)]
    ahead = look_ahead(plane, more, scenario(), runtime_ms=lambda each: 2 * HOUR_MS if each.id == 1 else HOUR_MS)
    starts = [event.at_ms - START_MS for _, event in ahead.log.read(0) if type(event).__name__ == "AttemptStarted"]
    assert kernel_ms <= START_MS + HOUR_MS
    assert starts == [2 * HOUR_MS, 3 * HOUR_MS]
    assert (len(ahead.jobs), ahead.jobs.first_job) == (1, 3)
    assert ahead.jobs.state_of(0) is JobState.SUCCEEDED and ahead.jobs.ended_ms[0] == START_MS + 4 * HOUR_MS


def test_to_their_limits_if_nobody_knows_better():
    ahead = look_ahead(midst().plane, [], scenario())
    ends = [event.at_ms - START_MS for _, event in ahead.log.read(0) if type(event).__name__ == "AttemptEnded"]
    assert ends == [3 * HOUR_MS, 6 * HOUR_MS]


def test_reservations_begin_and_end_ahead_and_what_is_handed_over_stays_so():
    plane = simulate(village({"a": 32}), [], scenario(until_ms=START_MS + HOUR_MS)).plane

    def reserve(name, purpose, queue, start_ms, hours):
        begins_ms, seconds = plane.now_ms() + start_ms, hours * 3600
        assert not plane.execute(
            MakeReservation(
                by="op", name=name, purpose=purpose, pool="pool-0", queue=queue, nodes=1,
                start_ms=begins_ms, duration_seconds=seconds,
            )
        )  # fmt: skip

    reserve("servers", ReservationPurpose.HAND_OVER, "a", 0, 6)
    plane.cycle()
    reserve("works", ReservationPurpose.MAINTENANCE, "", HOUR_MS, 2)
    ahead = look_ahead(plane, [], scenario())
    told = [(type(event).__name__, event.at_ms - plane.now_ms()) for _, event in ahead.log.read(0)]
    assert [each for each in told if each[0].startswith("Advance")] == [
        ("AdvanceReservationBegan", HOUR_MS), ("AdvanceReservationEnded", 3 * HOUR_MS),
        ("AdvanceReservationEnded", 6 * HOUR_MS),
    ]  # fmt: skip
    reserve("more", ReservationPurpose.HAND_OVER, "a", HOUR_MS, 1)
    with pytest.raises(CannotSimulate, match="handed over"):
        look_ahead(plane, [], scenario())


def test_what_cannot_be_asked():
    plane = midst().plane
    with pytest.raises(CannotSimulate, match="no log"):
        look_ahead(plane, [], scenario(faults=FaultRates(control_crash_days=1)))
    with pytest.raises(ValueError, match="before now"):
        look_ahead(plane, [job(-1, 8, 1)], scenario())
