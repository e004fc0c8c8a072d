"""A judge's love of a place, of length and of its own kind, worked out by hand."""

from __future__ import annotations

import math

import pytest

from report.analysis import judge_bias
from report.analysis.judges import Verdict


def test_place_and_length() -> None:
    """Four pairs of two policies.

    Shown first the answers get 0.9 and 1 − 0.4, 0.8 and 1 − 0.7 …: (0.75 + 0.55 + 0.5) / 3 − ½ = 0.1. One of three turns.
    Decided with unequal lengths: the longer one of the first pair wins, that of the last loses: ½; ours is longer in both.
    """
    found = {
        ("p", 0): Verdict(0.65, (0.9, 0.4), first=0.75, longer=30),  # turned by the order: a draw
        ("p", 1): Verdict(0.75, (0.8, 0.7), first=0.55, longer=10),  # won, longer
        ("q", 0): Verdict(0.3, (0.3, 0.3), first=0.5, longer=0),  # lost, equal lengths
        ("q", 1): Verdict(0.2, (0.2,), longer=5),  # lost though longer, one order only
    }
    made = judge_bias.bias("a", found)
    assert (made.policies, made.pairs, made.prompts, made.decided) == (2, 4, 2, 2)
    assert made.rate.value == pytest.approx((0.65 + 0.75 + 0.3 + 0.2) / 4)
    assert made.first.value == pytest.approx(0.1)
    assert made.flips == pytest.approx(1 / 3)
    assert made.longer.value == 0.5
    assert made.ours_longer == 1.0


def test_a_loser_that_is_shorter_is_a_win_of_the_longer_one() -> None:
    made = judge_bias.bias("a", {("p", 0): Verdict(0.1, longer=-20), ("p", 1): Verdict(0.9, longer=-20)})
    assert (made.longer.value, made.ours_longer) == (0.5, 0.0)


def test_records_from_before_lengths_were_kept_tell_none() -> None:
    made = judge_bias.bias("a", {("p", 0): Verdict(0.9), ("p", 1): Verdict(0.1)})
    assert made.decided == 0
    assert all(math.isnan(one) for one in (made.longer.value, made.flips, made.first.value, made.ours_longer))


def test_against_another_judge_only_the_same_pairs_count() -> None:
    """0.9 − 0.6 and 0.5 − 0.4 on the two that both judged: 0.2 on average."""
    one = {("p", 0): Verdict(0.9), ("p", 1): Verdict(0.5), ("p", 2): Verdict(1.0)}
    other = {("p", 0): Verdict(0.6), ("p", 1): Verdict(0.4), ("q", 9): Verdict(0.0)}
    difference, pairs = judge_bias.against(one, other)
    assert (difference.value, pairs) == (pytest.approx(0.2), 2)


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("HuggingFaceTB/SmolLM2-135M-Instruct", {"smollm"}),
        ("meta-llama/Meta-Llama-3-8B", {"llama"}),
        ("Qwen2.5-0.5B-Instruct", {"qwen"}),
        ("gpt-4.1-mini-2024-07-18", {"gpt"}),
        ("EleutherAI/gpt-neox-20b", {"gptneox"}),
        ("EleutherAI/gpt-j-6b", {"gptj"}),
        ("mistralai/Mixtral-8x7B-v0.1", {"mixtral"}),
        ("01-ai/Yi-34B-Chat", {"yi"}),
        ("Llama-3.1-8B-Instruct-Q4_K_M.gguf", {"llama"}),
        ("Qwen3-30B-A3B", {"qwen"}),
        ("", set()),
    ],
)
def test_a_models_name_tells_its_family(name: str, family: set[str]) -> None:
    assert judge_bias.families(name) == family


@pytest.mark.parametrize(
    ("judge", "settings", "model", "words"),
    [
        ("local:world", {"local_model": {"source": "world"}}, {"source": "world"}, "is the policies' own base model"),
        ("rule", {"kind": "rule"}, {"source": "world"}, ""),
        (
            "local:SmolLM2-360M", {"local_model": {"source": "hub", "path": "HuggingFaceTB/SmolLM2-360M"}},
            {"source": "hub", "path": "HuggingFaceTB/SmolLM2-135M"}, "shares the name 'smollm' with the policies' base",
        ),
        ("gpt-4.1", {"model": "gpt-4.1"}, {"source": "hub", "path": "EleutherAI/gpt-neox-20b"}, ""),
        ("gpt-4.1", {"model": None}, {"source": "hub", "path": "meta-llama/Llama-3-8B"}, ""),
        ("llama-3.3-70b", {"model": None}, {"source": "hub", "path": "meta-llama/Meta-Llama-3-8B"}, "shares the name 'llama'"),
        (
            "local:qwen", {"local_model": {"source": "local", "path": "/models/qwen"}},
            {"source": "local", "path": "/models/qwen"}, "is the policies' own base model",
        ),
    ],
)  # fmt: skip
def test_kinship_is_what_names_and_paths_tell(
    judge: str, settings: dict[str, object], model: dict[str, object], words: str
) -> None:
    found = judge_bias.kinship(judge, settings, model)
    assert found.startswith(words)
    assert bool(found) == bool(words)
