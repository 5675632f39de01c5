"""Queues whose answers are known: the twin must give them."""

from fractions import Fraction
from math import factorial
from random import Random

import pytest
import simpy

from pumasi.model.jobs import JobState
from pumasi.testing.builders import START_MS
from pumasi.twin.jobs import TwinJob
from pumasi.twin.run import simulate
from tests.twin.fleets import job, scenario, village

SERVICE_MS = 600_000


def poisson(count: int, servers: int, load: Fraction, seed: int) -> list[TwinJob]:
    """One-GPU jobs that come by chance and take an exponential time, `load` of what so many GPUs can do."""
    chance = Random(seed)
    gap_ms = SERVICE_MS / (servers * float(load))
    at_ms, jobs = 0.0, []
    for _ in range(count):
        at_ms += chance.expovariate(1 / gap_ms)
        jobs.append(job(round(at_ms), 1, max(1, round(chance.expovariate(1 / SERVICE_MS)))))
    return jobs


def erlang_wait_ms(servers: int, load: Fraction) -> float:
    """The mean wait in an M/M/c queue (Erlang C)."""
    offered = load * servers
    last = offered**servers / factorial(servers) / (1 - load)
    waits = last / (sum(offered**k / factorial(k) for k in range(servers)) + last)
    return float(waits * SERVICE_MS / (servers * (1 - load)))


def test_mean_waits_are_those_of_erlang():
    """The mean over twelve seeds lies within four standard errors of the theory, and these are small enough to tell."""
    servers, load, means = 8, Fraction(7, 10), []
    for seed in range(100, 112):
        table = simulate(village({"a": servers}), poisson(1_500, servers, load, seed), scenario()).jobs
        warm = range(300, len(table))
        means.append(sum(table.wait_ms(row) for row in warm) / len(warm))
    mean = sum(means) / len(means)
    error = (sum((each - mean) ** 2 for each in means) / (len(means) - 1) / len(means)) ** 0.5
    expected = erlang_wait_ms(servers, load)
    assert abs(mean - expected) < 4 * error
    assert error < expected / 6


def test_erlang_by_hand():
    """One server at half load waits as long as it serves; two at half load a third of it."""
    assert erlang_wait_ms(1, Fraction(1, 2)) == SERVICE_MS
    assert erlang_wait_ms(2, Fraction(1, 2)) == pytest.approx(SERVICE_MS / 3)


def test_every_start_is_the_one_simpy_finds():
    """First come, first served on 24 GPUs: start for start what a SimPy resource of 24 gives."""
    jobs = poisson(2_000, 24, Fraction(19, 20), 5)
    environment = simpy.Environment()
    gpus = simpy.Resource(environment, capacity=24)
    expected = [0] * len(jobs)

    def user(number: int, each: TwinJob):
        yield environment.timeout(each.submit_ms - START_MS)
        with gpus.request() as request:
            yield request
            expected[number] = int(environment.now)
            yield environment.timeout(each.runtime_ms)

    for number, each in enumerate(jobs):
        environment.process(user(number, each))
    environment.run()
    table = simulate(village({"a": 24}), jobs, scenario()).jobs
    assert [started_ms - START_MS for started_ms in table.started_ms] == expected
    assert max(table.wait_ms(row) for row in range(len(table))) > SERVICE_MS // 2, "there was a queue"
    assert {table.state_of(row) for row in range(len(table))} == {JobState.SUCCEEDED}
