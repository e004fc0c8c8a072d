from __future__ import annotations

import logging
import sys
import warnings

import pytest

from bench.quiet import quiet


def test_noise_is_hidden_and_the_loggers_are_as_before(capsys: pytest.CaptureFixture[str]) -> None:
    root, named = logging.getLogger(), logging.getLogger("noisy")
    before = (root.level, list(root.handlers), named.level)
    with quiet("noisy", ""):
        print("bar", file=sys.stderr)
        warnings.warn("old", FutureWarning, stacklevel=1)
        named.error("line")
        root.setLevel(logging.DEBUG)
        root.addHandler(logging.StreamHandler())
    assert (root.level, list(root.handlers), named.level) == before
    assert capsys.readouterr().err == ""


def test_errors_still_come_through() -> None:
    with pytest.raises(ValueError, match="real"), quiet():
        raise ValueError("real")
