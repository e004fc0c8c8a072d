"""What the harness adds to bare steps, and what the objective values along a run cost beside its training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks import material
from benchmarks.rows import Context, Row, RowFailed, at_most
from benchmarks.sides import Side, call
from benchmarks.timing import alternate, ratios

SHIPPED = Path(__file__).resolve().parent.parent / "suites" / "smollm2_135m.yaml"


def rows(context: Context) -> Iterator[Row]:
    """Measure both."""
    yield _over_bare_loop(context)
    yield _trajectory(context)


def _over_bare_loop(context: Context) -> Row:
    """Let both take Mix's steps on the same batches: short ones, on which an overhead shows most."""
    folder = context.folder("harness")
    limits = {"prompt_tokens": 96, "answer_tokens": {"dpo": 48, "sft": 48}}
    files = {"mirror": str(context.mirror), "folder": str(folder)}
    call(context, "benchmarks.material:write", pairs=42, rows=82, **files, **limits)
    suite = material.suite(
        folder,
        "float32",
        40,
        80,
        training={"batch_size": {"dpo": 2, "sft": 4}},
        data={"max_prompt_tokens": 96, "max_answer_tokens": 48},
        methods=[{"name": "mix", "backward": "accumulate"}],
    )
    rounds = 5 if context.quick else 20
    with ExitStack() as stack:
        sides = {
            name: stack.enter_context(
                Side(context, f"benchmarks.ours:{function}", suite=suite, folder=f"{folder}/{name}", job="mix")
            )
            for name, function in (("ours", "steps"), ("bare", "bare_loop"))
        }
        batches = [side.ready()["batches"] for side in sides.values()]
        if batches[0] != batches[1]:
            raise RowFailed("the two sides would take other batches")
        context.say(f"a step of Mix: {rounds} rounds of ours, a bare loop")
        taken = alternate({name: side.turn for name, side in sides.items()}, rounds, warm_up=2)
    difference = max(
        abs(one["losses"][name] - other["losses"][name])
        for one, other in zip(taken["ours"], taken["bare"], strict=True)
        for name in other["losses"]
    )
    if difference > 1e-4:
        raise RowFailed(f"the losses differ by {difference:.3g}: not the same work")
    seconds = {name: [one["seconds"] for one in results] for name, results in taken.items()}
    return Row(
        "harness, a step of Mix, float32",
        "a bare PyTorch loop, same kernels and batches",
        ratios(seconds["ours"], seconds["bare"]),
        goal=at_most(1.03),
        sides={"ours_seconds": seconds["ours"], "other_seconds": seconds["bare"]},
        facts={"largest_loss_difference": difference},
        notes=["The harness's ratio is ours over the bare loop; 2 pairs and 4 rows a step, so that a step is short."],
    )


def _trajectory(context: Context) -> Row:
    """Make runs of the shipped SmolLM2 suite and clock their evaluations on held-out rows.

    Not Sequential's: its training seconds are those of both phases, and its first phase is evaluated in another job.
    """
    folder = context.folder("trajectory")
    suite = _shipped(context.quick)
    # MAXRIGHT's steps cost more than ALRIGHT's and less than Mix's: so its share lies between theirs.
    only = ["maxright"] if context.quick else ["mix", "alright", "maxright"]
    context.say(f"runs of {SHIPPED.name}: {', '.join(only)}")
    made = call(
        context, "benchmarks.ours:trajectory", suite=suite, folder=str(folder), mirror=str(context.mirror), only=only
    )
    shares = [run["seconds"]["held_out"] / run["training_seconds"] for run in made.values()]
    settings = suite["training"]
    notes = [
        f"Objective values along a run: {SHIPPED.name}, evaluated every {settings['evaluate_every']} of "
        f"{settings.get('steps') or 36} steps on {suite['data']['preference']['evaluation_rows']} pairs and "
        f"{suite['data']['instruction']['evaluation_rows']} rows, start and end included; one value a run "
        f"({', '.join(run.rsplit('-', 1)[0] for run in made)})."
    ]
    return Row(
        "held-out objective values along a run",
        "the same run's training seconds",
        shares,
        unit="%",
        goal=at_most(0.15),
        sides={
            "held_out_seconds": [run["seconds"]["held_out"] for run in made.values()],
            "train_split_seconds": [run["seconds"]["train"] for run in made.values()],
            "training_seconds": [run["training_seconds"] for run in made.values()],
        },
        facts=made,
        notes=notes,
    )


def _shipped(quick: bool) -> dict[str, Any]:
    """Read the shipped suite; λ = 0.5 alone and no questions or answers, which are other jobs."""
    import yaml

    suite: dict[str, Any] = yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))
    suite |= {"lambdas": [0.5], "evaluation": {}}
    if quick:
        # Half of everything: the share of the evaluations stays what it is.
        suite["training"] = {key: value for key, value in suite["training"].items() if key != "epochs"}
        suite["training"] |= {"steps": 9, "evaluate_every": suite["training"]["evaluate_every"] // 2}
        for part in suite["data"].values():
            if isinstance(part, dict) and "evaluation_rows" in part:
                part["evaluation_rows"] //= 2
                part["rows"] //= 2
    return suite
