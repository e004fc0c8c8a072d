from __future__ import annotations

import json
import sys
from datetime import date
from importlib import metadata, util
from pathlib import Path
from typing import Any

import pytest

from bench.judges import JudgeSettings, price_map, trial
from bench.judges.cost import estimate, estimate_in_words
from bench.judges.prices import Rate, old_price, rate
from bench.settings import Data


def judge(**keys: Any) -> JudgeSettings:
    return JudgeSettings.model_validate({"kind": "openai", **keys})


def test_every_part_of_a_bill_by_hand() -> None:
    """300 tokens, of which 200 cached and 50 put into the cache: 50 · 10 + 200 · 1 + 50 · 12.5 = 1325; 4 out · 50 = 200.

    1,525 millionths of a dollar; half of it in a batch. Where nothing is known of caches and batches all 300 cost 10.
    """
    tokens = {"prompt": 300, "completion": 4, "cached": 200, "cache_written": 50, "reasoning": 3}
    whole = Rate(10, 50, "", cached_input=1, cache_write=12.5, batch_factor=0.5)
    assert whole.bill(tokens) == pytest.approx(1525e-6)
    assert whole.bill(tokens, batch=True) == pytest.approx(762.5e-6)
    assert whole.of(300, 4) == pytest.approx(3200e-6)
    assert Rate(10, 50, "").bill(tokens, batch=True) == pytest.approx(3200e-6)
    assert whole.bill({"prompt": 5, "cached": 9}) == pytest.approx(9e-6)  # an endpoint that counts them apart


def test_the_table_has_what_is_published() -> None:
    """gpt-6-luna: 0.10 and 0.50, 0.01 from the cache, 0.125 into it, a batch at half of all."""
    found, _ = rate(judge(), "gpt-6-luna")
    assert found is not None
    assert (found.input, found.output, found.cached_input, found.cache_write) == (0.10, 0.50, 0.01, 0.125)
    assert (found.batch_factor, found.read) == (0.5, date(2026, 11, 1))


def test_each_part_can_be_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(price_map, "_read", lambda: ({}, ""))
    part, _ = rate(judge(price={"cached_input_usd_per_million_tokens": 0.02, "batch_factor": 0.4}), "gpt-6-luna")
    assert part is not None
    assert (part.input, part.cached_input, part.cache_write, part.batch_factor) == (0.10, 0.02, 0.125, 0.4)
    assert part.source.startswith("the suite's own price and prices of 2026-11")
    whole, _ = rate(
        judge(price={"input_usd_per_million_tokens": 1, "output_usd_per_million_tokens": 2, "read": "2026-01-02"}),
        "gpt-6-luna",
    )
    assert whole == Rate(1, 2, "the suite's own price", batch_factor=0.5, read=date(2026, 1, 2))
    elsewhere = judge(base_url="http://127.0.0.1/v1", price={"input_usd_per_million_tokens": 1})
    nothing, why = rate(elsewhere, "gpt-6-luna")
    assert nothing is None
    assert why == (
        "no price is known for this endpoint; give evaluation.win_rate.judge.price: its input_usd_per_million_tokens and "
        "output_usd_per_million_tokens"
    )
    with pytest.raises(ValueError, match="batch_factor"):
        judge(price={"batch_factor": 1.5})


@pytest.mark.parametrize(
    ("today", "old"), [(date(2027, 1, 30), False), (date(2027, 1, 31), True), (date(2028, 1, 1), True)]
)
def test_a_price_of_ninety_days_ago_says_so(today: date, old: bool) -> None:
    """It was read in November 2026: 90 days after the first of that month are the 30th of January."""
    said = old_price(judge(), "gpt-6-luna", today)
    assert (said is not None) == old
    assert trial.warnings(judge(model="gpt-6-luna"), today) == ([said] if said else [])
    if said:
        days = (today - date(2026, 11, 1)).days
        assert said.startswith(f"the price of gpt-6-luna is {days} days old (prices of 2026-11, ")
        assert said.endswith("see the endpoint's price list, and give evaluation.win_rate.judge.price")


def test_a_price_of_ones_own_is_old_by_its_own_date() -> None:
    prices = {"input_usd_per_million_tokens": 1, "output_usd_per_million_tokens": 2}
    dated = judge(model="m", base_url="http://127.0.0.1/v1", price=prices | {"read": "2026-01-01"})
    assert "is 100 days old (the suite's own price)" in str(trial.warnings(dated, date(2026, 4, 11)))
    assert trial.warnings(judge(model="m", base_url="http://127.0.0.1/v1", price=prices), date(2030, 1, 1)) == []


