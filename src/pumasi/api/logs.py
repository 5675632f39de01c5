"""Where the API's log lines go: a file of JSON lines beside the fleet's data. Nothing is ever written to stdout."""

import logging
from logging.handlers import RotatingFileHandler
from pathlib import Path

import structlog

FILE_BYTES = 16 << 20
OLD_FILES = 3


def write_to(path: Path) -> None:
    """Send log lines to `path`; it is renamed and begun anew at 16 MiB, and three old ones are kept.

    A line has no body, no secret and no query in it, and every field of it is bounded.

    :raises OSError: if the file cannot be written.
    """
    handler = RotatingFileHandler(path, maxBytes=FILE_BYTES, backupCount=OLD_FILES, encoding="utf-8")
    logger = logging.getLogger("pumasi")
    for old in logger.handlers[:]:
        logger.removeHandler(old)
        old.close()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
