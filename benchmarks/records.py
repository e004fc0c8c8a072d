"""Make the records of many runs out of a few committed ones, for measuring reports."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

from bench.records import record, seal
from bench.records.suite_record import SuiteRecord, find_suites

METHODS = ("sequential", "mix", "alright", "maxright")
# 4 methods × λ × seeds.
GRIDS = {100: (5, 5), 1000: (10, 25)}
_TEMPLATE_SEEDS = 3
_TEMPLATE_LAMBDAS = (0.25, 0.5, 0.75)


def write(source: Path, target: Path, runs: int) -> None:
    """Write a suite's records with that many runs, each with its evaluations, and two optima a seed.

    Args:
        source: the archive of the quickstart suite's committed records.
        target: the folder of the new suite; what is there is deleted.
        runs: a key of GRIDS.
    """
    lambdas_wanted, seeds_wanted = GRIDS[runs]
    lambdas = [round((place + 1) / (lambdas_wanted + 1), 4) for place in range(lambdas_wanted)]
    shutil.rmtree(target, ignore_errors=True)
    (records,) = find_suites(source)
    suite = json.loads((records.path / "suite.json").read_text(encoding="utf-8"))
    copier = _Copier(records, target)
    for job_id in suite["jobs"]:
        # The base model, the reference (it is the SFT optimum of seed 0) and what else belongs to no run or seed.
        if not any(f"-s{seed}-" in job_id for seed in range(_TEMPLATE_SEEDS)):
            copier.copy({job_id: job_id}, {}, 0.0)
    for seed in range(seeds_wanted):
        for objective in ("sft", "dpo"):
            copier.run(f"{objective}-optimum-s{seed % _TEMPLATE_SEEDS}", f"{objective}-optimum-s{seed}", {"seed": seed})
        for lambda_dpo in lambdas:
            near = min(_TEMPLATE_LAMBDAS, key=lambda one: abs(one - lambda_dpo))
            for method in METHODS:
                copier.run(
                    f"{method}-l{near:g}-s{seed % _TEMPLATE_SEEDS}",
                    f"{method}-l{lambda_dpo:g}-s{seed}",
                    {"seed": seed, "lambda_dpo": lambda_dpo},
                )
    suite |= {"name": target.name, "jobs": copier.made}
    suite["suite"] |= {"name": target.name, "lambdas": lambdas, "seeds": list(range(seeds_wanted))}
    record.write_json(target / "suite.json", suite)


class _Copier:
    """Copy jobs under other names, with other labels and slightly other values."""

    def __init__(self, source: SuiteRecord, target: Path) -> None:
        self.source, self.target = source, target
        self.made: list[str] = []
        self.known = sorted(source.jobs)
        self.chance = random.Random(0)

    def run(self, start: str, name: str, changes: dict[str, Any]) -> None:
        """Copy a training job and its evaluations; seed 0's optima keep their ids, which the reference's jobs name."""
        ids = [one for one in self.known if one.rsplit("-", 1)[0].endswith(start)]
        same = start == name
        renamed = {one: one if same and "optimum" in one else self._renamed(one, start, name) for one in ids}
        self.copy(renamed, changes, 0.0 if same else self.chance.uniform(-0.02, 0.02))

    def _renamed(self, job_id: str, start: str, name: str) -> str:
        prefix = job_id.rsplit("-", 1)[0].removesuffix(start)
        return f"{prefix}{name}-{self.chance.getrandbits(40):010x}"

    def copy(self, renamed: dict[str, str], changes: dict[str, Any], share: float) -> None:
        """Copy jobs under new ids, wherever those are named, with every objective value changed by a share."""
        for old, new in renamed.items():
            folder = self.target / "jobs" / new
            folder.mkdir(parents=True)
            for file in self.source.jobs[old].path.iterdir():
                text = file.read_text(encoding="utf-8")
                for one, other in renamed.items():
                    text = text.replace(one, other)
                (folder / file.name).write_text(_changed(file.name, text, changes, share), encoding="utf-8")
            for name in ("spec.json", "status.json"):  # sealed anew, with the sha256 of what is there now
                kept = json.loads((folder / name).read_text(encoding="utf-8"))
                kept |= {"files": seal.of_files(folder)} if "files" in kept else {}
                record.write_json(folder / name, kept)
            self.made.append(new)


def _changed(name: str, text: str, changes: dict[str, Any], share: float) -> str:
    if name == "spec.json":
        spec = json.loads(text)
        spec["labels"] |= {key: value for key, value in changes.items() if key in spec["labels"]}
        return json.dumps(spec)
    if name == "scores.json":
        scores = json.loads(text)
        for key, score in scores.items():
            if key.startswith("f_") and score.get("value") is not None:
                score["value"] *= 1 + share
        return json.dumps(scores)
    if name == "trajectory.jsonl":
        return "".join(json.dumps(_scaled(json.loads(line), share)) + "\n" for line in text.splitlines())
    return text


def _scaled(row: dict[str, Any], share: float) -> dict[str, Any]:
    return {key: value * (1 + share) if key.startswith("f_") else value for key, value in row.items()}
