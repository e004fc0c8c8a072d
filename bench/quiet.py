"""Keep third-party libraries from writing over the progress display. What fails still raises."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr


@contextmanager
def quiet(*loggers: str) -> Iterator[None]:
    """Hide progress bars, warnings and log lines below ERROR of the named loggers ("" is the root) for a while.

    The root logger is left with the level and handlers it had: alpaca-eval sets its level, and a bare `logging.info`
    gives it a handler.
    """
    root = logging.getLogger()
    handlers, levels = list(root.handlers), {name: logging.getLogger(name).level for name in {"", *loggers}}
    for name in loggers:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        # tqdm writes to stderr and has no switch that reaches bars made inside a library
        with redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        root.handlers[:] = handlers
