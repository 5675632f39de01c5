"""A plot of cost against size on logarithmic axes, as SVG by hand: a straight line upwards is a power of the size."""

from math import ceil, floor, log10

from msgspec import Struct

WIDTH, HEIGHT, MARGIN = 460, 300, 60


class Series(Struct, frozen=True):
    """Costs by size: what it is, the unit of the costs, and the points."""

    title: str
    unit: str
    points: dict[int, float]


def draw(title: str, series: list[Series]) -> str:
    """The series side by side, each in a frame of its own."""
    width = WIDTH * len(series)
    frames = "".join(_frame(each, place * WIDTH) for place, each in enumerate(series))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{HEIGHT + 40}" font-family="sans-serif"'
        f' font-size="11"><rect width="{width}" height="{HEIGHT + 40}" fill="white"/>'
        f'<text x="12" y="18" font-size="12">{title}</text>{frames}</svg>\n'
    )


def _frame(series: Series, left: int) -> str:
    low_x, high_x = floor(log10(min(series.points))), ceil(log10(max(series.points)))
    low_y, high_y = floor(log10(min(series.points.values()))), ceil(log10(max(series.points.values())))
    high_y = max(high_y, low_y + 1)

    def x(size: float) -> float:
        return left + MARGIN + (log10(size) - low_x) / (high_x - low_x) * (WIDTH - 2 * MARGIN)

    def y(cost: float) -> float:
        return HEIGHT - MARGIN + 30 - (log10(cost) - low_y) / (high_y - low_y) * (HEIGHT - 2 * MARGIN)

    parts = [f'<text x="{left + MARGIN}" y="44">{series.title} ({series.unit})</text>']
    for power in range(low_x, high_x + 1):
        at = x(10**power)
        parts.append(f'<line x1="{at}" x2="{at}" y1="{y(10**low_y)}" y2="{y(10**high_y)}" stroke="#ddd"/>')
        parts.append(f'<text x="{at}" y="{y(10**low_y) + 16}" text-anchor="middle">{10**power:,}</text>')
    for power in range(low_y, high_y + 1):
        at = y(10.0**power)
        parts.append(f'<line x1="{x(10**low_x)}" x2="{x(10**high_x)}" y1="{at}" y2="{at}" stroke="#ddd"/>')
        parts.append(f'<text x="{x(10**low_x) - 6}" y="{at + 4}" text-anchor="end">{10.0**power:g}</text>')
    line = " ".join(f"{x(size):.1f},{y(cost):.1f}" for size, cost in series.points.items())
    parts.append(f'<polyline points="{line}" fill="none" stroke="#06c" stroke-width="2"/>')
    for size, cost in series.points.items():
        parts.append(f'<circle cx="{x(size):.1f}" cy="{y(cost):.1f}" r="3" fill="#06c"/>')
        parts.append(f'<text x="{x(size):.1f}" y="{y(cost) - 7:.1f}" text-anchor="middle">{cost:,.3g}</text>')
    return "".join(parts)
