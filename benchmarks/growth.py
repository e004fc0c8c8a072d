"""How the seconds of a suite grow with its runs, its rows' length and its model's size."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import material
from benchmarks.rows import Context, Row
from benchmarks.sides import Turns, call
from benchmarks.timing import fit_power

# Width, layers and heads of the built-in architecture at two sizes; the first is the built-in world's own.
SIZES = {"1M": (128, 4, 4), "4M": (272, 4, 8)}
# Of the rows that models of all sizes are trained on.
_LENGTH = 128


def rows(context: Context) -> Iterator[Row]:
    """Fit one exponent each."""
    folder = context.folder("growth")
    made = call(context, "benchmarks.growth:prepare", folder=str(folder))
    yield _runs(context, folder)
    lengths, steps = (64, 128, 256, 512), 2
    real = material.smollm2("float32")
    longer = _seconds(context, folder, {length: _suite(folder, real, length, steps, 1) for length in lengths})
    yield _fitted(f"a suite on SmolLM2-135M, {steps} steps a run", "tokens of a row", longer)
    sizes = {made["parameters"][size]: _suite(folder, _local(folder, size), _LENGTH, steps, 1) for size in SIZES}
    larger = _seconds(context, folder, sizes) | {made["parameters"]["135M"]: longer[_LENGTH]}
    yield _fitted(f"a suite with rows of {_LENGTH} tokens, {steps} steps a run", "parameters of the model", larger)


def _runs(context: Context, folder: Path) -> Row:
    counts, steps = (1, 2, 4, 8), 20
    methods = ["sequential", "mix", "alright", "maxright"]
    suites = {}
    for count in counts:
        lambdas = [(one + 1) / (count + 1) for one in range(count)]
        changes: dict[str, Any] = {"methods": methods, "lambdas": lambdas}
        suites[len(methods) * count] = _suite(folder, _local(folder, "1M"), 32, steps, steps // 2, **changes)
    found = _seconds(context, folder, suites)
    return _fitted(f"a suite of short runs, 1M parameters, {steps} steps each", "number of runs", found)


def _local(folder: Path, size: str) -> dict[str, Any]:
    return {"source": "local", "path": str(folder / size)}


def _fitted(work: str, against: str, found: Mapping[int, float]) -> Row:
    power = fit_power(list(found), list(found.values()))
    error = "" if power.standard_error is None else f" ± {power.standard_error:.2f} (standard error)"
    measured = ", ".join(f"{seconds:.3g} s at {x:,}" for x, seconds in found.items())
    return Row(
        f"seconds of {work}",
        against,
        [power.exponent],
        unit="",
        facts={"x": list(found), "seconds": list(found.values()), "standard_error": power.standard_error},
        notes=[f"Seconds of {work} grow with {against} to the power {power.exponent:.2f}{error}: {measured}."],
    )


def _seconds(context: Context, folder: Path, suites: Mapping[int, dict[str, Any]]) -> dict[int, float]:
    """Run suites one after another in a fresh process; return each one's seconds by the same key."""
    for at, suite in suites.items():
        context.say(f"{at:,}: {len(suite['methods'])} methods × {len(suite['lambdas'])} λ")
    made = call(context, "benchmarks.growth:run", suites=list(suites.values()), folder=str(folder / "results"))
    return dict(zip(suites, made["seconds"], strict=True))


def _suite(folder: Path, model: dict[str, Any], length: int, steps: int, every: int, **changes: Any) -> dict[str, Any]:
    """Return a suite whose rows all have `length` tokens: half prompt, half answer, cut from long texts."""
    made = material.suite(
        folder,
        "float32",
        16,
        16,
        training={"steps": steps, "batch_size": {"dpo": 2, "sft": 4}, "evaluate_every": every},
        data={"max_prompt_tokens": length // 2, "max_answer_tokens": length // 2},
        **changes,
    )
    return made | {
        "model": {**model, "dtype": "float32"},
        "lora": {"rank": 8, "alpha": 16, "targets": ["q_proj", "v_proj"]},
    }


# ---- inside a side ---------------------------------------------------------------------------------------------------


def prepare(turns: Turns, folder: str) -> dict[str, Any]:
    """Write long rows of the built-in world's sentences, and the built-in models with random weights.

    Returns:
        {"parameters": {size: count}}, SmolLM2 included.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from bench.data import world
    from bench.models import policy, world_model
    from bench.settings import Model

    del turns
    place = Path(folder)
    text = " ".join(world.corpus()[:120])
    pair = json.dumps({"prompt": text, "chosen": " " + text, "rejected": " Just " + text})
    (place / "pairs.jsonl").write_text((pair + "\n") * 18, encoding="utf-8")
    row = json.dumps({"instruction": text, "output": " " + text})
    (place / "rows.jsonl").write_text((row + "\n") * 18, encoding="utf-8")
    parameters = {}
    for size, (width, layers, heads) in SIZES.items():
        torch.manual_seed(0)
        config = world_model.config("llama", "small")
        config.update(
            {
                "hidden_size": width,
                "intermediate_size": 3 * width,
                "num_hidden_layers": layers,
                "num_attention_heads": heads,
                "num_key_value_heads": heads,
                "head_dim": width // heads,
            }
        )
        model = AutoModelForCausalLM.from_config(config)
        model.save_pretrained(place / size)
        world_model.tokenizer().save_pretrained(place / size)
        parameters[size] = model.num_parameters()
    real = policy.load(Model(**material.smollm2("float32")), torch.device("cpu")).model
    return {"parameters": parameters | {"135M": real.num_parameters()}}


def run(turns: Turns, suites: Sequence[dict[str, Any]], folder: str) -> dict[str, Any]:
    """Run suites from nothing: {"seconds": each one's}, its jobs' added up, without start-up and the first loading."""
    import shutil

    from benchmarks.ours import run_jobs

    def jobs_of(suite: dict[str, Any]) -> dict[str, Any]:
        shutil.rmtree(folder, ignore_errors=True)
        return run_jobs(turns, suite, folder)

    # A short run first: libraries and the model's file are then in memory, whatever the suite's size.
    short = suites[0]["training"] | {"steps": 1}
    jobs_of(suites[0] | {"training": short, "methods": ["mix"], "lambdas": [0.5]})
    return {"seconds": [sum(job["seconds"] for job in jobs_of(suite).values()) for suite in suites]}
