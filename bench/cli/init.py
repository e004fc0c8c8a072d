"""Write a commented suite for the user's own model and data: `bench init`, with or without files to look at."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import DataError, InputError

_TEMPLATE = """\
# A suite of your own: which post-training recipe suits *your* model and *your* data?
#
# 1. Change the lines marked EDIT.       2. bench validate THIS_FILE     3. bench run THIS_FILE --smoke
# 4. bench plan THIS_FILE                5. bench run THIS_FILE          6. bench report results
#
# Step 3 runs all of it on a tiny model and built-in data within a minute or two; step 4 says what the real run costs.
# Any key can be changed for one run: bench run THIS_FILE --set training.epochs=1

name: my_suite # EDIT. The results' folder: letters, digits, '_', '-' and '.'
description: My model on my data. # shown in the report

model: # the base model, the same for every run
  source: hub # hub, or local for a folder with config.json and weights, or gguf_package for an installed package
  path: HuggingFaceTB/SmolLM2-135M-Instruct # EDIT. The hub id, or the folder
  revision: null # a branch, tag or commit of the hub; a commit makes the run repeatable
  architecture: llama # of the tiny model that --smoke puts in its place: llama or gpt_neox
  dtype: float32 # float32 or bfloat16; bfloat16 on a recent GPU
  gradient_checkpointing: false # true saves memory and costs time; auto: on a GPU, once memory runs out

lora: # the adapter; only it is trained, but with model.tuning: full
  rank: 16 # size of the adapter
  alpha: 32 # its scale is alpha / rank
  variant: lora # or dora, rslora
  dropout: 0.0 # share of its inputs set to 0 while training
  targets: [all-linear] # or module names: [q_proj, v_proj] for Llama, [query_key_value] for GPT-NeoX

data: # relative paths start where you run the command
  preference: # pairs: one prompt, an answer people preferred, one they did not
    source: local # a .jsonl, .json, .csv or .parquet file, or a folder of them; or hub
    path: data/preferences.jsonl # EDIT. One row: {"question": "...", "better": "...", "worse": "..."}
    format: plain # plain: prompt and answer are used as they stand; messages: lists of {role, content} in the model's
    #               chat template; hh_dialogue: Anthropic's "\\n\\nHuman: ...\\n\\nAssistant:"
    columns: # EDIT. The name each text has in your file
      prompt: question # null when chosen and rejected both begin with the prompt
      chosen: better # the preferred answer
      rejected: worse # the other
    train_split: train # a file has this one split
    test_split: null # null: the held-out rows are those that follow the training rows
    rows: 800 # EDIT. Pairs trained on, from the head
    evaluation_rows: 64 # held-out pairs; the file needs rows + evaluation_rows (or rows + judged prompts) of them
  instruction: # instructions with the answer to imitate
    source: local # as above
    path: data/instructions.jsonl # EDIT. One row: {"task": "...", "context": "...", "answer": "..."}
    format: alpaca # the template below makes the prompt; plain: the instruction is the prompt; messages: chat template
    columns: # EDIT. The name each text has in your file
      instruction: task # what is asked
      input: context # put on the line after it; null if there is no such column
      output: answer # the answer
    template: "User: {prompt}\\nAssistant:" # ask the same way in both sets, or they train two habits
    answer_prefix: " " # the space between prompt and answer belongs to the answer
    train_split: train # as above
    test_split: null # as above
    rows: 1600 # EDIT. rows / batch_size must be the same number of steps in both sets (or give training.steps)
    evaluation_rows: 64 # held-out rows
  max_prompt_tokens: 256 # longer prompts lose their left end; how many did is on record
  max_answer_tokens: 256 # longer answers lose their right end
  evaluation_split: held_out # which objective values lead the report: held_out, or train_head (the paper's)

training: # shared by every method, so that a difference is a method's
  epochs: 3 # here 800 / 8 = 1600 / 16 = 100 steps an epoch, 300 a run; or steps: 300, not both
  batch_size: # rows an optimizer step
    dpo: 8 # pairs
    sft: 16 # rows
  micro_batch_size: # rows in memory at once; lower these when memory runs out, the gradient stays the same
    dpo: 2 # must divide batch_size.dpo
    sft: 4 # must divide batch_size.sft
  group_by_length: false # true: rows of similar length share a batch and pad less, but MAXRIGHT may read lengths as gaps
  learning_rate: 1.0e-4 # of AdamW
  schedule: constant # constant lets Sequential reuse an optimum's first phase; or linear, cosine
  warmup_steps: 0 # steps over which the learning rate rises
  max_grad_norm: 1.0 # longer gradients are scaled down to this; null leaves them
  evaluate_every: 50 # steps between two points of a trajectory
  checkpoint_every: 100 # steps that an interruption can cost at most

