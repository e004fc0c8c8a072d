"""Write the model card of an exported policy: what was measured, how it was trained, how to load it, what it is not.

The head is Hugging Face's metadata, with every measured figure in its `model-index`. A figure that was not measured is
not in there; the tables below say why.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.data.rows import ALPACA
from bench.export.source import Source, Written
from bench.records import record
from bench.records.metrics import Metric
from report.analysis import base_model
from report.analysis.load import OBJECTIVES, Measured, Results, Run, compared_with, judge_of
from report.analysis.metrics import RATIOS
from report.analysis.tables import RecipeResults, Tables
from report.render.document import Cell, Column, Row, Table
from report.render.markdown import escape, table
from report.render.numbers import number
from report.render.shown import Shown, shown

QUESTION = "What is a good way to learn a new word?"


def render(source: Source, written: Written, *, merged: bool) -> str:
    """Return the card as Markdown with its metadata."""
    from huggingface_hub import ModelCard

    card = _Card(source, written, merged)
    content = f"---\n{card.metadata().to_yaml()}\n---\n\n" + "\n\n".join(card.sections()) + "\n"
    return str(ModelCard(content, ignore_metadata_errors=False)).rstrip() + "\n"


class _Card:
    def __init__(self, source: Source, written: Written, merged: bool) -> None:
        self.source, self.written, self.merged = source, written, merged
        self.job, self.suite = source.job, dict(source.suite.info["suite"])
        self.tables = Tables(Results(source.suite))
        self.run = next(run for run in self.tables.results.trained if run.id == source.job.id)
        self.figures = self.tables.figures(self.run)
        self.recipe = _recipe_of(self.tables, self.run)
        self.scores = [name for name in self.tables.scores if name in self.figures]
        split = self.tables.results.split
        self.objectives = [f"f_{name}/{split}" for name in OBJECTIVES]
        self.gaps = ["gap_dpo", "gap_sft", "ideal_distance"]

    @property
    def name(self) -> str:
        """The model's name: the suite's and the recipe's."""
        return f"{self.source.suite.name}-{self.job.id.rpartition('-')[0]}"

    # ---- metadata ---------------------------------------------------------------------------------------------------

    def metadata(self) -> Any:
        from huggingface_hub import ModelCardData

        relation: dict[str, Any] = {}
        if self.source.model.source == "hub":
            kind = "finetune" if self.merged else "adapter"
            relation = {"base_model": self.source.model.path, "base_model_relation": kind}
        datasets = [one["path"] for one in self._data().values() if one["source"] == "hub"]
        return ModelCardData(
            **relation,
            datasets=list(dict.fromkeys(datasets)) or None,
            library_name="transformers" if self.merged else "peft",
            pipeline_tag="text-generation",
            tags=["dpo", "sft", *([] if self.source.is_whole else ["lora"]), self.run.base_method, "posttrain-bench"],
            model_name=self.name,
            eval_results=list(self._results()) or None,
        )

    def _results(self) -> Iterator[Any]:
        """Yield an EvalResult for every figure that was measured."""
        from huggingface_hub import EvalResult

        for name in (*self.objectives, *self.gaps, *self.scores):
            found = self.figures[name]
            if found.value is None:
                continue
            metric = self.tables.metric(name)
            data_type, data_name = self._dataset(name)
            known = {"standard_error": found.standard_error, "n": found.n}
            yield EvalResult(
                task_type="text-generation",
                dataset_type=data_type,
                dataset_name=data_name,
                dataset_split=None if self._task(name) else self.tables.results.split,
                metric_type=_metric_type(name),
                metric_name=_metric_name(metric),
                metric_value=found.value,
                metric_args={key: value for key, value in known.items() if value is not None} or None,
            )

    def _dataset(self, name: str) -> tuple[str, str]:
        """Return type and name of the data that a figure was measured on."""
        task = self._task(name)
        if task:
            return ("cais/mmlu", "MMLU") if task == "mmlu" else (task, task)
        data = self._data()
        if judge_of(name) or "dpo" in name:
            names = [_data_name(data["preference"])]
        elif "sft" in name:
            names = [_data_name(data["instruction"])]
        else:
            names = list(dict.fromkeys(_data_name(one) for one in data.values()))
        return "-and-".join(names), " and ".join(names)

    def _task(self, name: str) -> str:
        """Return the task that a score is of; "" for a win rate, whose pairs come from the suite's data, and what is no score."""
        return name.split("/")[0] if name in self.scores and not judge_of(name) else ""

    def _asked(self) -> dict[str, Any]:
        """Return the settings of the data that says in which form a question is asked."""
        data = self._data()
        return data["preference" if data["instruction"]["source"] == "chosen" else "instruction"]

    def _data(self) -> dict[str, dict[str, Any]]:
        return {name: self.suite["data"][name] for name in ("preference", "instruction")}

    # ---- text -------------------------------------------------------------------------------------------------------

    def sections(self) -> Iterator[str]:
        kind = "model" if self.merged else f"{_kind(self._lora())} adapter"
        yield f"# {escape(self.name)}"
        yield (
            f"A {kind} made by the recipe **{escape(self._recipe_name())}**, seed {self.run.seed}, of the suite "
            f"`{self.source.suite.name}`. Base model: {self._base_words()}."
        )
        if self.tables.results.smoke:
            yield "> **A smoke run: a tiny untrained model stood in for the suite's own. Its figures measure nothing.**"
        yield "## How to load it"
        yield from self._loading()
        yield "## What was measured"
        yield from self._measured()
        yield "## How it was trained"
        yield "\n".join(f"- {line}" for line in self._training())
        yield _fenced(json.dumps(self.job.spec["settings"], indent=1, ensure_ascii=False), "json", "All settings")
        yield "## Limits"
        yield "\n".join(f"- {line}" for line in self._limits())

    def _recipe_name(self) -> str:
        return self.recipe.name if self.recipe else self.run.method

    def _base_words(self) -> str:
        model = self.source.model
        if model.source == "hub":
            revision = f" at revision `{self.written.revision}`" if self.written.revision else ""
            return f"[{escape(str(model.path))}](https://huggingface.co/{model.path}){revision}"
        content = self.job.spec["settings"]["model"].get("content")
        return {
            "local": f"a local folder, `{Path(str(model.path)).name}` (sha256 of its files {content})",
            "gguf_package": f"the GGUF in the Python package `{model.path}` (sha256 {content}), made a plain model",
            "world": "the small model that bench pre-trains on its built-in world",
            "random": "a tiny model with random weights",
        }[model.source]

    def _loading(self) -> Iterator[str]:
        yield f"```python\n{self._snippet()}\n```"
        if not self.merged and self.source.model.source != "hub":
            yield (
                f"The base model is not on the Hugging Face hub: it is {self._base_words()}{_where(self.source)}. "
                "`bench export` with `--merge` writes a model that needs nothing else."
            )
        by = "transformers" if self.merged else "transformers and peft"
        added = self.merged and not self.source.is_whole
        rounded = "; weights were merged in float32 and then rounded" if added and self._half else ""
        yield (
            f"Reloaded by plain {by} after writing: the largest difference of a logit from the trained policy's was "
            f"{self.written.difference:.2g} (logits up to {self.written.largest:.2g}){rounded}."
        )

    @property
    def _half(self) -> bool:
        return self.source.model.dtype != "float32"

    def _snippet(self) -> str:
        dtype = self.source.model.dtype
        lines = ["from transformers import AutoModelForCausalLM, AutoTokenizer", ""]
        if not self.merged:
            lines.insert(0, "from peft import PeftModel")
        lines += [
            'here = "."  # this folder, or its name on the hub',
            "tokenizer = AutoTokenizer.from_pretrained(here)",
        ]
        if self.merged:
            lines.append(f'model = AutoModelForCausalLM.from_pretrained(here, dtype="{dtype}")')
        else:
            hub = self.source.model.source == "hub"
            base = (
                f'base = "{self.source.model.path}"' if hub else 'base = "BASE"  # the base model\'s folder, see below'
            )
            revision = f', revision="{self.written.revision}"' if self.written.revision else ""
            lines += [base, f'model = AutoModelForCausalLM.from_pretrained(base{revision}, dtype="{dtype}")']
            lines.append("model = PeftModel.from_pretrained(model, here)")
        lines += [
            *_prompting(self._asked()),
            "answer = model.generate(**inputs, max_new_tokens=64)",
        ]
        lines.append('print(tokenizer.decode(answer[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))')
        return "\n".join(lines)

    # ---- figures ----------------------------------------------------------------------------------------------------

    def _measured(self) -> Iterator[str]:
        seeds = len(self.recipe.jobs) if self.recipe else 1
        if seeds > 1:
            yield (
                f"This is one of {seeds} runs of the recipe, which differ in their seed; the last column is the mean ± the "
                "standard deviation over them."
            )
        yield "### Objectives and gaps"
        yield self._table([*self.objectives, *(f"f_{name}/train" for name in OBJECTIVES), *self.gaps])
        yield (
            "f\\_DPO and f\\_SFT are mean losses in nats; a gap is what lies between one and f\\*, what a run on that "
            "objective alone reached in as many steps; the ideal distance joins both gaps. Lower is better."
        )
        if self.scores:
            yield "### Questions and win rate"
            yield self._table(self.scores)
            judges = [judge for name in self.scores if (judge := judge_of(name))]
            if judges:
                others = dict.fromkeys(
                    compared_with(self.tables.metric(name)) for name in self.scores if judge_of(name)
                )
                yield f"Win rates are against {escape('; '.join(others))}, judged by {escape(', '.join(judges))}."
        yield "### Cost of training"
        costs = [name for name in (*self.tables.costs, "runtime_increase_percent") if self._has_cost(name)]
        yield self._table(costs, against_base=False)
        if any(self.figures[name].shared for name in costs):
            yield "Other workers used the same machine meanwhile: take seconds with care."

    def _has_cost(self, name: str) -> bool:
        """Whether a figure is a cost or count of this run that was measured, or that its recipe should have."""
        return name in self.figures and name not in RATIOS and self.tables.metric(name).kind in ("cost", "count")

    def _table(self, names: Sequence[str], against_base: bool = True) -> str:
        columns = [Column("Figure", numeric=False), Column("This model")]
        columns += [Column("Base model")] if against_base else []
        seeds = len(self.recipe.jobs) if self.recipe else 1
        columns += [Column(f"Recipe, {seeds} seeds")] if seeds > 1 else []
        columns += [Column("What it is", numeric=False)]
        rows = [Row(tuple(self._cells(name, against_base, seeds > 1))) for name in dict.fromkeys(names)]
        return table(Table("", tuple(columns), tuple(rows)))

    def _cells(self, name: str, against_base: bool, over_seeds: bool) -> Iterator[Cell]:
        found = self.figures[name]
        base = base_model.value(self.tables, name, self.run.seed) if against_base else Measured(None)
        known = [one.compared for one in (found, base) if one.value is not None]
        writes = shown(self.tables.metric(name), known, known[:1])
        yield Cell(writes.title)
        yield Cell(_value(found, writes))
        if against_base:
            yield Cell(_value(base, writes) if base.value is not None or name in self.scores else "–")
        if over_seeds and self.recipe:
            one = self.recipe.estimate(name)
            yield Cell(writes.mean(one.mean, one.sd))
        yield Cell(writes.metric.meaning)

    # ---- how --------------------------------------------------------------------------------------------------------

    def _training(self) -> Iterator[str]:
        labels, environment = self.job.labels, self.job.spec["environment"]
        training = self.suite["training"]
        share = (
            "" if self.recipe is None or self.recipe.lambda_dpo is None else f", λ = {self.recipe.lambda_dpo:g} on DPO"
        )
        yield f"Method: {escape(self.run.base_method)}{share}; seed {self.run.seed}" + _options(
            labels.get("options") or {}
        )
        if self.run.base_method == "sequential":
            yield f"Order: {' then '.join(part.upper() for part in self.run.order)}; steps: {_steps(self.run)}"
        if self.run.ending:
            yield escape(self.run.ending)
        yield self._tuning()
        if not self.run.trains:
            yield "No training of its own: its weights are made of those of " + self._parts()
        batch = training["batch_size"]
        yield ("" if self.run.trains else "Its parts: ") + (
            f"AdamW, learning rate {training['learning_rate']:g}, {training['schedule']} schedule; {batch['dpo']} pairs or "
            f"{batch['sft']} rows a step; weights and activations in {self.source.model.dtype}"
        )
        objectives = self.suite["objectives"]
        yield f"β = {objectives['beta']:g}; f\\_SFT as {objectives['reduction'].replace('_', ' ')}"
        yield f"Reference policy of DPO: {_REFERENCES[self.suite['reference']['policy']]}"
        hashes = _hashes(self.job)
        for name, one in self._data().items():
            identity = self.job.spec["data"].get(name, "")
            text = hashes.get({"preference": "dpo", "instruction": "sft"}[name])
            parts = [f"`{identity}`"] if identity else []
            parts += [f"sha256 of the text of the training rows `{text}`"] if text else []
            yield f"{name.capitalize()} data: {escape(_data_name(one))}, {one['rows']} rows; {', '.join(parts)}"
        packages = environment.get("packages", {})
        versions = ", ".join(
            f"{name} {packages[name]}" for name in ("torch", "transformers", "peft") if name in packages
        )
        yield f"Versions: {escape(versions)}; bench at commit {environment.get('commit') or 'unknown'}"
        yield f"Job: `{self.job.id}` of suite `{self.source.suite.name}`, whose records hold every step"

    def _lora(self) -> dict[str, Any]:
        """Return PEFT's settings of the adapter."""
        return dict(record.read_json(self.job.path / "adapter" / "adapter_config.json"))

    def _tuning(self) -> str:
        """Say what of the model was trained, or is another one's."""
        if self.source.is_whole:
            return (
                "All weights were trained, and no adapter"
                if self.run.trains
                else "All weights are its own, and no adapter's"
            )
        lora, init = self._lora(), (self.suite.get("lora") or {}).get("init", "default")
        begun = "" if init == "default" or not self.run.trains else f", begun as {init}"
        size = f"rank {lora['r']}, alpha {lora['lora_alpha']:g}"
        return f"Adapter: {_kind(lora)}, {size}, on {escape(', '.join(_targets(lora)))}{begun}"

    def _parts(self) -> str:
        inputs = self.job.spec["inputs"]
        return " and ".join(f"`{job}`" for name, job in inputs.items() if name.startswith("optimum_"))

    def _limits(self) -> Iterator[str]:
        yield "The licence of the base model and the terms of the data sets apply; bench does not know them."
        judges = [judge for name in self.scores if (judge := judge_of(name))]
        if judges:
            yield (
                f"A win rate is what {escape(', '.join(judges))} prefers on these prompts, not a measure of quality, truth or "
                "safety; win rates by different judges do not compare."
            )
        if any(map(self._task, self.scores)):
            limit = (self.suite["evaluation"].get("lm_eval") or {}).get("limit")
            part = f" Only {limit} a subject were asked." if limit else ""
            yield f"Scores of tasks are lm-eval's: a task says what it asks and how; none covers all that a model does.{part}"
        if len(self.recipe.jobs if self.recipe else {}) < 3:
            yield "Fewer than three seeds were run: a difference from another recipe may be luck."
        yield "Objective values compare only at equal reference, β, reduction, template, rows and dtype; costs at equal hardware."
        yield "It was tuned on the data named above and tested for nothing else: not for safety, bias or other languages."
        yield from (escape(note) for note in self.suite.get("notes", ()))


