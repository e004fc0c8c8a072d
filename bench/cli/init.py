"""Write a commented suite for the user's own model and JSONL data: `bench init`."""

from __future__ import annotations

from pathlib import Path

from bench.errors import InputError

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
  gradient_checkpointing: false # true saves memory and costs time

lora: # the adapter; only it is trained
  rank: 16 # size of the adapter
  alpha: 32 # its scale is alpha / rank
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
cost: auto # auto: each kind of step is measured once, alone on the machine; off: by the runs' own seconds

evaluation: # of every trained policy, the reference and the base model; delete a part to leave it out
  lm_eval: # any task of lm-eval
    tasks: [mmlu] # fetched from the hub
    shots: 1 # solved examples before the question
    limit: 5 # questions a subject; null is all
    chat_template: false # true asks in the model's chat template
  win_rate: # generated answers against the chosen answers of your held-out pairs
    prompts: 64 # pairs judged for each policy
    generation: # how answers are sampled
      max_new_tokens: 256 # at most
      temperature: 1.0 # 0 is greedy
    judge: # EDIT. Who prefers
      kind: openai # any OpenAI-compatible endpoint; or local with local_model: {source: ..., path: ...}
      configuration: weighted_alpaca_eval_gpt4_turbo # alpaca-eval's prompt and parser
      model: gpt-4.1 # this configuration needs a model that returns log-probabilities
      base_url: null # for another endpoint than OpenAI's
      key_variable: OPENAI_API_KEY # the environment variable that holds the key; a key never stands in a suite
      orders: both # single asks once a pair and costs half
      max_cost_usd: 20 # EDIT. Judging stops before it may cost more; bench plan estimates it; needs a known price
"""


def template() -> str:
    """Return a suite's YAML in which every key is explained."""
    return _TEMPLATE


def write(path: Path) -> None:
    """Write the template to a new file.

    Raises:
        InputError: the file exists, or its folder cannot be written.
    """
    if path.exists():
        raise InputError(f"{path}: exists already; give another name, or move it away")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(template())
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from error