objectives: # the two losses
  beta: 0.1 # how strongly DPO holds the policy to its reference
  reduction: token_mean # SFT loss per token, or sequence_sum

reference: # the policy that DPO compares with, one for the whole suite
  policy: sft # sft: trained on the instruction rows; preference_chosen: on the chosen answers; phase_1; base: the base model

order: sft_dpo # of Sequential's two phases, or dpo_sft
methods: # what is compared
  - name: sequential # one objective after the other: what most people do
  - name: mix # both losses at every step: two batches a step
  - name: alright # a coin with probability lambda picks one objective a step
  - name: maxright # the objective farther from its optimum
    max_eval_every: 10 # steps between two looks at both
lambdas: [0.25, 0.5, 0.75] # weight of DPO against SFT
seeds: [0, 1, 2] # fewer than three and the report draws no interval
retries: 2 # attempts more for a job whose worker died, or which met a fault of the network or a device
tracker: null # or trackio, wandb, mlflow, tensorboard: draws the run live
cost: auto # auto: each kind of step is measured once, alone on the machine; off: by the runs' own seconds

evaluation: # of every trained policy, the reference and the base model; delete a part to leave it out
  lm_eval: # any task of lm-eval
    tasks: [mmlu] # fetched from the hub
    shots: 1 # solved examples before the question
    limit: 5 # questions a subject; null is all
    chat_template: false # true asks in the model's chat template
  win_rate: # generated answers against the chosen answers of your held-out pairs
    prompts_from: held_out # or alpaca_eval, or a file of instruction and output rows
    prompts: 64 # pairs judged for each policy
    generation: # how answers are sampled
      engine: transformers # on this machine; endpoint: by a server, with endpoint: {base_url: http://127.0.0.1:8000/v1}
      max_new_tokens: 256 # at most
      temperature: 1.0 # 0 is greedy
    judge: # EDIT. Who prefers; or a list of such mappings, whose first is the main judge: the report says how far they agree
      kind: openai # any OpenAI-compatible endpoint; or local with local_model: {source: ..., path: ...}
      configuration: null # how is asked: null is the first that the endpoint answers to, AlpacaEval's own before others
      model: gpt-6-luna # who is asked
      base_url: null # for another endpoint than OpenAI's, such as your own vLLM
      key_variable: OPENAI_API_KEY # the environment variable that holds the key; a key never stands in a suite
      orders: both # single asks once a pair and costs half
      max_cost_usd: 20 # EDIT. Judging stops before it may cost more; bench plan estimates it; needs a known price
"""


def template() -> str:
    """Return a suite's YAML in which every key is explained."""
    return _TEMPLATE


def refuse_existing(path: Path) -> None:
    """Leave a file that is there alone.

    Raises:
        InputError: it is there.
    """
    if path.exists():
        raise InputError(f"{path}: exists already; give another name, or move it away")


