"""Every error a user can meet.

::

    BenchError                    exit code 70 unless a subclass says otherwise
    ├── InputError                exit code 2: what the user gave is wrong
    │   ├── SuiteError            a suite file: file, line, key, value, what is allowed
    │   ├── DataError             a data set: missing, unreadable, wrong columns
    │   ├── ModelError            a model: missing, unknown, does not fit the settings
    │   └── PluginError           another package's code: does not fit its protocol, or raises
    ├── JobError                  exit code 1: one job failed, the others go on
    │   ├── OutOfMemory           names the key to lower
    │   └── JudgeError            a judge that cannot answer; what was judged is kept
    │       └── JudgeStopped      one that must not be asked further: refused key, exhausted quota, ceiling of cost
    └── Interrupted               exit code 130: stopped by the user, checkpoint kept

A message is one line that says what is wrong, what is allowed and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BenchError(Exception):
    """The root of all errors raised on purpose."""

    exit_code = 70

    def __str__(self) -> str:
        """Return the message as one line, whatever a file, a path or an argument in it holds."""
        return printable(super().__str__())


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


class JobError(BenchError):
    """Report one failed job; the jobs that do not need it go on."""

    exit_code = 1


class OutOfMemory(JobError):
    """Report that memory ran out, naming the key to lower."""


class JudgeError(JobError):
    """Report a judge that cannot go on; every answer it gave is kept."""


class JudgeStopped(JudgeError):
    """Report a judge that must not be asked any further; what it said is summed up as far as it goes."""


class Interrupted(BenchError):
    """Report that the user stopped the run; its checkpoint is kept."""

    exit_code = 130


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether memory ran out, on the machine or on a GPU; torch is not imported for that."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or "can't allocate memory" in str(error)


def printable(text: str) -> str:
    """Write what a terminal could not show in one line, such as a line break, as its escape."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


SHOWN = 200


def shortened(text: str) -> str:
    """Cut a text that would make an error longer than anyone reads."""
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}… ({len(text)} characters)"


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """Return the error message for a name that is not in a table, with the nearest known one."""
    names = sorted(known)
    near = difflib.get_close_matches(name[:SHOWN], names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ";"
    return f"unknown {kind} {shortened(repr(name))}{hint} known: {', '.join(names)}"