_REFERENCES = {
    "sft": "the run on SFT alone",
    "preference_chosen": "a policy trained on the chosen answers",
    "base": "the base model",
}


def _metric_type(name: str) -> str:
    """Name a figure's kind as the hub's cards do."""
    if judge_of(name):
        return "win_rate"
    task, _, rest = name.partition("/")
    return {"acc": "accuracy"}.get(rest, rest.partition(",")[0]) if rest and not task.startswith("f_") else task


def _metric_name(metric: Metric) -> str:
    judged = f", judged by {judge_of(metric.name)}" if judge_of(metric.name) else ""
    unit = "" if metric.unit in ("", "share") else f" ({metric.unit})"
    return f"{metric.title}{unit}{judged}"


def _kind(lora: dict[str, Any]) -> str:
    """Name the variant of LoRA that an adapter is."""
    return "DoRA" if lora.get("use_dora") else "rsLoRA" if lora.get("use_rslora") else "LoRA"


def _targets(lora: dict[str, Any]) -> list[str]:
    targets = lora["target_modules"]
    return [targets] if isinstance(targets, str) else sorted(targets)


def _recipe_of(tables: Tables, run: Run) -> RecipeResults | None:
    found = (one for one in (*tables.recipes, *tables.context) if run.id in one.jobs.values())
    return next((one for one in found if one.figures), None)


