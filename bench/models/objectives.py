"""The two objectives, f_DPO (Eq. 1) and f_SFT (Eq. 4), and the log-probabilities they are made of.

Only answer tokens get logits: the decoder runs over whole rows, the vocabulary projection over the positions that
predict an answer token. Plain rows are padded on the right, where a causal model cannot look, so they need no mask.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.data.tokens import Example
from bench.models import lm_head, packed_attention

Layout = Literal["plain", "shared_prompt"]


@dataclass(frozen=True)
class Batch:
    """Rows ready for a forward pass.

    Shapes: input_ids [rows, length]; examples the lengths of each one's prompt and answers where all lie in one row, None
    for plain rows; predictors, targets, sequences [answer tokens]: the flat position whose
    hidden state predicts the token, the token, and which answer (of `answers`) it belongs to.
    """

    input_ids: Tensor
    examples: tuple[tuple[int, tuple[int, ...]], ...] | None
    predictors: Tensor
    targets: Tensor
    sequences: Tensor
    answers: int
    tokens: int

    @property
    def padding(self) -> int:
        """Tokens forwarded for nothing."""
        return self.input_ids.numel() - self.tokens


def tokens_of(example: Example, layout: Layout) -> int:
    """Count the tokens that an example takes up: a shared prompt once, a plain one before every answer."""
    prompts = 1 if layout == "shared_prompt" else len(example.answers)
    return prompts * len(example.prompt) + sum(map(len, example.answers))


def collate(examples: Sequence[Example], layout: Layout, device: torch.device) -> Batch:
    """Lay examples out as rows; answer k of example i is sequence i · answers per example + k.

    `plain` makes a row per answer, padded on the right. `shared_prompt` makes one row of all: each example's prompt, then
    its answers, so that a prompt is forwarded once and nothing is padded. Positions restart with each example, and after
    the prompt with each answer; attention keeps them apart.
    """
    if layout == "shared_prompt":
        return _one_row(examples, device)
    rows = [
        (example.prompt, answer, example.learned(number))
        for example in examples
        for number, answer in enumerate(example.answers)
    ]
    length = max(len(prompt) + len(answer) for prompt, answer, _ in rows)
    ids = [[*prompt, *answer] + [0] * (length - len(prompt) - len(answer)) for prompt, answer, _ in rows]
    predictors: list[int] = []
    targets: list[int] = []
    sequences: list[int] = []
    for number, (prompt, answer, learned) in enumerate(rows):
        start = number * length + len(prompt) - 1
        predictors += [start + place for place in learned]
        targets += [answer[place] for place in learned]
        sequences += [number] * len(learned)
    return Batch(
        input_ids=torch.tensor(ids, device=device),
        examples=None,
        predictors=torch.tensor(predictors, device=device),
        targets=torch.tensor(targets, device=device),
        sequences=torch.tensor(sequences, device=device),
        answers=len(rows),
        tokens=sum(len(prompt) + len(answer) for prompt, answer, _ in rows),
    )


def _one_row(examples: Sequence[Example], device: torch.device) -> Batch:
    ids: list[int] = []
    predictors: list[int] = []
    targets: list[int] = []
    sequences: list[int] = []
    answers = 0
    for example in examples:
        ids += example.prompt
        last_of_prompt = len(ids) - 1
        for number, answer in enumerate(example.answers):
            learned = example.learned(number)
            predictors += [len(ids) + place - 1 if place else last_of_prompt for place in learned]
            ids += answer
            targets += [answer[place] for place in learned]
            sequences += [answers] * len(learned)
            answers += 1
    return Batch(
        input_ids=torch.tensor([ids], device=device),
        examples=tuple((len(one.prompt), tuple(map(len, one.answers))) for one in examples),
        predictors=torch.tensor(predictors, device=device),
        targets=torch.tensor(targets, device=device),
        sequences=torch.tensor(sequences, device=device),
        answers=answers,
        tokens=len(ids),
    )


def answer_token_logps(model: Any, batch: Batch) -> Tensor:
    """Return log π_θ of every answer token, in nats and float32. Shape: [answer tokens]."""
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    in_parts = getattr(causal, "bench_token_logps", None)  # weights that are put together around it: see `sharding`
    found: Tensor = in_parts(batch) if in_parts else plain_token_logps(causal, batch)
    return found


def plain_token_logps(causal: Any, batch: Batch) -> Tensor:
    """Return them with a causal model whose weights are all here."""
    arguments: dict[str, Any] = {"input_ids": batch.input_ids, "use_cache": False}
    if batch.examples is not None:
        dtype = getattr(causal, "dtype", torch.float32)
        in_one_call = getattr(causal, "bench_one_call", False)
        arguments |= packed_attention.arguments(batch.examples, dtype, batch.input_ids.device, in_one_call)
    if getattr(causal, "bench_full_logits", False):
        logits = causal(**arguments).logits.flatten(0, 1).index_select(0, batch.predictors)
        return -F.cross_entropy(logits.float(), batch.targets, reduction="none")
    hidden = causal.get_decoder()(**arguments).last_hidden_state.flatten(0, 1).index_select(0, batch.predictors)
    cap = getattr(causal, "bench_logit_cap", None)
    return lm_head.token_logps(causal.get_output_embeddings(), hidden, batch.targets, cap)


def sequence_logps(model: Any, batch: Batch) -> Tensor:
    """Return log π_θ(y | x) of every answer, summed over its tokens, in nats. Shape: [answers]."""
    token_logps = answer_token_logps(model, batch)
    return token_logps.new_zeros(batch.answers).index_add(0, batch.sequences, token_logps)


def dpo_losses(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    reference_chosen_logps: Tensor,
    reference_rejected_logps: Tensor,
    beta: float,
) -> Tensor:
    """Return −log σ(h_β) for each pair, the summand of f_DPO (Eq. 1). Shapes: all [pairs]; nats.

    At θ = π_ref every loss is log 2.
    """
    # Eq. 3: h_β = β log(π_θ(y_w|x) / π_ref(y_w|x)) − β log(π_θ(y_l|x) / π_ref(y_l|x))
    margin = (policy_chosen_logps - reference_chosen_logps) - (policy_rejected_logps - reference_rejected_logps)
    return -F.logsigmoid(beta * margin)


def dpo_and_chosen_sums(
    model: Any, batch: Batch, reference: Mapping[str, Tensor], beta: float
) -> tuple[Tensor, Tensor]:
    """Return, over a batch's pairs, the sum of Eq. 1's summand and −Σ log π_θ(y_w | x), from one forward pass.

    Divide the first by the pairs of the whole batch for f_DPO, the second as `sft_sum` for f_SFT on the chosen answers.
    """
    logps = sequence_logps(model, batch).view(-1, 2)
    losses = dpo_losses(logps[:, 0], logps[:, 1], reference["chosen"], reference["rejected"], beta)
    return losses.sum(), -logps[:, 0].sum()


def sft_sum(model: Any, batch: Batch) -> Tensor:
    """Return −Σ log π_θ(y | x) over a batch's answer tokens (Eq. 4 before its division).

    Divide by the answer tokens of the whole batch for `token_mean`, by its rows for `sequence_sum`.
    """
    return -answer_token_logps(model, batch).sum()


def sft_divisor(examples: Sequence[Example], reduction: str) -> int:
    """Count what f_SFT divides by: answer tokens or rows of the whole batch."""
    return sum(len(example.learned()) for example in examples) if reduction == "token_mean" else len(examples)