def test_a_plan_has_the_price_of_batches() -> None:
    """The same tokens at half the price of gpt-6-luna; without a known factor at the whole one, and it says so."""
    limits = Data.model_validate({name: {"source": "world", "rows": 8} for name in ("preference", "instruction")})
    alone, batch = (
        estimate(judge(model="gpt-6-luna", batch=one), limits, prompts=100, max_new_tokens=64, judgings=3)
        for one in (False, True)
    )
    assert alone is not None and batch is not None
    assert batch["cost_usd_at_most"] == pytest.approx(alone["cost_usd_at_most"] / 2)
    assert estimate_in_words(batch).endswith(", in batches at 0.5 of it")
    own = {"input_usd_per_million_tokens": 0.1, "output_usd_per_million_tokens": 0.5}
    elsewhere = judge(model="gpt-6-luna", batch=True, base_url="http://127.0.0.1/v1", price=own)
    unknown = estimate(elsewhere, limits, prompts=100, max_new_tokens=64, judgings=3)
    assert unknown is not None
    assert unknown["cost_usd_at_most"] == pytest.approx(alone["cost_usd_at_most"])
    assert (
        "what a batch costs less is not known: give evaluation.win_rate.judge.price.batch_factor"
        in estimate_in_words(unknown)
    )


MAP = {
    "some-model": {
        "litellm_provider": "openai",
        "input_cost_per_token": 2e-6,
        "output_cost_per_token": 8e-6,
        "cache_read_input_token_cost": 5e-7,
        "input_cost_per_token_batches": 1e-6,
        "output_cost_per_token_batches": 4e-6,
    },
    "mistral/some-model": {"litellm_provider": "mistral", "input_cost_per_token": 1e-7, "output_cost_per_token": 3e-7},
    "gpt-6-luna": {"litellm_provider": "openai", "input_cost_per_token": 9.0, "output_cost_per_token": 9.0},
    "no-price": {"litellm_provider": "openai", "mode": "chat"},
}


@pytest.fixture
def small_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a litellm of version 9.8.7 whose map has three models, and which cannot be imported."""
    package = tmp_path / "litellm"
    package.mkdir()
    (package / "__init__.py").write_text("raise AssertionError('litellm is not imported')")
    (package / "model_prices_and_context_window_backup.json").write_text(json.dumps(MAP))
    info = tmp_path / "litellm-9.8.7.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: litellm\nVersion: 9.8.7\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "litellm", raising=False)
    price_map._read.cache_clear()
    yield  # type: ignore[misc]
    price_map._read.cache_clear()


@pytest.mark.usefixtures("small_map")
def test_what_our_table_does_not_know_comes_from_litellm() -> None:
    found, _ = rate(judge(), "some-model")
    assert found == Rate(2.0, 8.0, "the price map of litellm 9.8.7", cached_input=0.5, batch_factor=0.5)
    found, _ = rate(judge(base_url="https://api.mistral.ai/v1"), "some-model")
    assert found == Rate(0.1, 0.3, "the price map of litellm 9.8.7")
    ours, _ = rate(judge(), "gpt-6-luna")
    assert ours is not None and ours.input == 0.10
    for settings, model in (
        (judge(), "no-price"),
        (judge(), "unheard-of"),
        (judge(base_url="http://127.0.0.1/v1"), "some-model"),  # a server of one's own, whatever its model is called
        (judge(base_url="https://api.mistral.ai.example.org/v1"), "some-model"),
    ):
        nothing, why = rate(settings, model)
        assert nothing is None and why.startswith("no price is known for")


def test_the_real_litellm_knows_more_than_our_table() -> None:
    """Where the extra is installed: of OpenAI's chat models with a price all are found that our table does not have."""
    if util.find_spec("litellm") is None:
        pytest.skip("litellm is not installed: pip install posttrain-bench[litellm]")
    price_map._read.cache_clear()
    every, version = price_map._read()
    models = [
        name
        for name, entry in every.items()
        if (entry.get("litellm_provider"), entry.get("mode")) == ("openai", "chat") and "output_cost_per_token" in entry
    ]
    found = [made for name in models if (made := rate(judge(), name)[0])]
    theirs = {one.source for one in found if not one.source.startswith("prices of 2026-11")}
    assert len(found) == len(models) > 20
    assert version == metadata.version("litellm")
    assert theirs == {f"the price map of litellm {version}"}
    assert any(one.batch_factor == pytest.approx(0.5) for one in found if one.source in theirs)
    assert "litellm" not in sys.modules
