"""Fair shares by linear programs: slow, and written down without any of what `max_min` does."""

from collections.abc import Iterable

import highspy

INFINITE = highspy.kHighsInf


class Program:
    """A linear program that is asked again and again with one more thing to maximise."""

    def __init__(self) -> None:
        self._highs = highspy.Highs()
        self._highs.setOptionValue("output_flag", False)
        self._variables = 0

    def variable(self, low: float = 0, high: float = INFINITE) -> int:
        """A new variable."""
        self._highs.addVar(low, high)
        self._variables += 1
        return self._variables - 1

    def constrain(self, low: float, terms: Iterable[tuple[int, float]], high: float = INFINITE) -> int:
        """A new row: low <= sum of factor x variable <= high."""
        terms = list(terms)
        self._highs.addRow(low, high, len(terms), [name for name, _ in terms], [factor for _, factor in terms])
        return int(self._highs.getNumRow()) - 1

    def fix(self, variable: int, low: float, high: float = INFINITE) -> None:
        """Give a variable new bounds."""
        self._highs.changeColBounds(variable, low, high)

    def most(self, variable: int) -> float:
        """The most a variable can be."""
        for index in range(self._variables):
            self._highs.changeColCost(index, -1.0 if index == variable else 0.0)
        self._highs.run()
        assert self._highs.getModelStatus() == highspy.HighsModelStatus.kOptimal
        return -float(self._highs.getInfo().objective_function_value)


def lexicographic(program: Program, levels: list[int]) -> list[float]:
    """Raise the lowest of these variables as far as can be, then the next, and so on; they are left fixed there."""
    found: dict[int, float] = {}
    lowest = program.variable(-INFINITE)
    rows = {level: program.constrain(0, [(level, 1), (lowest, -1)]) for level in levels}
    while len(found) < len(levels):
        floor = program.most(lowest)
        for level in levels:
            if level not in found:
                program.fix(level, floor - 1e-7)
        stuck = {level: most for level in levels if level not in found and (most := program.most(level)) < floor + 1e-5}
        for level, most in stuck.items():
            found[level] = most
            program.fix(level, most - 1e-7, most + 1e-7)
            program._highs.changeRowBounds(rows[level], -INFINITE, INFINITE)
    program.fix(lowest, -INFINITE)
    return [found[level] for level in levels]
