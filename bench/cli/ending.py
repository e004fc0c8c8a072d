"""How a command that failed ends: one line on stderr and an exit code, the traceback on demand."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from bench.errors import BenchError, InputError, PluginError, is_full, is_short_of_memory, one_line

_ASKED_BY = "BENCH_TRACEBACK"


def end(error: Exception) -> NoReturn:
    """Say what an error means to the user, and end with its exit code."""
    if isinstance(error, BrokenPipeError):  # the reader of our output went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    expected = isinstance(error, BenchError) and not isinstance(error, PluginError)
    if os.environ.get(_ASKED_BY) and not expected:
        raise error
    line, code = _told(error)
    print(f"bench: {line}", file=sys.stderr)
    sys.exit(code)


def _told(error: Exception) -> tuple[str, int]:
    """Return the line, and the exit code."""
    if isinstance(error, BenchError):
        shows = f" ({_ASKED_BY}=1 shows where)" if isinstance(error, PluginError) and error.__cause__ else ""
        return f"{one_line(str(error))}{shows}", error.exit_code
    if isinstance(error, RecursionError):
        return "the input is nested too deeply; give one with fewer levels", InputError.exit_code
    if is_short_of_memory(error):
        told = "the machine has no memory left for this process; free some, or raise its limit (ulimit -v)"
        return told, InputError.exit_code
    if isinstance(error, OSError):
        return _of_file(error), InputError.exit_code
    return f"internal error: {type(error).__name__}: {one_line(str(error))} ({_ASKED_BY}=1 shows where)", 70


def _of_file(error: OSError) -> str:
    """Say what the machine refused of a file, most often one that the user named."""
    where = f"{one_line(str(error.filename))[:200]}: " if error.filename else ""
    advice = "make room" if is_full(error) else "give another file or folder"
    return f"{where}{one_line(error.strerror or str(error))}; {advice}"
