"""Durations and GPU time, read and written exactly: integers in, integers out."""

import re

SECONDS_PER_UNIT = {"s": 1, "m": 60, "h": 3600, "d": 86400}
GPU_MILLISECONDS_PER_HOUR = 3_600_000
LONGEST_SECONDS = 366 * 86400

TIME_FORMS = "MM, MM:SS, HH:MM:SS, D-HH, D-HH:MM, D-HH:MM:SS, or 90m, 2h, 1d12h"

_CLOCK = re.compile(r"(?:(?P<days>\d{1,5})-)?(?P<parts>\d{1,7}(?::\d{1,2}){0,2})", re.ASCII)
_UNITS = re.compile(r"(?:\d{1,7}[smhd])+", re.ASCII)


def parse_duration(text: str) -> int | None:
    """Seconds in a duration as Slurm writes it (`TIME_FORMS`), or None if it is none."""
    text = text.strip()
    if _UNITS.fullmatch(text):
        return sum(int(n) * SECONDS_PER_UNIT[unit] for n, unit in re.findall(r"(\d+)([smhd])", text))
    match = _CLOCK.fullmatch(text)
    if match is None:
        return None
    parts = [int(part) for part in match["parts"].split(":")]
    if match["days"] is not None:
        hours, minutes, seconds = (*parts, 0, 0)[:3]
        return ((int(match["days"]) * 24 + hours) * 60 + minutes) * 60 + seconds
    hours, minutes, seconds = {1: (0, *parts, 0), 2: (0, *parts), 3: tuple(parts)}[len(parts)]
    return (hours * 60 + minutes) * 60 + seconds


def format_elapsed(seconds: int) -> str:
    """As squeue writes it: `M:SS`, `H:MM:SS` or `D-HH:MM:SS`."""
    days, rest = divmod(max(seconds, 0), 86400)
    hours, rest = divmod(rest, 3600)
    minutes, seconds = divmod(rest, 60)
    if days:
        return f"{days}-{hours:02}:{minutes:02}:{seconds:02}"
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def format_gpu_hours(gpu_milliseconds: int) -> str:
    """GPU-hours with thousands separators and two decimals, rounded half up; exact until that rounding."""
    sign = "-" if gpu_milliseconds < 0 else ""
    hundredths = (abs(gpu_milliseconds) * 200 + GPU_MILLISECONDS_PER_HOUR) // (2 * GPU_MILLISECONDS_PER_HOUR)
    return f"{sign if hundredths else ''}{hundredths // 100:,}.{hundredths % 100:02}"
