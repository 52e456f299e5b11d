"""The archive of telemetry: records of Kafka as Parquet, and the topic and its archive read as one stream.

Needs the extras ``headrace[export]`` (pyarrow) and, to go on from Kafka, ``headrace[kafka]``.
"""

from headrace.archive.manifest import Manifest, ManifestFile
from headrace.archive.record import Record, leaf_of

__all__ = ["Manifest", "ManifestFile", "Record", "leaf_of"]
