"""What the API can be told when it is made. There is no secret among it."""

from msgspec import Struct

MEBIBYTE = 1 << 20


class ApiSettings(Struct, frozen=True, kw_only=True):
    """Limits of the API. Bytes of a body by kind of route; seconds a body may take to arrive."""

    body_bytes: int = MEBIBYTE
    batch_bytes: int = 16 * MEBIBYTE
    plan_bytes: int = 4 * MEBIBYTE
    body_seconds: int = 30
    keep_alive_seconds: int = 15
    agent_wait_seconds: int = 60  # the longest an agent's sync is held open
    log_wait_seconds: int = 60  # the longest a reader of output is held open
