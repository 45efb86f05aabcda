"""Logs: one JSON object a line (or readable lines on a console), through structlog. Payloads are never logged."""

import io
import logging
import sys
from contextlib import suppress
from typing import TextIO, cast

import structlog


class _Output(io.TextIOBase):
    """Standard output, but that a line which cannot be written (below it a full disk) is lost, and raises nothing: who
    logs has work to do."""

    def write(self, line: str) -> int:
        with suppress(OSError):
            sys.stdout.write(line)
        return len(line)

    def flush(self) -> None:
        with suppress(OSError):
            sys.stdout.flush()


def configure_logging(service: str, log_format: str) -> None:
    """Everything to standard output; libraries at WARNING and above join in."""
    output = cast("TextIO", _Output())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    last: structlog.typing.Processor = (
        structlog.processors.JSONRenderer() if log_format == "json" else structlog.dev.ConsoleRenderer()
    )
    structlog.configure(
        processors=[*shared, last],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(output),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(service=service)
    handler = logging.StreamHandler(output)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, last]
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
