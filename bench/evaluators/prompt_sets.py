"""Prompts from elsewhere with reference answers: AlpacaEval 2's published set, or a user's file. No torch.

Rows are known by what they say: a set is the same wherever it was read from.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from bench.errors import DataError, InputError, SuiteError, one_line, unknown_name
from bench.evaluators.options import ALPACA_EVALS_JUDGE

if TYPE_CHECKING:
    from bench.judges import JudgeSettings

HELD_OUT, ALPACA_EVAL = "held_out", "alpaca_eval"
KNOWN = (HELD_OUT, ALPACA_EVAL)
KEY = "evaluation.win_rate.prompts_from"
# Where alpaca_eval itself fetches AlpacaEval 2's set, and the name that the set has there.
HUB, FILE = "tatsu-lab/alpaca_eval", "alpaca_eval_gpt4_baseline"
# Of the 805 rows as published: instructions and reference answers, in this order.
PUBLISHED_ROWS = 805
PUBLISHED_SHA256 = "f69dec4b5a145626a4d23460decce2e836cfd0fc016272aa6f924b150bd8fa09"
_GENERATORS = {"gpt4_1106_preview": "gpt-4-1106-preview", "gpt4_turbo": "gpt-4-1106-preview"}
_INSTRUCTION, _REFERENCE = ("instruction", "prompt"), ("reference", "output")


@dataclass(frozen=True)
class Prompt:
    """An instruction, and the answer that others are compared with."""

    instruction: str
    reference: str


@dataclass(frozen=True)
class PromptSet:
    """The prompts that a suite judges on.

    Attributes:
        name: of the set, for people.
        rows: in the order of the set.
        by: who gave the reference answers; "" where the set does not say.
    """

    name: str
    rows: tuple[Prompt, ...]
    by: str

    @property
    def instructions_sha256(self) -> str:
        """Hash what policies are asked."""
        return _sha256([row.instruction] for row in self.rows)

    @property
    def sha256(self) -> str:
        """Hash what is asked and what answers are compared with."""
        return _sha256([row.instruction, row.reference] for row in self.rows)

    @property
    def is_published(self) -> bool:
        """Whether these are AlpacaEval 2's prompts and reference answers, all of them."""
        return len(self.rows) == PUBLISHED_ROWS and self.sha256 == PUBLISHED_SHA256

    @property
    def against(self) -> str:
        """Say whose answers ours are compared with."""
        answers = f"the answers of {self.by}" if self.by else "the reference answers"
        return f"{answers} to {'the prompts of AlpacaEval 2' if self.name == ALPACA_EVAL else 'the prompts of a file'}"

    @property
    def lengths(self) -> tuple[float, float]:
        """Mean characters of an instruction and of a reference answer."""
        return fmean(len(row.instruction) for row in self.rows), fmean(len(row.reference) for row in self.rows)


def load(name: str, count: int | None, mirror: Path | None) -> PromptSet:
    """Read a set, or its first so many rows.

    Args:
        name: `alpaca_eval`, or a file.
        count: how many; None takes all.
        mirror: an offline mirror of the hub, if there is one.

    Raises:
        InputError: there is no such set or file, it cannot be read, or has fewer rows.
    """
    where, rows = _alpaca_eval(mirror) if name == ALPACA_EVAL else _of_file(name)
    if count is not None and count > len(rows):
        raise SuiteError(
            f"evaluation.win_rate.prompts = {count}: {where} has {len(rows)}; lower it, or leave it out to take all"
        )
    taken = rows[:count]
    prompts = tuple(_prompt(where, place, row) for place, row in enumerate(taken, 1))
    whose = {str(row.get("generator") or "") for row in taken}
    (by,) = whose if len(whose) == 1 else ("",)
    return PromptSet(name if name == ALPACA_EVAL else "file", prompts, _GENERATORS.get(by, one_line(by, 80)))


def facts(read: PromptSet, judge: JudgeSettings, configuration: str, cut_prompts: int) -> dict[str, Any]:
    """Say in a score what it was judged on: whose prompts and reference answers, and what published figures compare with it.

    Args:
        read: the prompts.
        judge: who judged.
        configuration: that was asked by.
        cut_prompts: how many prompts were longer than the suite lets them be, and lost their left end.
    """
    found: dict[str, Any] = {"prompts_from": read.name, "prompts_sha256": read.sha256, "cut_prompts": cut_prompts}
    found["against"] = read.against
    if read.name == ALPACA_EVAL:
        found["published_compares"] = not (reasons := why_not_published(read, judge, configuration))
        found |= {"published_reason": "; ".join(reasons)} if reasons else {}
    return found


