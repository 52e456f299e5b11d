"""headrace local: PostgreSQL, Kafka, S3 and the services as supervised processes in one data folder.

:class:`Stack` is the whole as an object; ``headrace up`` and the tests stand on it.
"""

from headrace_local.errors import LocalError
from headrace_local.external import External
from headrace_local.stack import Addresses, Stack

__all__ = ["Addresses", "External", "LocalError", "Stack"]
