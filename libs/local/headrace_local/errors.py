"""What can go wrong with the local stack, as one tree.

LocalError
├── DataFolderVersion    the data folder was made by another version
├── DataFolderInUse      another process runs a stack on it
├── NotRunning           a command needs a running stack and there is none
├── PortTaken            a pinned port belongs to another program
├── UnknownPart          a name that is no part of the stack
├── JarUnavailable       a jar could not be fetched
├── JarDigest            a jar's bytes are not those of the lock file
├── DiskFull             no space left for the data folder
├── TokensUnreadable     the file of tokens is not of its form
├── TokensUnchanged      a token can not be issued or revoked so
├── PrivilegeDrop        running as root and no account to run PostgreSQL as
└── PartFailed           a part died or was not ready in time

Each class carries ``reason`` (stable, for programs) and ``retryable`` (whether the same call may succeed later
without anybody changing something).
"""

from __future__ import annotations

from typing import ClassVar


class LocalError(Exception):
    """Base of all errors of the local stack; ``str()`` is a full sentence for a person."""

    reason: ClassVar[str] = "LOCAL"
    retryable: ClassVar[bool] = False

    @classmethod
    def of(cls, reason: str, message: str) -> LocalError:
        """Return the error of the class with ``reason``, as it was raised in another process."""
        kinds = {kind.reason: kind for kind in cls.__subclasses__()}
        return kinds.get(reason, cls)(message)


class DataFolderVersion(LocalError):
    """The data folder was written by a version with another layout."""

    reason = "DATA_FOLDER_VERSION"


class DataFolderInUse(LocalError):
    """Another live process holds the data folder's lock."""

    reason = "DATA_FOLDER_IN_USE"
    retryable = True


class NotRunning(LocalError):
    """No stack runs on the data folder."""

    reason = "NOT_RUNNING"


class PortTaken(LocalError):
    """A pinned port is in use by another program."""

    reason = "PORT_TAKEN"
    retryable = True


class UnknownPart(LocalError):
    """A name was given that is neither infrastructure nor a service."""

    reason = "UNKNOWN_PART"


class JarUnavailable(LocalError):
    """A jar is not cached and could not be downloaded."""

    reason = "JAR_UNAVAILABLE"
    retryable = True


class JarDigest(LocalError):
    """A jar's SHA-256 differs from the lock file's."""

    reason = "JAR_DIGEST"


class DiskFull(LocalError):
    """The file system of the data folder has no space left."""

    reason = "DISK_FULL"
    retryable = True


class TokensUnreadable(LocalError):
    """The file of tokens can not be read, so nothing of it is changed."""

    reason = "TOKENS_UNREADABLE"


class TokensUnchanged(LocalError):
    """A token can not be issued to that principal, or there is none to revoke."""

    reason = "TOKENS_UNCHANGED"


class PrivilegeDrop(LocalError):
    """Running as root, and no unprivileged account exists or can be made."""

    reason = "PRIVILEGE_DROP"


class PartFailed(LocalError):
    """A part of the stack died, or was not ready before its deadline."""

    reason = "PART_FAILED"
    retryable = True