def why_not_published(read: PromptSet, judge: JudgeSettings, configuration: str) -> list[str]:
    """Say what sets a judging apart from AlpacaEval 2's published ones; nothing where they compare."""
    from bench.evaluators.win_rate import judge_name
    from bench.judges import alpaca

    published = alpaca.configuration(ALPACA_EVALS_JUDGE["configuration"])
    reasons = []
    if not read.is_published:
        rows = f"{len(read.rows)} of {PUBLISHED_ROWS}" if len(read.rows) < PUBLISHED_ROWS else "other"
        reasons.append(f"{rows} prompts or reference answers, published are all {PUBLISHED_ROWS}")
    if judge.kind not in ("openai", "replay"):
        reasons.append(f"judged by the kind {judge.kind}, published by {published.model}")
    elif configuration != published.name:
        reasons.append(f"judged under {configuration}, published under {published.name}")
    elif (name := judge_name(judge)) != published.model:
        reasons.append(f"judged by {name}, published by {published.model}")
    if judge.orders != ALPACA_EVALS_JUDGE["orders"]:
        reasons.append("each pair judged in both orders, published in one drawn at random")
    if judge.parameters:
        reasons.append("judge.parameters changes requests")
    return reasons


def refuse_unknown(name: str) -> None:
    """Refuse what is neither a set nor a file here.

    Raises:
        SuiteError: with the nearest name.
    """
    if name not in KNOWN and not Path(name).expanduser().is_file():
        raise SuiteError(
            f"{KEY} = {name!r}: no such file, and {unknown_name('prompt set', name, KNOWN)}, or a JSON or JSON lines "
            "file of instruction and output rows"
        )


def _of_file(name: str) -> tuple[str, list[Any]]:
    from bench.judges import completion_files

    refuse_unknown(name)
    path = Path(name).expanduser()
    try:
        return str(path), completion_files.rows(path)
    except InputError as error:
        raise SuiteError(f"{KEY} = {name!r}: {error}") from None


def _prompt(where: str, place: int, row: Any) -> Prompt:
    """Read a row; a reference of its own goes before an output.

    Raises:
        DataError: it lacks a text.
    """
    if not isinstance(row, Mapping):
        raise DataError(f"{where}: row {place}: {row!r:.40} is no object with an instruction and a reference answer")
    instruction, reference = (_text(where, place, row, names) for names in (_INSTRUCTION, _REFERENCE))
    more = row.get("input")
    if isinstance(more, str) and more.strip():
        instruction = f"{instruction}\n{more}"
    if not instruction.strip():
        raise DataError(f"{where}: row {place}: its instruction is empty; take it out")
    return Prompt(instruction, reference)


def _text(where: str, place: int, row: Mapping[str, Any], names: tuple[str, ...]) -> str:
    name = next((one for one in names if row.get(one) is not None), names[0])
    value = row.get(name)
    if not isinstance(value, str):
        has = ", ".join(map(str, row)) or "nothing"
        raise DataError(
            f"{where}: row {place}: no text under {' or '.join(map(repr, names))}; it has {one_line(has, 200)}"
        )
    try:
        value.encode()
    except UnicodeEncodeError:
        raise DataError(f"{where}: row {place}: {name!r} holds half of a surrogate pair, which is no text") from None
    return value


def _sha256(rows: Iterable[list[str]]) -> str:
    """Hash texts by what they say; white space around them is not shown to a judge."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps([text.strip() for text in row], ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()


# ---- AlpacaEval 2 -----------------------------------------------------------------------------------------------------


def _alpaca_eval(mirror: Path | None) -> tuple[str, list[Any]]:
    from bench.data import files, sources
    from bench.settings import DataSource

    source = DataSource(source="hub", path=HUB, rows=1)
    try:
        folder = sources.locate(source, mirror)
    except DataError as error:
        raise DataError(f"{KEY} = {ALPACA_EVAL!r}: {error}") from None
    if folder is None:
        path = _from_hub(sources.revision(source))
        return HUB, files.read_file(path)
    found = _in_a_folder(folder)
    return f"{HUB} in {mirror}", [row for path in found for row in files.read_file(path)]


def _in_a_folder(folder: Path) -> list[Path]:
    """Find the set's files in a copy of the hub's repository: by its name, or as the only rows there.

    Raises:
        DataError: neither.
    """
    from bench.data import files

    every = files.data_files(folder)
    named = [path for path in every if FILE in (_stem(path), *path.relative_to(folder).parts[:-1])]
    found = [path for path in named if path.suffix == named[0].suffix] or (every if len(every) == 1 else [])
    if not found:
        has = ", ".join(str(path.relative_to(folder)) for path in every[:5]) or "no data file"
        raise DataError(
            f"{folder}: no {FILE}.json, which holds AlpacaEval 2's prompts and reference answers; it has {has}"
        )
    return found


def _stem(path: Path) -> str:
    return path.name.partition(".")[0]


def _from_hub(revision: str | None) -> Path:
    """Fetch the set, or find it in the hub's cache on this machine; a hub that cannot be reached is asked once.

    Raises:
        DataError: it is neither here nor there.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    name, reason = f"{FILE}.json", "the hub cannot be reached"
    known = try_to_load_from_cache(HUB, name, revision=revision, repo_type="dataset")
    if isinstance(known, str):
        return Path(known)
    if revision is not None:
        try:
            return Path(hf_hub_download(HUB, name, repo_type="dataset", revision=revision))
        except Exception as error:  # gated, moved, cut off: the library has many classes of its own
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    raise DataError(
        f"{KEY} = {ALPACA_EVAL!r}: {HUB} cannot be fetched ({reason}); go online, or pass --mirror DIR (or BENCH_MIRROR) with "
        f"DIR/datasets/{HUB}/{FILE}.json"
    )
