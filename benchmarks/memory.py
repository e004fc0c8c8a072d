"""Peak memory of one run a method, each in a fresh process, by the project's own collector."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks import material, training
from benchmarks.rows import Context, Row, RowFailed, at_most
from benchmarks.sides import call
from benchmarks.timing import alternate, ratios

METHODS = {
    "alright": {"name": "alright"},
    "maxright": {"name": "maxright"},
    "mix-accumulate": {"name": "mix", "label": "mix-accumulate", "backward": "accumulate"},
    "mix-joint": {"name": "mix", "label": "mix-joint", "backward": "joint"},
}


# Times ALRIGHT's peak, at most; None: for comparison only.
GOALS = {"maxright": 1.05, "mix-accumulate": 1.05, "mix-joint": None}


def rows(context: Context) -> Iterator[Row]:
    """Run every method on one and the same batch of pairs and of rows, over and over, so that none meets a longer one."""
    folder = context.folder("memory")
    names = ["alright", *GOALS]
    call(
        context,
        "benchmarks.material:write",
        mirror=str(context.mirror),
        folder=str(folder),
        pairs=6,
        rows=10,
        **training.LIMITS,
    )
    suite = material.suite(
        folder,
        "float32",
        4,
        8,
        training={"steps": 10},
        methods=[METHODS[name] for name in names],
    )
    context.say("reference and optima")
    results = f"{folder}/results"
    call(context, "benchmarks.ours:run_what_is_needed", suite=suite, folder=results, by=[f"{one}-l" for one in names])

    def peak(name: str) -> float:
        made = call(context, "benchmarks.ours:run_jobs", suite=suite, folder=results, only=[f"{name}-l"], again=True)
        (run,) = made.values()
        found = run["measurements"]
        if name == "alright" and not all(found.get(f"steps_on/{one}", {}).get("value") for one in ("dpo", "sft")):
            raise RowFailed("ALRIGHT's coin never fell on one of the objectives: more steps are needed")
        return float(found["peak_memory_bytes"]["value"])

    rounds = 2
    context.say(f"{rounds} runs of {', '.join(names)}, each in a fresh process")
    # A default value binds the name: each side is a function of no arguments.
    peaks = alternate({name: lambda name=name: peak(name) for name in names}, rounds, warm_up=0)  # type: ignore[misc]
    for name, goal in GOALS.items():
        yield Row(
            f"peak memory of {name}",
            "ALRIGHT",
            ratios(peaks[name], peaks["alright"]),
            goal=at_most(goal) if goal else None,
            sides={"own_bytes": peaks[name], "alright_bytes": peaks["alright"]},
            notes=["Memory: resident set at its highest while training (VmHWM), base model and libraries included."],
        )
