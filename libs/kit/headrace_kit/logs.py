"""Logs: one event name a line, values as keys, JSON on standard output. Secrets are blanked by their keys' names."""

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import orjson
import structlog

_SECRET = re.compile(r"token|password|secret|authorization|cookie|dsn|api_?key|credential", re.IGNORECASE)
_USERINFO = re.compile(r"(\w+://[^\s:/@]*):[^\s/@]*@")  # a password inside a URL
_NOISY = ("aiokafka", "faust", "mode", "asyncio", "urllib3", "uvicorn.access", "opentelemetry")


def configure_logs(service: str, level: str = "info") -> None:
    """Sets structlog and the standard library's logging up for a process. Called once, at its start.

    Args:
        service: In each line, as ``service``.
        level: ``debug``, ``info``, ``warning`` or ``error``.
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _named(service),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(number),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                redact,
                structlog.processors.JSONRenderer(_dumps),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(number)
    for noisy in _NOISY:
        logging.getLogger(noisy).setLevel(logging.WARNING)


def redact(_logger: object, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Blanks values whose key sounds like a secret, and passwords inside URLs."""
    # Any: structlog's own type of a line.
    for key, value in line.items():
        if _SECRET.search(key):
            line[key] = "[redacted]"
        elif isinstance(value, str) and "://" in value:
            line[key] = _USERINFO.sub(r"\1:[redacted]@", value)
    return line


def _named(service: str) -> structlog.typing.Processor:
    def add(_logger: object, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        line["service"] = service
        return line

    return add


def _dumps(value: object, **_: object) -> str:
    return orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
