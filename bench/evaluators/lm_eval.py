"""lm-eval's tasks, asked of the model already in memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.errors import ModelError, OutOfMemory
from bench.evaluators import lm_eval_index, lm_eval_tasks
from bench.evaluators.lm_eval_index import WORLD
from bench.evaluators.lm_eval_scores import Rows, Scores, hashed, rows_of, scores_of
from bench.evaluators.options import LmEval
from bench.models.policy import Policy
from bench.quiet import quiet
from bench.records.metrics import Metric

# lm-eval draws random shots (MMLU takes the first ones) with this seed by default
_SHOTS_SEED = 1234
# Means have a closed formula; only other metrics (F1, perplexity) are resampled for their standard error
_BOOTSTRAP_ITERATIONS = 1000


def ask(
    policy: Policy, settings: LmEval, mirror: Path | None, tell: Callable[[str], None]
) -> tuple[Scores, Rows, list[Metric]]:
    """Ask every task of `settings` and score the answers.

    Returns:
        Scores by name (`mmlu/acc`, `mmlu/acc/<subject>`, `gsm8k/exact_match,strict-match`); one row per question: task,
        subject, id, hashes of question and prompt, outcomes by metric, and of multiple choice the answer, the choice and
        the choices' log-probabilities in nats, never the prompts; what each score is.

    Raises:
        SuiteError: lm-eval knows no such task.
        DataError: the questions cannot be reached.
        ModelError: a chat template is wanted and the tokenizer has none.
        OutOfMemory: `batch_size` is too large.
    """
    if settings.chat_template and policy.tokenizer.chat_template is None:
        raise ModelError(
            "evaluation.lm_eval.chat_template = true: this model's tokenizer has no chat template; set it to false"
        )
    scores: Scores = {}
    rows: Rows = []
    metrics: list[Metric] = []
    for name in settings.tasks:
        tell(f"asking {name}")
        loaded = _load(name, settings, mirror)
        results = _evaluate(policy, settings, loaded, None if name == WORLD else settings.limit, tell)
        of_task, described = scores_of(name, loaded, results)
        scores |= of_task
        metrics += described
        rows += rows_of(name, loaded, results["samples"])
    return scores, rows, metrics


def facts(policy: Policy, settings: LmEval, mirror: Path | None, rows: Rows) -> dict[str, Any]:
    """Say what was asked, for the record: figures compare only where the hashes of questions and prompts are equal.

    Returns:
        lm-eval's version, the chat template's hash (null: none), and by task: version, shots, where its data is from,
        how many questions, hashes of all questions and of all prompts in their order. Beside them how the questions were
        forwarded, which changes no figure beyond rounding.
    """
    template = policy.tokenizer.chat_template if settings.chat_template else None
    tasks = {}
    for name in settings.tasks:
        loaded = _load(name, settings, mirror)
        asked = [row for row in rows if row["task"] in (name, *loaded["tasks"])]
        every = list(loaded["tasks"].values())
        tasks[name] = {
            "version": _only({str(task.VERSION) for task in every}),
            "shots": _only({task.config.num_fewshot or 0 for task in every}),
            "data": _only({lm_eval_tasks.data_identity(task, mirror) for task in every}),
            "questions": len(asked),
            **{
                f"{what}_hash": hashed("".join(row[f"{what}_hash"] for row in asked)) for what in ("question", "prompt")
            },
        }
    return {
        "lm_eval": lm_eval_index.lm_eval_version(),
        "chat_template_hash": None if template is None else hashed(str(template)),
        "tasks": tasks,
        "forward": {
            "contexts": getattr(policy.model_alone(), "bench_contexts", "stock"),
            "rows_at_once": getattr(policy.model_alone(), "bench_rows_at_once", None),
        },
    }


def _only(values: set[Any]) -> Any:
    """Return what all tasks of a group have in common, or the list of what they have."""
    return next(iter(values)) if len(values) == 1 else sorted(values)


def _load(name: str, settings: LmEval, mirror: Path | None) -> lm_eval_tasks.Tasks:
    return lm_eval_tasks.load(name, settings.shots, settings.limit if name == WORLD else None, mirror)


def _evaluate(
    policy: Policy, settings: LmEval, loaded: lm_eval_tasks.Tasks, limit: int | None, tell: Callable[[str], None]
) -> Any:
    import torch
    from lm_eval.evaluator import evaluate

    from bench.evaluators.lm_eval_model import MOST_ROWS, SharedContextLM

    tasks = list(loaded["tasks"].values())
    for task in tasks:
        task.set_fewshot_seed(_SHOTS_SEED)
    tokenizer, padding = policy.tokenizer, policy.tokenizer.pad_token
    template = (tokenizer.name_or_path, tokenizer.chat_template) if settings.chat_template else None
    # Of weights in parts every pass takes all processes, so none can be made again.
    halving = settings.finds_batch_size(policy.device.type) and not policy.sharded
    try:
        with quiet("lm_eval"), lm_eval_tasks.keep_requests(tasks, (limit, template)):
            model = SharedContextLM(
                # Weights in parts are put together around the causal model's own call, which an adapter's model passes by.
                pretrained=policy.model_alone() if policy.sharded else policy.model,
                tokenizer=tokenizer,
                processes=policy.processes,
                batch_size=MOST_ROWS if halving else settings.batch_size,
                halving=halving,
                tell=tell,
            )
            found = evaluate(
                model,
                loaded,
                limit=limit,
                bootstrap_iters=_BOOTSTRAP_ITERATIONS,
                apply_chat_template=settings.chat_template,
                fewshot_as_multiturn=settings.chat_template,
            )
            policy.model_alone().bench_rows_at_once = model.batch_size
            return found
    except torch.OutOfMemoryError as error:
        lower = f"lower evaluation.lm_eval.batch_size ({settings.batch_size})"
        advice = "one question has no room" if halving else lower
        raise OutOfMemory(f"out of memory asking questions; {advice}") from error
    finally:
        # lm-eval gives a tokenizer without a padding token one; the policy's tokenizer stays as it was
        tokenizer.pad_token = padding
