from random import Random

import pytest
import simpy

from pumasi.twin.kernel import Kernel, Rank


def run_out(kernel: Kernel) -> None:
    while kernel.next_ms() is not None:
        kernel.run_instant()


def test_time_then_rank_then_order_of_entry():
    seen: list[str] = []
    kernel = Kernel(1000)
    for at_ms, rank, name in [
        (1020, Rank.CYCLE, "e"), (1010, Rank.ARRIVAL, "b"), (1020, Rank.END, "c"), (1010, Rank.END, "a"),
        (1020, Rank.END, "d"),
    ]:  # fmt: skip
        kernel.at(at_ms, rank, seen.append, name)
    run_out(kernel)
    assert "".join(seen) == "abcde"
    assert kernel.now_ms() == 1020


def test_an_instant_takes_in_what_is_put_in_for_it_meanwhile():
    seen: list[str] = []
    kernel = Kernel(0)
    kernel.at(5, Rank.CYCLE, lambda _: kernel.at(5, Rank.FAULT, seen.append, "late"))
    kernel.at(6, Rank.FAULT, seen.append, "next")
    kernel.run_instant()
    assert seen == ["late"] and kernel.next_ms() == 6


def test_the_past_is_refused():
    kernel = Kernel(10)
    with pytest.raises(ValueError, match="has passed"):
        kernel.at(9, Rank.END, print)


def test_simpy_sees_the_same_history():
    """A random network of timers that start timers: our kernel and SimPy's must call them in the same order."""
    ours: list[tuple[float, str]] = []
    theirs: list[tuple[float, str]] = []

    def grow(log, now, at, name, depth):
        log.append((now(), name))
        chance = Random(name)
        for child in range(chance.randrange(3) if depth < 6 else 0):
            at(chance.randrange(1, 50), f"{name}.{child}", depth + 1)

    kernel = Kernel(0)

    def at(delay, name, depth):
        kernel.at(kernel.now_ms() + delay, Rank.END, lambda _: grow(ours, kernel.now_ms, at, name, depth))

    environment = simpy.Environment()

    def timer(delay, name, depth):
        yield environment.timeout(delay)
        grow(theirs, lambda: environment.now, their_at, name, depth)

    def their_at(delay, name, depth):
        environment.process(timer(delay, name, depth))

    for root in range(40):
        at(root, f"root-{root}", 0)
        their_at(root, f"root-{root}", 0)
    run_out(kernel)
    environment.run()
    assert len(ours) > 100
    assert ours == theirs
