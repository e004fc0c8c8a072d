from __future__ import annotations

from typing import Any

import pytest

from bench.judges import usage


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ({"prompt_tokens": 300, "completion_tokens": 1, "total_tokens": 301}, {"prompt": 300, "completion": 1}),
        (
            {
                "prompt_tokens": 300,
                "completion_tokens": 40,
                "total_tokens": 340,
                "prompt_tokens_details": {"cached_tokens": 256, "cache_write_tokens": 20},
                "completion_tokens_details": {"reasoning_tokens": 32},
            },
            {"prompt": 300, "completion": 40, "cached": 256, "cache_written": 20, "reasoning": 32},
        ),
        # beside the completion, as the sum of all says
        (
            {
                "prompt_tokens": 5,
                "completion_tokens": 1,
                "total_tokens": 9,
                "completion_tokens_details": {"reasoning_tokens": 3},
            },
            {"prompt": 5, "completion": 4, "reasoning": 3},
        ),
        (
            {"prompt_tokens": 9, "completion_tokens": 1, "prompt_cache_hit_tokens": 8},
            {"prompt": 9, "completion": 1, "cached": 8},
        ),
        (
            {"prompt_tokens": 9, "prompt_tokens_details": {"cache_creation_tokens": 7, "cached_tokens": None}},
            {"prompt": 9, "cache_written": 7},
        ),
        ({"prompt_tokens": True, "completion_tokens": -1, "prompt_tokens_details": [3]}, None),
        ({}, None),
        (None, None),
        ("many", None),
    ],
)
def test_tokens_are_read_as_they_are_counted(given: Any, read: dict[str, int] | None) -> None:
    assert usage.tokens(given) == read