def write(path: Path, text: str = _TEMPLATE) -> None:
    """Write a suite to a new file.

    Raises:
        InputError: the file exists, or its folder cannot be written.
    """
    refuse_existing(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from error


# ---- a suite for files that are there ----------------------------------------------------------------------------------

_HELD_OUT_SHARE, _MOST_HELD_OUT, _MOST_ROWS, _EPOCHS, _MOST_STEPS = 5, 64, 10_000, 3, 1_000
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class Described:
    """One data set as the suite will name it: its settings, its usable rows by split, and what is wrong with the others."""

    settings: Mapping[str, Any]
    train: int
    held_out: int | None
    refused: Mapping[str, int]
    shape: str

    @property
    def in_words(self) -> str:
        """Say what was found, in a line."""
        bad = sum(self.refused.values())
        reasons = ", ".join(f"{count} {kind}" for kind, count in self.refused.items())
        left_out = f"; {bad} cannot be used ({reasons}) and are left out" if bad else ""
        tests = f" and {self.held_out} held-out ones" if self.held_out is not None else ""
        return f"{self.settings['path']}: {self.train} rows{tests}, {self.shape}{left_out}"


def for_data(name: str, data: Sequence[str], model: str | None, mirror: Path | None) -> tuple[str, list[str]]:
    """Write a suite for files, folders or hub data sets.

    Args:
        name: of the suite.
        data: one or two of them: preference pairs, and instruction rows where there are any.
        model: a folder or a hub id.
        mirror: folder of an offline mirror, or None.

    Returns:
        The suite's YAML, and what was found, in lines.

    Raises:
        InputError: there are no preference pairs among them, or rows nobody can read.
    """
    tokenizer = _tokenizer(model)
    chat = tokenizer.chat_template is not None
    found: dict[str, Described] = {}
    passed_over: list[str] = []
    for path in data:
        for kind, described in _look(path, chat, tokenizer, mirror):
            if found.setdefault(kind, described) is not described:
                passed_over.append(
                    f"{path}: not used as {kind} rows, since {found[kind].settings['path']} has them already"
                )
    if "preference" not in found:
        raise InputError(
            f"{', '.join(data)}: instruction rows, but no preference pairs (chosen and rejected, a ranking, or two answers "
            "with a preference); give their file, too: bench init PAIRS INSTRUCTIONS"
        )
    lines = [f"{kind}: {described.in_words}" for kind, described in found.items()]
    if "instruction" not in found:
        lines.append("instruction: no file of instructions, so the pairs' chosen answers are imitated")
    return _suite(name, found, model), lines + passed_over


def _tokenizer(model: str | None) -> Any:
    """Load the tokenizer of a folder; for a hub model, which may be out of reach, take one with a chat template."""
    from bench.models import tokenizers
    from bench.settings import Model

    if model and Path(model).expanduser().is_dir():
        return tokenizers.load(Model(source="local", path=model))
    made = tokenizers.load(Model(source="random"))
    made.chat_template = CHATML
    return made


def _look(path: str, chat: bool, tokenizer: Any, mirror: Path | None) -> list[tuple[str, Described]]:
    """Say what a data set can be read as."""
    from bench.data import detect, gather

    place = {"source": "local" if Path(path).expanduser().exists() else "hub", "path": path}
    if place["source"] == "hub" and (path.count("/") != 1 or path.startswith((".", "/", "~"))):
        raise DataError(f"{path}: no such data file or folder")
    train, test = _splits(path, place["source"], mirror)
    rows = _read(place, train, mirror)
    made = []
    for kind, look in (("preference", detect.pairs), ("instruction", detect.instructions)):
        found = look(rows, chat)
        if found is not None:
            settings = place | {"format": found.format, "columns": dict(found.columns), "train_split": train}
            made.append((kind, _describe(kind, settings | {"test_split": test}, tokenizer, mirror)))
    if any(kind == "preference" for kind, _ in made) and not all(name in rows[0] for name in gather.TREE):
        made = [one for one in made if one[0] == "preference"]
    if not made:
        raise DataError(
            f"{path}: neither preference pairs nor instruction rows are recognized; columns: {', '.join(rows[0])}. "
            "Write a suite by 'bench init FILE.yaml' and map them under 'columns'"
        )
    return made


def _splits(path: str, source: str, mirror: Path | None) -> tuple[str, str | None]:
    """Name the splits to train on and to hold out."""
    from bench.data import sources

    names = sources.split_names(source, path, mirror)
    train = next((name for name in names if name.startswith("train")), names[0] if names else "train")
    suffix = train.removeprefix("train")
    test = (f"{word}{suffix}" for word in ("test", "validation", "eval", "dev"))
    return train, next((name for name in test if name in names), None)


def _read(place: Mapping[str, str], split: str, mirror: Path | None) -> list[dict[str, Any]]:
    from bench.data import sources
    from bench.settings import DataSource

    return sources.read_split(DataSource.model_validate({**place, "rows": 1, "train_split": split}), split, mirror)


def _describe(kind: str, settings: Mapping[str, Any], tokenizer: Any, mirror: Path | None) -> Described:
    from bench.data import sources
    from bench.settings import InstructionData, PreferenceData

    made = PreferenceData if kind == "preference" else InstructionData
    source = made.model_validate({**settings, "rows": 1})
    train = sources.load_all(source, str(source.train_split), tokenizer, mirror)
    held_out = sources.load_all(source, source.test_split, tokenizer, mirror) if source.test_split else None
    refused: dict[str, int] = {}
    for loaded in (train, held_out) if held_out else (train,):
        for kind_of, rows in loaded.refused.items():
            refused[kind_of] = refused.get(kind_of, 0) + len(rows)
    if len(train.rows) + (len(held_out.rows) if held_out else 0) < 2:
        sentence = next(iter(train.refused.values()))[0][1] if train.refused else "there is one row"
        raise DataError(f"{settings['path']}: fewer than two rows can be used as {kind} rows: {sentence}")
    return Described(settings, len(train.rows), len(held_out.rows) if held_out else None, refused, train.shape)


@dataclass(frozen=True)
class _Size:
    """How many rows of a set are trained on and held out, and how many make a batch."""

    rows: int
    held_out: int
    batch: int


def _size(described: Described, batch: int) -> _Size:
    if described.held_out:
        rows, held_out = described.train, min(described.held_out, _MOST_HELD_OUT)
    else:
        held_out = max(1, min(_MOST_HELD_OUT, described.train // _HELD_OUT_SHARE))
        rows = described.train - held_out
    rows = min(rows, _MOST_ROWS)
    while batch > 1 and rows < 4 * batch:
        batch //= 2
    return _Size(rows, held_out, batch)


def _suite(name: str, found: Mapping[str, Described], model: str | None) -> str:
    pairs = found["preference"]
    rows = found.get("instruction")
    dpo = _size(pairs, 8)
    sft = _size(rows, 16) if rows else _Size(dpo.rows, dpo.held_out, dpo.batch)
    epoch = max(-(-one.rows // one.batch) for one in (dpo, sft))
    steps = min(_EPOCHS * epoch, _MOST_STEPS)
    bad = any(one.refused for one in found.values())
    parts = _TEMPLATE.partition("\nname: ")
    text = _HEAD + parts[1] + parts[2]
    text = _put(text, "name: my_suite", f"name: {re.sub(r'[^A-Za-z0-9_.-]', '_', name)}")
    if model:
        text = _with_model(text, model)
    text = _between(text, "data: # relative", "training: #", _data(pairs, rows, dpo, sft, bad))
    text = _between(
        text,
        "  epochs: 3",
        "  batch_size:",
        f"  steps: {steps} # of every run; {epoch} are a pass over the larger set\n",
    )
    text = _put(text, "    dpo: 8 # pairs", f"    dpo: {dpo.batch} # pairs")
    text = _put(text, "    sft: 16 # rows", f"    sft: {sft.batch} # rows")
    own = "  micro_batch_size: null # rows in memory at once; null: the batch, and less where memory runs out\n"
    text = _between(text, "  micro_batch_size:", "  group_by_length:", own)
    text = _put(text, "evaluate_every: 50", f"evaluate_every: {max(1, steps // 6)}")
    text = _put(text, "checkpoint_every: 100", f"checkpoint_every: {max(1, steps // 3)}")
    text = _put(
        text,
        "lambdas: [0.25, 0.5, 0.75] # weight of DPO against SFT",
        "lambdas: [0.5] # weight of DPO against SFT; add 0.25 and 0.75",
    )
    return _without_evaluation(text)


_HEAD = """\
# A suite for your own data: which post-training recipe suits *your* model and *your* data?
#
# 1. bench data THIS_FILE shows how rows are read   2. bench run THIS_FILE --smoke tries all of it on a tiny model
# 3. bench plan THIS_FILE says what it costs        4. bench run THIS_FILE          5. bench report results
#
# Lines marked EDIT are the ones to look at. Any key can be changed for one run: bench run THIS_FILE --set training.steps=20
"""


def _put(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1, old
    return text.replace(old, new)


def _between(text: str, start: str, stop: str, new: str) -> str:
    """Put lines in the place of those from one that begins with `start` up to one that begins with `stop`."""
    first = text.index(f"\n{start}") + 1
    return text[:first] + new + text[text.index(f"\n{stop}", first) + 1 :]


def _with_model(text: str, model: str) -> str:
    local = Path(model).expanduser().is_dir()
    source = "local # a folder with config.json and weights; or hub" if local else "hub # or local for a folder"
    lines = f"  source: {source}\n  path: {json.dumps(model)} # the folder, or the hub id\n"
    return _between(text, "  source: hub # hub, or local", "  revision: null # a branch", lines)


def _data(pairs: Described, rows: Described | None, dpo: _Size, sft: _Size, bad: bool) -> str:
    lines = [
        "data: # relative paths start where you run the command",
        "  preference: # pairs: a prompt and two answers, one preferred",
    ]
    lines += _set_lines(pairs, dpo)
    lines.append("  instruction: # instructions with the answer to imitate")
    if rows is None:
        lines += [
            "    source: chosen # the pairs' prompts and chosen answers; or local, with a file of instructions as path",
            f"    rows: {sft.rows} # trained on, from the head",
            f"    evaluation_rows: {sft.held_out} # held out",
        ]
    else:
        lines += _set_lines(rows, sft)
        if rows.settings["format"] == "alpaca":
            prompt, prefix = _template_of(pairs.settings["format"])
            lines.append(
                f"    template: {json.dumps(prompt)} # ask the same way in both sets, or they train two habits"
            )
            lines.append(
                f"    answer_prefix: {json.dumps(prefix)} # the space between prompt and answer belongs to the answer"
            )
    lines += [
        "  max_prompt_tokens: 512 # longer prompts lose their left end; bench data says how many",
        "  max_answer_tokens: 512 # longer answers lose their right end",
        f"  bad_rows: {'drop' if bad else 'stop'} # rows that cannot be used: drop leaves them out, stop names them",
        "  evaluation_split: held_out # which objective values lead the report: held_out, or train_head (the paper's)",
    ]
    return "\n".join(lines) + "\n\n"


def _template_of(form: str) -> tuple[str, str]:
    return ("\n\nHuman: {prompt}\n\nAssistant:", " ") if form == "hh_dialogue" else ("User: {prompt}\nAssistant:", " ")


_FORMATS = {
    "messages": "put into the model's chat template; plain: texts as they stand",
    "plain": "texts as they stand; messages: put into the model's chat template",
    "hh_dialogue": "prompts that end in Assistant:, as Anthropic's",
    "alpaca": "the template below makes the prompt; messages: the model's chat template",
}


def _set_lines(described: Described, size: _Size) -> list[str]:
    settings, shape = described.settings, " ".join(described.shape.split())
    lines = [
        f"    source: {settings['source']} # a file, or a folder of them; or hub",
        f"    path: {json.dumps(settings['path'], ensure_ascii=False)} # {described.train} rows: {shape}",
        f"    format: {settings['format']} # {_FORMATS[settings['format']]}",
    ]
    if settings["columns"]:
        lines.append("    columns: # the name each has in your file")
        lines += [f"      {key}: {_yaml(value)} # {_COLUMNS[key]}" for key, value in settings["columns"].items()]
    return [
        *lines,
        f"    train_split: {settings['train_split']} # a file has the one split train",
        f"    test_split: {_yaml(settings['test_split'])} # null: the held-out rows are those that follow the training rows",
        f"    rows: {size.rows} # trained on, from the head",
        f"    evaluation_rows: {size.held_out} # held out",
    ]


_COLUMNS = {
    "prompt": "what is asked; null: both answers begin with it",
    "chosen": "the answer that was preferred",
    "rejected": "the other answer",
    "preference": "which of the two is better",
    "answers": "the answers that are ranked; the best is paired with the worst",
    "ranking": "what they are ranked by",
    "instruction": "what is asked",
    "output": "the answer",
}


def _yaml(value: str | None) -> str:
    return "null" if value is None else json.dumps(value, ensure_ascii=False)


def _without_evaluation(text: str) -> str:
    """Comment the evaluations out that need the hub or a key, so that the suite runs as it is."""
    before, _, after = text.partition("\nevaluation: ")
    lines = after.splitlines()[1:]
    said = (
        "\nevaluation: {} # beside objectives and costs; to measure more, take the lines below in, without {}:\n"
        "# tasks of lm-eval are fetched from the hub, and a judge wants a key\n"
    )
    return before + said + "".join(f"# {line}\n" for line in lines)
