"""Parts of the log as files and as copies: what an auditor takes away, and what a sandbox is fed with."""

from headrace.export.exporting import MANIFEST, ExportedFile, export_logs
from headrace.export.ranges import Bound, LogRange, parse_bound, read_range, resolve
from headrace.export.writers import Format

__all__ = [
    "MANIFEST",
    "Bound",
    "ExportedFile",
    "Format",
    "LogRange",
    "export_logs",
    "parse_bound",
    "read_range",
    "resolve",
]
