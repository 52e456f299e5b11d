"""Read models made anew from the log, beside the live ones, and swapped in.

Every stream is folded by itself in pages of the index on ``(stream_id, version)``, and written by COPY into tables of
the schema ``rebuild``. What was appended meanwhile is folded again, round by round; the last round is one short
transaction that keeps appends waiting, in which the tables take the places of the live ones.
"""

from headrace_kit.rebuild.comparing import Comparison, Difference
from headrace_kit.rebuild.keeping import ReadModels
from headrace_kit.rebuild.projections import Projection
from headrace_kit.rebuild.rebuilding import Phase, Progress, Rebuild, Report, TableReport

__all__ = [
    "Comparison",
    "Difference",
    "Phase",
    "Progress",
    "Projection",
    "ReadModels",
    "Rebuild",
    "Report",
    "TableReport",
]
