"""The manifest of an archived range: what its files are, and what they must add up to."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Final

import orjson

from headrace.errors import InternalError

JSON_TYPE: Final = "application/json"
PARQUET_TYPE: Final = "application/vnd.apache.parquet"
VERSION: Final = 1
RECORDS: Final = "records"
ROWS: Final = "rows"


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """A file of a range.

    Attributes:
        kind: ``records`` or ``rows``.
        project: Of the rows; empty for records.
        endpoint: Of the rows; empty for records.
        schema_digest: Of the columns of predictions; empty for records and labels.
        rows: Rows of the file.
        uri: Key in the object store.
        sha256: Of its bytes, in hex.
        size_bytes: Its length.
    """

    kind: str
    project: str
    endpoint: str
    schema_digest: str
    rows: int
    uri: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a range holds.

    Attributes:
        topic: Where the records are from.
        partition: Likewise.
        first_offset: Of the range.
        last_offset: Of the range, included.
        lost_offsets: Offsets at its start that Kafka had dropped before.
        records: Records in it.
        rows: Predicted rows or labels in them.
        root: Of the Merkle tree over the records, in hex.
        files: The file of records first.
    """

    topic: str
    partition: int
    first_offset: int
    last_offset: int
    lost_offsets: int
    records: int
    rows: int
    root: str
    files: tuple[ManifestFile, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes of all files."""
        return sum(file.size_bytes for file in self.files)

    def encode(self) -> bytes:
        """JSON, the same bytes for the same manifest."""
        return orjson.dumps({"version": VERSION, **asdict(self)}, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)

    @staticmethod
    def decode(data: bytes) -> Manifest:
        """A manifest from its JSON.

        Raises:
            InternalError: it is of another form.
        """
        try:
            found = orjson.loads(data)
            if found.pop("version") != VERSION:
                raise InternalError("the manifest is of another version", reason="ARCHIVE_MANIFEST")
            files = tuple(ManifestFile(**each) for each in found.pop("files"))
            return Manifest(**found, files=files)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InternalError("the manifest can not be read", reason="ARCHIVE_MANIFEST") from error
