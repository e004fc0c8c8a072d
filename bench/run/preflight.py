"""What can be found out before hours of training.

Does lm-eval know the tasks? Are the models and data sets there? Does the judge exist, answer, and give what its parser reads?
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from bench.errors import DataError, InputError, JudgeError, ModelError
from bench.settings import Judge, Model
from bench.suite.suite import Experiment, Suite

_KEY = "evaluation.win_rate.judge"
_FOLDER = Path("preflight") / "judge"
_ATTEMPTS = 3
_LONGEST_WAIT_SECONDS = 30.0
# With the time in it, so that it is a new question each time: an old reply says nothing of today
_TRIAL = {"instruction": "Say hello. It is {}.", "output_1": "Hello!", "output_2": "No."}


def check_tasks(suite: Experiment) -> None:
    """Refuse tasks that the installed lm-eval does not know.

    Raises:
        SuiteError: with the nearest names.
    """
    from bench.evaluators import lm_eval_index

    if not isinstance(suite, Suite) or suite.evaluation.lm_eval is None:
        return
    asked = [name for name in suite.evaluation.lm_eval.tasks if lm_eval_index.needs_index(name)]
    known = lm_eval_index.entries(lambda text: print(f"bench: {text}", file=sys.stderr)) if asked else {}
    for name in asked:
        if name not in known:
            raise lm_eval_index.unknown(name, known)


def check_hub(suite: Experiment, mirror: Path | None) -> None:
    """See that every model and data set that comes from the hub is cached, or can be fetched. Downloads nothing.

    Args:
        suite: what is named.
        mirror: where data sets are instead, if given; that they are is known since the plan was made.

    Raises:
        ModelError, DataError: one is neither here nor there; says which key, and what to do.
    """
    if not isinstance(suite, Suite):
        return
    judge = judge_of(suite)
    models = {"model": suite.model}
    if judge and judge.kind == "local" and judge.local_model:
        models[f"{_KEY}.local_model"] = judge.local_model
    for key, model in models.items():
        if model.source == "hub":
            _check_repository(key, str(model.path), model.revision, "model", ModelError)
    for key, data in (("data.preference", suite.data.preference), ("data.instruction", suite.data.instruction)):
        if data.source == "hub" and mirror is None:
            _check_repository(key, str(data.path), data.revision, "dataset", DataError)


def _check_repository(
    key: str, name: str, revision: str | None, kind: Literal["model", "dataset"], problem: type[InputError]
) -> None:
    from huggingface_hub import HfApi, errors, get_hf_file_metadata, hf_hub_url

    if _is_cached(name, revision, kind):
        return
    where = f"{key}.path = {name!r}"
    try:
        if kind == "model":
            get_hf_file_metadata(hf_hub_url(name, "config.json", revision=revision), timeout=_LONGEST_WAIT_SECONDS)
        else:
            HfApi().dataset_info(name, revision=revision, timeout=_LONGEST_WAIT_SECONDS)
    except errors.GatedRepoError:
        raise problem(
            f"{where}: the hub wants a licence accepted first; do so on its page, then 'hf auth login'"
        ) from None
    except errors.RevisionNotFoundError:
        raise problem(f"{where}: the hub has it, but no revision {revision!r}") from None
    except (errors.RepositoryNotFoundError, errors.HFValidationError):
        raise problem(
            f"{where}: the hub has no {kind} of that name that you may see; check the name, or 'hf auth login'"
        ) from None
    except errors.EntryNotFoundError:
        raise problem(f"{where}: the hub has it, but no config.json in it, so it is no transformers model") from None
    except Exception as error:  # offline, no route, a proxy, a server in trouble: each library has classes of its own
        here = "--mirror DIR (or BENCH_MIRROR) with its copy" if kind == "dataset" else "source: local with its folder"
        raise problem(
            f"{where}: neither in the hub's cache nor can the hub be reached ({type(error).__name__}); go online, or "
            f"give {here}"
        ) from None


def _is_cached(name: str, revision: str | None, kind: str) -> bool:
    """Whether an earlier run has fetched it; a data set's cache says nothing of revisions."""
    from huggingface_hub import constants, try_to_load_from_cache

    if kind == "model":
        return isinstance(try_to_load_from_cache(name, "config.json", revision=revision), str)
    import datasets

    prepared = Path(datasets.config.HF_DATASETS_CACHE) / name.replace("/", "___")
    fetched = Path(constants.HF_HUB_CACHE) / f"datasets--{name.replace('/', '--')}"
    return prepared.is_dir() or fetched.is_dir()