def _value(found: Measured, writes: Shown) -> str:
    if found.value is None:
        return f"missing: {found.reason}"
    text, error = writes.text(found.compared), found.error
    return text if math.isnan(error) else f"{text} (s.e. {number(writes.spread(found.compared, error), writes.digits)})"


def _options(options: dict[str, Any]) -> str:
    return "".join(f"; {escape(name)} = {escape(str(value))}" for name, value in options.items())


def _steps(run: Run) -> str:
    return ", ".join(f"{run.phase_steps.get(name, 0)} {name.upper()}" for name in run.order)


def _hashes(job: record.Job) -> dict[str, str]:
    """Return the sha256 of the training rows' text: dpo and sft."""
    return {name: str(job.data[f"{name}/train"]["sha256"]) for name in OBJECTIVES if f"{name}/train" in job.data}


def _data_name(data: dict[str, Any]) -> str:
    """Name a data set: its hub id, a local file's name without its folder, or the built-in world."""
    if data["source"] == "hub":
        return str(data["path"])
    if data["source"] == "chosen":
        return "the preference pairs' prompts and chosen answers"
    return "bench-built-in-world" if data["source"] == "world" else Path(str(data["path"])).name


def _where(source: Source) -> str:
    """Say where the base model of an adapter lies that no hub has."""
    if source.model.source != "world":
        return ""
    pretrained = source.job.spec["inputs"].get("pretrained")
    return f", in `jobs/{pretrained}/model` of the results of suite `{source.suite.name}`"


def _prompting(data: dict[str, Any]) -> list[str]:
    """Return the snippet's lines that ask a question in the form of the training prompts."""
    if data["format"] == "messages":
        return [
            f'messages = [{{"role": "user", "content": "{QUESTION}"}}]',
            'asked = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True, return_tensors="pt")',
            'inputs = {"input_ids": asked["input_ids"], "attention_mask": asked["attention_mask"]}',
        ]
    prompt = (data.get("template") or ALPACA).replace("{prompt}", QUESTION) if data["format"] == "alpaca" else QUESTION
    return [f"prompt = {json.dumps(prompt, ensure_ascii=False)}", 'inputs = tokenizer(prompt, return_tensors="pt")']


def _fenced(text: str, language: str, title: str) -> str:
    return f"<details><summary>{title}</summary>\n\n```{language}\n{text}\n```\n\n</details>"
