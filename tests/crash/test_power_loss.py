"""Power fails between two acknowledgements: what was synced is there, of what was not any 512-byte sectors may be.

The log's files are copied at every acknowledgement. Between two copies SQLite first writes and syncs its side file, and
only then, at a checkpoint, the file itself; so the images a power failure can leave are the side file half way, or the
side file done and the file half way.
"""

import random
from pathlib import Path
from typing import NamedTuple

import pytest

from pumasi.adapters.sqlite_log import SqliteLog
from pumasi.events.facts import Event
from pumasi.testing.event_log import ended_job, submitted

SECTOR_BYTES = 512
COMMITS = 60
POINTS = 150


class Image(NamedTuple):
    """The files as they were when facts up to `seq` had been acknowledged."""

    seq: int
    file: bytes
    side_file: bytes


def _record(path: Path, chance: random.Random) -> tuple[list[Event], list[Image]]:
    log = SqliteLog(path)
    log._writer.execute("PRAGMA wal_autocheckpoint = 40")  # often, so that there are many checkpoints to fail in
    facts: list[Event] = []
    images = [_image(path, 0)]
    for commit in range(1, COMMITS + 1):
        batch: list[Event] = [
            submitted(len(facts) + place, name=f"{commit}") for place in range(chance.randrange(1, 9))
        ]
        facts += batch
        images.append(_image(path, log.append(batch, [ended_job(commit)])))
    log.close()
    return facts, images


def _image(path: Path, seq: int) -> Image:
    return Image(seq, path.read_bytes(), path.with_name(f"{path.name}-wal").read_bytes())


def _half_way(before: bytes, after: bytes, chance: random.Random) -> bytes:
    """Each sector as it was, as it was to be, or full of something else if it is new."""
    length = chance.choice((len(after), max(len(before), chance.randrange(len(after) + 1))))
    old, share = before.ljust(length, b"\xa5"), chance.random()
    sectors = (slice(start, start + SECTOR_BYTES) for start in range(0, length, SECTOR_BYTES))
    return b"".join(after[at] if chance.random() < share else old[at] for at in sectors)[:length]


def _power_fails(before: Image, after: Image, chance: random.Random) -> tuple[bytes, bytes]:
    if before.file != after.file and chance.random() < 0.7:
        return _half_way(before.file, after.file, chance), after.side_file
    return before.file, _half_way(before.side_file, after.side_file, chance)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_what_was_acknowledged_is_there_after_power_fails(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    facts, images = _record(tmp_path / "fleet.db", chance)
    checkpoints = sum(images[place].file != images[place - 1].file for place in range(1, len(images)))
    assert checkpoints > 5
    survived_unacknowledged = 0
    for _ in range(POINTS):
        place = chance.randrange(1, len(images))
        path = tmp_path / "after.db"
        path.unlink(missing_ok=True)
        file, side_file = _power_fails(images[place - 1], images[place], chance)
        path.write_bytes(file)
        path.with_name("after.db-wal").write_bytes(side_file)
        log = SqliteLog(path)
        seq = log.verify().seq
        assert seq in (images[place - 1].seq, images[place].seq)
        assert [fact for _, fact in log.read(0)] == facts[:seq]
        assert log.count() == (place if seq == images[place].seq else place - 1)
        assert log.append([submitted(1)]) == seq + 1
        log.close()
        survived_unacknowledged += seq == images[place].seq
    assert 0 < survived_unacknowledged < POINTS