def judge_of(suite: Experiment) -> Judge | None:
    """Return a suite's judge, if it has one."""
    win_rate = suite.evaluation.win_rate if isinstance(suite, Suite) else None
    return win_rate.judge if win_rate else None


def judge_warnings(suite: Experiment) -> list[str]:
    """Say what is known of a suite's judge without asking it."""
    judge = judge_of(suite)
    return warnings_of(judge) if judge else []


def warnings_of(judge: Judge) -> list[str]:
    """Say that a judge's model is retired."""
    from bench.judges import alpaca
    from bench.judges.cost import retirement

    if judge.kind != "openai":
        return []
    model = judge.model or alpaca.configuration(judge.configuration).model
    since = retirement(judge, model)
    if since is None:
        return []
    named = "" if judge.model else f", which {judge.configuration} names,"
    return [f"the judge {model}{named} is retired since {since}; set judge.model to a living one, such as gpt-4.1"]


def check_judge(suite: Experiment, folder: Path) -> dict[str, Any] | None:
    """Ask a paid judge one tiny question and read its reply as the suite will.

    The reply is kept in the suite's folder like any other, with what it cost.

    Args:
        suite: whose judge it is; suites with another kind of judge or none are passed over.
        folder: the suite's results.

    Returns:
        What the question cost, as in a score; None where there was nothing to ask.

    Raises:
        InputError: the judge cannot be used; says what to change.
    """
    judge = judge_of(suite)
    if judge is None or judge.kind != "openai":
        return None
    patient = {"concurrency": 1, "timeout_seconds": min(judge.timeout_seconds, _LONGEST_WAIT_SECONDS)}
    try:
        problem, bill = _ask(judge.model_copy(update=patient), folder)
    except JudgeError as error:
        raise InputError(f"{_KEY}: {error}") from None
    if problem:
        raise InputError(f"{_KEY}: {problem}")
    return bill


def _ask(judge: Judge, folder: Path) -> tuple[str | None, dict[str, Any]]:
    """Return the problem with the judge's reply, if any, and the bill."""
    from bench.evaluators.win_rate import JOURNALS
    from bench.judges import Request, alpaca
    from bench.judges.asking import JOURNAL, Asking

    configuration = alpaca.configuration(judge.configuration)
    fields = _TRIAL | {"instruction": _TRIAL["instruction"].format(datetime.now(UTC).isoformat())}
    request = Request(fields["instruction"], fields["output_1"], fields["output_2"], configuration.messages(fields))
    journal = folder / _FOLDER / JOURNAL
    others: Callable[[], Any] = lambda: folder.glob(JOURNALS)  # noqa: E731
    with Asking(judge, configuration, journal, others, _no_model, lambda text: None, _ATTEMPTS) as asking:
        (reply,) = asking.complete([request], lambda request: (0, "ours_first"))
        row, bill = asking.last_row, asking.bill()
    if asking.stopped:
        raise asking.stopped
    if reply is not None:
        return None, bill
    where = f"the judge {asking.judging.model} at {asking.judging.host}"
    if row and row["error"]:
        return (
            f"{where} gave no reply that can be read ({row['error']}); see that it is up and that base_url is right",
            bill,
        )
    needs = "log-probabilities of both labels" if configuration.reads_logprobs else "a ranking"
    return (
        f"{where} answers, but without {needs}, which the configuration {judge.configuration} reads; "
        "choose another judge.model or judge.configuration"
    ), bill


def _no_model(model: Model) -> Any:
    raise AssertionError(f"a paid judge loads no model here: {model.source}")
