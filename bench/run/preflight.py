"""What can be found out before hours of training.

Are the models and data sets there? Do the evaluators know their tasks, and do the services answer that they ask?
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bench.errors import DataError, InputError, ModelError
from bench.evaluators import Evaluator
from bench.methods import METHODS
from bench.plan import planner
from bench.recipes import RECIPES
from bench.records.spec import RunLabels
from bench.suite.suite import Experiment, Suite
from bench.train.setup import setup_of

if TYPE_CHECKING:
    from bench.evaluators.engine.serve_plan import Needs

_LONGEST_WAIT_SECONDS = 30.0


def check(suite: Experiment) -> None:
    """Refuse what is known to fail: what other packages bring, and what the suite's evaluators say of themselves.

    Raises:
        SuiteError: such as tasks that the installed lm-eval does not know, with the nearest names.
        PluginError, InputError: another package's code raises, or is not what its protocol says.
    """
    if not isinstance(suite, Suite):
        return
    check_collectors()
    check_methods(suite)
    chosen = suite.evaluation.chosen
    planner.refuse_equal_kinds({name: evaluator.stages() for name, evaluator in chosen.items()})
    for evaluator in chosen.values():
        evaluator.check(lambda text: print(f"bench: {text}", file=sys.stderr))


def check_methods(suite: Suite) -> None:
    """Ask what other packages bring to train with all that can be asked without a model.

    Raises:
        PluginError, InputError: it raises, or declares what cannot be; says whose it is.
    """
    for method in suite.methods:
        table = METHODS if method.name in METHODS else RECIPES
        if table.ours(method.name):
            continue
        options = table[method.name].Options.model_validate(method.options)
        if method.name in RECIPES:
            RECIPES[method.name](options)
            continue
        for lambda_dpo in method.lambdas or suite.lambdas:
            _check_method(suite, method.name, lambda_dpo, options)


def _check_method(suite: Suite, name: str, lambda_dpo: float, options: Any) -> None:
    kind, seed = METHODS[name], suite.seeds[0]
    labels = RunLabels(name, name, lambda_dpo, seed, suite.order, suite.phase_steps(lambda_dpo))
    setup = setup_of(labels, suite.steps)
    planner.phases_of(name, setup, options)
    kind.batches_per_step(lambda_dpo, options)
    kind.work(lambda_dpo, options)
    if not kind.needs(options):  # what the others need is known only once the optima are trained
        kind(setup, options)


def check_collectors() -> None:
    """Refuse collectors that cannot be loaded, or whose figure would take the place of another.

    Raises:
        InputError: says whose it is.
    """
    from bench import collectors

    collectors.check()
    brought = [name for name in collectors.COLLECTORS if collectors.COLLECTORS.origin(name)]
    if brought:
        from bench.train import run_log

        taken = next((name for name in brought if name in run_log.own_names()), None)
        if taken:
            raise InputError(f"the collector {taken!r} has the name of a figure that every run has; give it another")


def warnings(suite: Experiment) -> list[str]:
    """Say what is doubtful about the suite's evaluations without asking anybody, such as a retired judge."""
    return [line for evaluator in evaluators_of(suite) for line in evaluator.warnings()]


def try_out(suite: Experiment, kinds: set[str], folder: Path, mirror: Path | None) -> list[str]:
    """Try what would fail after hours of training, such as a judge that does not answer.

    Args:
        suite: what is to be run.
        kinds: of the jobs that are still to be done, and the names of their stages.
        folder: the suite's results.
        mirror: an offline mirror of the hub, if there is one.

    Returns:
        What was found to be good, in words.

    Raises:
        InputError: with what to change.
    """
    found = (evaluator.try_out(kinds, folder, mirror) for evaluator in evaluators_of(suite))
    return [line for line in found if line]


def evaluators_of(suite: Experiment) -> list[Evaluator]:
    """Return a suite's evaluators; a toy has none."""
    return list(suite.evaluation.chosen.values()) if isinstance(suite, Suite) else []


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
    models = {"model": suite.model}
    for evaluator in evaluators_of(suite):
        models |= evaluator.models()
    for key, model in models.items():
        if model.source == "hub":
            _check_repository(key, str(model.path), model.revision, "model", ModelError)
    for key, data in (("data.preference", suite.data.preference), ("data.instruction", suite.data.instruction)):
        if data.source == "hub" and mirror is None:
            _check_repository(key, str(data.path), data.revision, "dataset", DataError)


def _check_model(suite: Suite, tokenizer: Any, mirror: Path | None, own: Mapping[str, Sequence[str]]) -> list[str]:
    """Hold the model's settings against its tokenizer and the rows it may be given, without its weights.

    Returns:
        What is doubtful.

    Raises:
        ModelError: it cannot be read, or cannot compute such rows.
    """
    from bench.data import tokens
    from bench.models import tokenizers

    data = suite.data
    new = max((one.new_tokens() for one in evaluators_of(suite)), default=0)

    def longest() -> int:
        read = tokens.load(data, tokenizer, mirror, judged=pairs_wanted(suite))
        rows = [one for splits in (read.train, read.held_out) for split in splits.values() for one in split.examples]
        lengths = [len(one.prompt) + max(map(len, one.answers)) for one in rows]
        asking = tokens.Tokenizing(tokenizer, data.max_prompt_tokens, new)
        prompts = [row.prompt for row in read.judged] + [prompt for found in own.values() for prompt in found]
        return max(lengths + [len(asking.prompt(prompt)) + new for prompt in prompts])

    limit = data.max_prompt_tokens + max(data.max_answer_tokens, new)
    return tokenizers.check(suite.model, tokenizer, limit, longest)


