"""Every error a user can meet.

::

    BenchError                    exit code 70 unless a subclass says otherwise
    ├── InputError                exit code 2: what the user gave is wrong
    │   ├── SuiteError            a suite file: file, line, key, value, what is allowed
    │   ├── DataError             a data set: missing, unreadable, wrong columns
    │   ├── ModelError            a model: missing, unknown, does not fit the settings
    │   ├── PluginError           another package's code: does not fit its protocol, or raises
    │   └── DiskFull              says where, and how much is needed
    ├── JobError                  exit code 1: one job failed, the others go on
    │   ├── RankDied              one of the processes that compute a job together is gone; it is tried again
    │   ├── OutOfMemory           names the key to lower
    │   ├── DamagedInput          what another job left behind is not as it was written; that job is made anew
    │   └── JudgeError            a judge that cannot answer; what was judged is kept
    │       └── JudgeStopped      one that must not be asked further: refused key, exhausted quota
    │           ├── JudgeRefused  the endpoint takes no request of that form, or gives no reply that can be used
    │           ├── OverCeiling   the ceiling of cost is reached
    │           └── NoRoom        exit code 2: no room on the disk for its replies, so none was asked for
    └── Interrupted               exit code 130: stopped by the user, checkpoint kept

A message is one line that says what is wrong, what is allowed and what to do. What others wrote (an endpoint, a hub,
another package) may be part of it, so every message goes through `one_line`.
"""

from __future__ import annotations

import difflib
import errno
import re
from collections.abc import Iterable

# What begins with ESC: colours and cursor moves; titles, links and the clipboard up to their end; the short ones
_TERMINAL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[ -/]*[0-~]?")


def one_line(text: str, longest: int | None = None) -> str:
    """Make a text that others wrote fit for screen, log, records and report.

    Terminal commands are taken out whole; line ends and tabs become spaces; other control characters, invisible ones and
    those that turn the direction of reading are left out.

    Args:
        text: from an endpoint, a hub, a library or another package.
        longest: letters that are kept; None for all.
    """
    spaced = "".join(" " if letter.isspace() else letter for letter in _TERMINAL.sub("", text))
    return "".join(letter for letter in spaced if letter.isprintable()).strip()[:longest]


class BenchError(Exception):
    """The root of all errors raised on purpose."""

    exit_code = 70

    def __str__(self) -> str:
        return one_line(super().__str__())


class InputError(BenchError):
    """Report something wrong in what the user gave."""

    exit_code = 2


class SuiteError(InputError):
    """Report a wrong suite file."""


class DataError(InputError):
    """Report a data set that is missing, unreadable or of the wrong shape."""


class ModelError(InputError):
    """Report a model that is missing, unknown or does not fit the settings."""


class PluginError(InputError):
    """Report that another package's method, recipe, collector, evaluator or judge is at fault, and whose it is."""


class DiskFull(InputError):
    """Report that a disk is full; what is on it is kept."""


class JobError(BenchError):
    """Report one failed job; the jobs that do not need it go on."""

    exit_code = 1


class RankDied(JobError):
    """Report that one of the processes that compute a job together is gone; the job is tried again, as after a worker's death."""


class OutOfMemory(JobError):
    """Report that memory ran out, naming the key to lower."""


class DamagedInput(JobError):
    """Report that what another job left behind is not as it was written.

    Attributes:
        job: whose it is.
        what: what is wrong with it.
    """

    def __init__(self, job: str, what: str) -> None:
        super().__init__(f"{job} was found damaged: {what}")
        self.job, self.what = job, what


class JudgeError(JobError):
    """Report a judge that cannot go on; every answer it gave is kept."""


class JudgeStopped(JudgeError):
    """Report a judge that must not be asked any further; what it said is summed up as far as it goes."""


class JudgeRefused(JudgeStopped):
    """Report an endpoint that takes no request as a configuration makes it, or gives no usable reply; it may another's."""


class OverCeiling(JudgeStopped):
    """Report that the next request may cost more than is allowed."""


class NoRoom(JudgeStopped):
    """Report that replies could not be kept if they came, so that they were not asked for."""

    exit_code = 2


class Interrupted(BenchError):
    """Report that the user stopped the run; its checkpoint is kept."""

    exit_code = 130


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether memory ran out, on the machine or on a GPU; torch is not imported for that."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or "can't allocate memory" in str(error)


# Of other libraries, whose classes are not imported for it: a network or a device that may be well again in a moment.
_TRANSIENT = (
    "RankDied",
    "ConnectionError",
    "Timeout",
    "TimeoutException",
    "TimeoutError",
    "TransportError",
    "IncompleteRead",
)
_DEVICE = ("AcceleratorError", "CUDA error", "cuBLAS", "CUBLAS_STATUS", "CUDNN_STATUS", "NCCL error", "NVML: Driver")
_BUSY = (408, 425, 429, 500, 502, 503, 504)


def is_transient(error: BaseException | None) -> bool:
    """Say whether an error may be gone at the next attempt: of a network, a remote server or a device.

    A judge's are not counted: it has attempts of its own, and each may cost.
    """
    while error is not None and not isinstance(error, JudgeError):
        names = {kind.__name__ for kind in type(error).__mro__}
        if names.intersection(_TRANSIENT) or _has_busy_status(error):
            return True
        if isinstance(error, RuntimeError) and any(word in f"{type(error).__name__} {error}" for word in _DEVICE):
            return not is_out_of_memory(error)
        error = error.__cause__ or error.__context__
    return False


def _has_busy_status(error: BaseException) -> bool:
    return getattr(getattr(error, "response", None), "status_code", None) in _BUSY


_NO_MEMORY = ("failed to map segment", "annot allocate memory", "can't start new thread", "unable to allocate")


def is_short_of_memory(error: BaseException | None) -> bool:
    """Say whether the process got no memory from the machine, to load a library, to start a thread or for data."""
    while error is not None:
        refused = isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM
        if refused or any(word in str(error) for word in _NO_MEMORY):
            return True
        error = error.__cause__ or error.__context__
    return False


def is_full(error: BaseException | None) -> bool:
    """Say whether a write failed, or made another fail, because there is no room."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return True
        # torch and safetensors report what their writers met as errors of their own
        if "No space left on device" in str(error) or "os error 28" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


SHOWN = 200


def shortened(text: str) -> str:
    """Quote what a user wrote: what no terminal shows by its escape, and cut where it is longer than anyone reads."""
    shown = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text[:SHOWN])
    return shown if len(text) <= SHOWN else f"{shown}… ({len(text)} characters)"


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """Return the error message for a name that is not in a table, with the nearest known one."""
    names = sorted(known)
    near = difflib.get_close_matches(name[:SHOWN], names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ";"
    return f"unknown {kind} {shortened(repr(name))}{hint} known: {', '.join(names)}"
