"""Every error that crosses a folder, so that a reader finds the whole tree on one page.

Two families. `ReqlError` and its children are what a driver receives: RethinkDB's classes, numbers
and messages, with the path (backtrace) of the term that failed. `RewindError` and its children are
what goes wrong inside; `proxy/fibers` alone turns them into ReQL errors.

    ReqlError
    ├── ReqlClientError            16: the driver broke the protocol
    ├── ReqlCompileError           17: the query does not make sense before it runs
    └── ReqlRuntimeError           18
        ├── ReqlInternalError              1000000
        ├── ReqlResourceLimitError         2000000
        ├── ReqlQueryLogicError            3000000
        │   └── ReqlNonExistenceError      3100000: the one that `default` swallows
        ├── ReqlOpFailedError              4100000: surely not done
        ├── ReqlOpIndeterminateError       4200000: may have been done
        ├── ReqlUserError                  5000000
        └── ReqlPermissionError            6000000
"""

from __future__ import annotations

from typing import ClassVar, Final

Frame = int | str
Path = tuple[Frame, ...]


THE_TERM: Final = -1


class ReqlError(Exception):
    """What a driver is told. `path` is None until the failing term's place is known.

    `at` names the argument (index) or optarg (name) of the running term that is to blame; the compiler turns
    it into a path. Without it the term itself is to blame, and with THE_TERM, too, whichever argument it looked at.
    """

    response_type: ClassVar[int] = 18
    error_type: ClassVar[int | None] = None

    def __init__(self, message: str, path: Path | None = None, at: Frame | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.path = path
        self.at = at

    def reworded(self, message: str, path: Path | None = None, at: Frame | None = None) -> ReqlError:
        """The same error in other words, and perhaps of another place."""
        return type(self)(message, path, at)


class ReqlClientError(ReqlError):
    response_type = 16


class ReqlCompileError(ReqlError):
    response_type = 17


class ReqlRuntimeError(ReqlError):
    response_type = 18


class ReqlInternalError(ReqlRuntimeError):
    error_type = 1_000_000


class ReqlResourceLimitError(ReqlRuntimeError):
    error_type = 2_000_000


class ReqlQueryLogicError(ReqlRuntimeError):
    error_type = 3_000_000


class ReqlNonExistenceError(ReqlQueryLogicError):
    error_type = 3_100_000


class ReqlOpFailedError(ReqlRuntimeError):
    error_type = 4_100_000


class ReqlOpIndeterminateError(ReqlRuntimeError):
    error_type = 4_200_000


class ReqlUserError(ReqlRuntimeError):
    error_type = 5_000_000


class ReqlEmptyUserError(ReqlQueryLogicError):
    """`r.error()` without a message: rethrows inside `default`, a logic error when it escapes."""


class ReqlPermissionError(ReqlRuntimeError):
    error_type = 6_000_000


class RewindError(Exception):
    """Something inside failed. `hint` is the operator's next step, in one sentence."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class BadSetting(RewindError):
    """A setting has a wrong key, type or value; the message holds its path."""


class FolderInUse(RewindError):
    """Another process holds the data folder."""


class Corrupt(RewindError):
    """Stored bytes do not match their checksum or format; nothing is skipped, the server stops."""


class DiskFull(RewindError):
    """The disk, a quota or a read-only folder refuses writes."""


class SyncFailed(RewindError):
    """fsync failed: what is on disk is unknown, so the process must stop and recover from the log."""


class Overloaded(RewindError):
    """A bounded queue is full; the caller may try again later. Surely not done."""


class Unfinished(Overloaded):
    """Much is to be done, and others shall have their turn before it goes on. The caller calls again soon."""


class NotLeader(RewindError):
    """This server does not lead, so the proposal was not made. Surely not done."""


class LeadershipLost(RewindError):
    """The proposal was made but its fate is unknown. May have been done."""


class UnfitArchive(RewindError):
    """A dump, image or log slice is damaged, hostile, or of a format that this version does not read."""


class ToolFailed(RewindError):
    """A command such as dump or restore could not do what was asked; nothing is wrong with the server's data."""
