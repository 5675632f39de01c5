"""Identifiers and their grammar.

Owners, sites, pools, queues and principals are named by people; jobs are numbered by the control plane, as in Slurm.
Names are checked once, at the door, by :func:`is_name` and :func:`is_queue_path`; inside they are trusted.
"""

import re
from functools import lru_cache
from typing import TypeAlias

OwnerId: TypeAlias = str
SiteId: TypeAlias = str
PoolId: TypeAlias = str
GpuModelId: TypeAlias = str
QueueId: TypeAlias = str  # path from the owner down: "public/academia/kaist"
JobId: TypeAlias = int
PrincipalId: TypeAlias = str

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def is_name(text: str) -> bool:
    """True if `text` is a name: 1 to 63 of a-z, 0-9 and inner hyphens (a DNS label, so every engine takes it)."""
    return _NAME.fullmatch(text) is not None


def is_queue_path(text: str) -> bool:
    """True if `text` is a path of at most 8 names joined by '/', the owner first."""
    parts = text.split("/")
    return len(parts) <= 8 and all(is_name(part) for part in parts)


@lru_cache(maxsize=65_536)
def queue_owner(queue: QueueId) -> OwnerId:
    """The owner at the root of a queue path."""
    return queue.split("/", 1)[0]


def is_within(queue: QueueId, above: QueueId) -> bool:
    """True if a queue is another one, or below it."""
    return queue == above or queue.startswith(f"{above}/")


def queue_parent(queue: QueueId) -> QueueId | None:
    """The queue one level up, or None at the owner's root queue."""
    head, separator, _ = queue.rpartition("/")
    return head if separator else None