def _cut_prompts(prompts: Mapping[str, Sequence[str]], tokenizer: Callable[[], Any], limit: int) -> list[str]:
    """Count the evaluators' own prompts that are longer than the suite lets a prompt be."""
    from bench.data import tokens

    doubts = []
    for name, found in ((name, found) for name, found in prompts.items() if found):
        asking = tokens.Tokenizing(tokenizer(), limit, 1)
        for prompt in found:
            asking.prompt(prompt)
        if asking.cut_prompts:
            doubts.append(
                f"evaluation.{name}: {asking.cut_prompts} of {len(found)} prompts are longer than data.max_prompt_tokens = "
                f"{limit} and lose their left end"
            )
    return doubts


def pairs_wanted(suite: Suite) -> int:
    """Return how many held-out pairs the evaluations ask for."""
    return max((evaluator.pairs_wanted() for evaluator in evaluators_of(suite)), default=0)


def serving_needs(suite: Suite, workers: int) -> Needs:
    """Say what a server has to serve that makes a suite's answers.

    Raises:
        InputError: the suite has none.
    """
    from bench.evaluators.engine.serve_plan import Needs
    from bench.evaluators.options import WinRate

    options = (suite.evaluation.model_extra or {}).get("win_rate")
    if not isinstance(options, WinRate):
        raise InputError("evaluation.win_rate: this suite generates no answers, so nothing has to be served")
    generation = options.generation
    tokens = suite.data.max_prompt_tokens + generation.max_new_tokens
    endpoint = generation.endpoint if generation.engine == "endpoint" else None
    return Needs(suite.model, suite.lora, endpoint, tokens, workers)


def check_data(suite: Experiment, mirror: Path | None) -> list[str]:
    """Read what is on this machine of the rows that jobs will read, as the model will see them; the built-in world's are made.

    Returns:
        What is doubtful: rows both trained on and held out, pairs of equal answers, rows longer than the model was made for.

    Raises:
        ModelError: the model cannot be read, or cannot compute such rows.
        DataError: a damaged file, too few rows, a row that does not fit the format; says which, and what to do.
    """
    from bench.data import counts, sources
    from bench.models import tokenizers
    from bench.records import row_counts

    if not isinstance(suite, Suite):
        return []
    pairs, rows, reference = suite.data.preference, suite.data.instruction, suite.reference
    own = {"preference_chosen": pairs, "sft": rows}.get(str(reference.policy)) if reference.rows else None
    on_chosen = rows.source == "chosen"
    world = [source for source in (pairs, rows) if source.source == "world"]
    found = [source for source in (pairs, rows) if source.source in ("hub", "local") and sources.locate(source, mirror)]
    built_in = suite.model.source in ("random", "world")
    tokenizer = None if built_in and not found else tokenizers.load(suite.model)
    drop = suite.data.bad_rows == "drop"
    loaded = cache(lambda: tokenizer or tokenizers.load(suite.model))
    asked = {name: one.own_prompts(suite.data, loaded, mirror) for name, one in suite.evaluation.chosen.items()}
    doubts = [] if built_in else _check_model(suite, tokenizer, mirror, asked)
    doubts += _cut_prompts(asked, loaded, suite.data.max_prompt_tokens)
    for source in (*found, *world):
        wanted = {"rows": source.rows, "reference.rows": (reference.rows or 0) if source is own else 0}
        wanted |= {"instruction.rows": rows.rows} if on_chosen else {}
        key = max(wanted, key=lambda name: wanted[name])
        train = sources.load_rows(source, "train", wanted[key], tokenizer, mirror, lower=key, drop=drop)
        wanted = {"rows or evaluation_rows": source.evaluation_rows}
        wanted |= {"instruction.evaluation_rows": rows.evaluation_rows} if on_chosen else {}
        if source is pairs:
            chosen = suite.evaluation.chosen.items()
            wanted |= {f"rows or evaluation.{name}.prompts": evaluator.pairs_wanted() for name, evaluator in chosen}
        key = max(wanted, key=lambda name: wanted[name])
        held_out = sources.load_rows(source, "held_out", wanted[key], tokenizer, mirror, lower=key, drop=drop)
        facts = [{"rows": len(one.rows)} | counts.of_rows(one.rows) for one in (train, held_out)]
        facts[1] |= counts.overlap(train.rows, held_out.rows)
        name = "preference" if source is pairs else "instruction"
        doubts += [f"data.{name}: {line}" for line in row_counts.warnings(*facts)]
    return doubts


def open_data(suite: Experiment, mirror: Path | None) -> tuple[list[str], list[str]]:
    """Read the rows of data sets that are on this machine, as `check_data` does; those of the hub alone wait for a run.

    Returns:
        The data sets that were read, and what is doubtful; that a tokenizer of the hub was out of reach is a doubt, too.

    Raises:
        ModelError, DataError: see `check_data`.
    """
    from bench.data import sources

    if not isinstance(suite, Suite):
        return [], []
    named = [one for one in (suite.data.preference, suite.data.instruction) if one.source in ("hub", "local")]
    found = list(dict.fromkeys(str(one.path) for one in named if one.source == "local" or mirror is not None))
    for one in named:
        sources.locate(one, mirror)  # one that is missing is an error, whatever the model
    if not found:
        return [], []
    model = suite.model
    try:
        if model.source == "hub":  # one that is out of reach is known at once, not after the library's many tries
            _check_repository("model", str(model.path), model.revision, "model", ModelError)
        return found, check_data(suite, mirror)
    except ModelError as error:
        if model.source != "hub":
            raise
        return [], [f"the rows were not read: {error}"]


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
