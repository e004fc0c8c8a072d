"""Compiled decoder layers against the layers themselves: losses, gradients, lengths, adapters put on anew, failures."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.data.tokens import Example
from bench.models import compiled, policy, varlen
from bench.models.objectives import Batch, collate, sequence_logps
from bench.settings import Lora, Model

CPU = torch.device("cpu")
LORA = Lora(rank=2, alpha=4)
# Traced and split into forward and backward as for a GPU, but without code being generated: that takes a minute here.
TRACED = "aot_eager"
ONLY_TRACED = "eager"

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore:`is_gradient_checkpointing`:FutureWarning"
)


@pytest.fixture(autouse=True)
def compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """Start with no graphs, and fail where PyTorch would silently compute eagerly for having made too many."""
    import torch._dynamo

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    settings: Any = torch._dynamo.config
    with settings.patch(fail_on_recompile_limit_hit=True):
        yield torch._dynamo.utils.counters
    torch._dynamo.reset()


def load(architecture: str = "llama", **settings: Any) -> policy.Policy:
    settings = {"source": "random", "architecture": architecture, "compile": "layers"} | settings
    return policy.load(Model.model_validate(settings), CPU)


def stir(made: policy.Policy) -> None:
    with torch.no_grad():
        for one in made.trainable().values():
            one.copy_(torch.randn(one.shape, generator=torch.Generator().manual_seed(1)) * 0.1)


def batches(made: policy.Policy) -> list[Batch]:
    """Make nine batches: 1 to 3 pairs or rows, each of other lengths than the one before; more than PyTorch's limit of 8."""
    chance = torch.Generator().manual_seed(0)

    def some(most: int) -> tuple[int, ...]:
        length = int(torch.randint(1, most, (1,), generator=chance))
        return tuple(torch.randint(3, 40, (length,), generator=chance).tolist())

    counts = [(rows, answers) for rows in (2, 1, 3) for answers in (2, 1, 2)]
    return [
        collate(
            [Example(some(9), tuple(some(7) for _ in range(answers))) for _ in range(rows)],
            "shared_prompt",
            made.device,
        )
        for rows, answers in counts
    ]


def outcomes(made: policy.Policy) -> list[Tensor]:
    """Return log-probabilities and gradients of every batch, and log-probabilities without a graph."""
    found: list[Tensor] = []
    for batch in batches(made):
        made.model.train()
        made.model.zero_grad()
        logps = sequence_logps(made.model, batch)
        logps.sum().backward()
        found += [logps.detach(), *(one.grad.clone() for one in made.trainable().values() if one.grad is not None)]
        made.model.eval()
        with torch.no_grad():
            found.append(sequence_logps(made.model, batch))
    return found


def assert_near(ours: list[Tensor], expected: list[Tensor]) -> None:
    assert len(ours) == len(expected)
    for one, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("architecture", ["llama", "gpt_neox"])
def test_they_equal_the_layers_themselves_at_every_length(
    architecture: str, checkpointing: bool, compiler: Any
) -> None:
    made = load(architecture, gradient_checkpointing=checkpointing)
    made.attach(LORA, seed=0)
    stir(made)
    expected = outcomes(made)
    compiled.install(made, TRACED)
    assert made.notes == []
    assert made.compiled is not None
    assert made.compile_seconds > 0
    graphs = compiler["stats"]["unique_graphs"]
    assert graphs > 0
    assert_near(outcomes(made), expected)
    assert made.notes == []
    assert made.compiled.failure is None


def test_further_lengths_and_another_adapter_need_no_further_graphs(compiler: Any) -> None:
    """What was tried at the start serves all batches; a fresh adapter has other tensors and the same layers."""
    made = load()
    made.attach(LORA, seed=0)
    compiled.install(made, TRACED)
    outcomes(made)
    graphs = compiler["stats"]["unique_graphs"]
    for _ in range(2):
        outcomes(made)
        made.attach(LORA, seed=1)
        assert made.compiled is None
        compiled.install(made, TRACED)
    assert compiler["stats"]["unique_graphs"] == graphs > 0


def test_trying_leaves_the_adapter_and_random_numbers_as_they_were() -> None:
    made = load()
    made.attach(LORA, seed=0)
    made.model.train()
    before, random = made.trained_state(), torch.get_rng_state()
    compiled.install(made, ONLY_TRACED)
    assert made.model.training
    assert torch.get_rng_state().equal(random)
    assert all(one.grad is None for one in made.trainable().values())
    for name, value in made.trained_state().items():
        assert value.equal(before[name])


def test_without_its_adapter_a_model_computes_as_before() -> None:
    """The layers' own forward passes are back, and what replaces parts of them on a CPU."""
    made = load()
    layers = list(compiled._layers(made))
    replaced = [
        name for name, one in made.model.named_modules() if isinstance(one.__dict__.get("forward"), functools.partial)
    ]
    assert replaced
    made.attach(LORA, seed=0)
    compiled.install(made, ONLY_TRACED)
    assert all("forward" in one.__dict__ for one in layers)
    made.detach()
    assert not any("forward" in one.__dict__ for one in layers)
    back = [
        name for name, one in made.model.named_modules() if isinstance(one.__dict__.get("forward"), functools.partial)
    ]
    assert back == replaced


def test_only_packed_rows_go_through_it(compiler: Any) -> None:
    made = load()
    made.attach(LORA, seed=0)
    compiled.install(made, ONLY_TRACED)
    graphs = compiler["stats"]["unique_graphs"]
    made.model.generate(torch.tensor([[5, 9, 3]]), max_new_tokens=3, do_sample=False)
    with torch.no_grad():
        sequence_logps(made.model, collate([Example((5, 9), ((3, 7),))], "plain", CPU))
    assert compiler["stats"]["unique_graphs"] == graphs


# ---- where it is not done -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", ["auto", "off", False])
def test_a_cpu_compiles_only_when_asked(wanted: Any) -> None:
    made = load(compile=wanted)
    made.attach(LORA, seed=0)
    compiled.install(made, TRACED)
    assert made.compiled is None
    assert made.compile_seconds == 0
    assert made.notes == []


def refuse(graph: Any, inputs: Any) -> Any:
    raise RuntimeError("no compiler here\n\nand more")


def double(graph: Any, inputs: Any) -> Callable[..., Any]:
    """Compute twice what the graph says."""
    return lambda *values: tuple(2 * one if isinstance(one, Tensor) else one for one in graph(*values))


@pytest.mark.parametrize(
    ("backend", "why"), [(refuse, "no compiler here"), (double, "they do not agree with the layers")]
)
def test_what_fails_or_disagrees_leaves_the_layers(backend: Any, why: str) -> None:
    made = load()
    made.attach(LORA, seed=0)
    stir(made)
    expected = outcomes(made)
    compiled.install(made, backend)
    assert made.compiled is None
    (note,) = made.notes
    assert note.startswith("layers are not compiled: ")
    assert why in note
    for one, other in zip(outcomes(made), expected, strict=True):
        assert one.equal(other)


def test_a_failure_later_on_is_survived_with_the_same_numbers() -> None:
    made = load()
    made.attach(LORA, seed=0)
    stir(made)
    expected = outcomes(made)
    compiled.install(made, ONLY_TRACED)
    assert made.compiled is not None

    def fail(*values: Any, **named: Any) -> Any:
        raise RuntimeError("recompiled in vain")

    made.compiled.layers[-1].forward._compiled = fail
    assert_near(outcomes(made), expected)
    assert made.compiled.failure == "recompiled in vain"
    assert made.notes == ["layers are not compiled: recompiled in vain"]


def test_running_out_of_memory_is_not_taken_for_a_failure() -> None:
    made = load()
    made.attach(LORA, seed=0)
    compiled.install(made, ONLY_TRACED)
    assert made.compiled is not None

    def fail(*values: Any, **named: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    made.compiled.layers[0].forward._compiled = fail
    with pytest.raises(torch.OutOfMemoryError):
        outcomes(made)
    assert made.compiled.failure is None


def test_dropout_is_left_to_the_layers() -> None:
    made = load()
    made.attach(Lora(rank=2, alpha=4, dropout=0.1), seed=0)
    compiled.install(made, TRACED)
    assert made.compiled is None
    assert made.notes == ["layers are not compiled: with dropout they would draw other random numbers"]


# ---- with one call for all stretches --------------------------------------------------------------------------------


def kernel(
    query: Tensor, key: Tensor, value: Tensor, queries: Tensor, keys: Tensor, most: int, seen: int, scale: float | None
) -> Tensor:
    """Be one operation of PyTorch's that a compiler cannot look into, as the GPU's kernel is."""
    scale = scale or query.shape[-1] ** -0.5
    mixed: Tensor = torch.ops.bench_test.kernel(query, key, value, queries, keys, most, seen, scale)
    return mixed


def pieces(
    query: Tensor, key: Tensor, value: Tensor, queries: Tensor, keys: Tensor, scale: float
) -> Iterator[tuple[slice, slice, Tensor, Tensor, Tensor]]:
    """Yield each piece's places, the keys and values that its heads see, and softmax(scale · q kᵀ) under a causal mask."""
    groups = query.shape[1] // key.shape[1]
    for start, end, first, last in zip(*(one.tolist()[at:] for one in (queries, keys) for at in (0, 1)), strict=False):
        of_queries, of_keys = slice(start, end), slice(first, last)
        k, v = (one[of_keys].transpose(0, 1).repeat_interleave(groups, dim=0) for one in (key, value))
        scores = query[of_queries].transpose(0, 1) @ k.transpose(1, 2) * scale
        mask = torch.ones(end - start, last - first).tril(last - first - (end - start)).bool()
        yield of_queries, of_keys, k, v, scores.masked_fill(~mask, -torch.inf).softmax(-1)


def define_kernel() -> None:
    """Define the operation and its gradient: with P the weights, ∂S = P ∘ (∂P − Σ ∂P ∘ P), ∂Q = s ∂S K, ∂K = s ∂Sᵀ Q."""
    from torch.library import custom_op

    @custom_op("bench_test::kernel", mutates_args=())
    def forward(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        queries: Tensor,
        keys: Tensor,
        most: int,
        seen: int,
        scale: float,
    ) -> Tensor:
        mixed = torch.empty(query.shape)
        for of_queries, _, _, v, weights in pieces(query, key, value, queries, keys, scale):
            mixed[of_queries] = (weights @ v).transpose(0, 1)
        return mixed

    @forward.register_fake
    def _(query: Tensor, key: Tensor, value: Tensor, *others: Any) -> Tensor:
        return torch.empty(query.shape)

    @custom_op("bench_test::kernel_backward", mutates_args=())
    def backward(
        above: Tensor, query: Tensor, key: Tensor, value: Tensor, queries: Tensor, keys: Tensor, scale: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        of_query, of_key, of_value = (torch.zeros(one.shape) for one in (query, key, value))
        for of_queries, of_keys, k, v, weights in pieces(query, key, value, queries, keys, scale):
            one_above = above[of_queries].transpose(0, 1)
            of_weights = one_above @ v.transpose(1, 2)
            scores = weights * (of_weights - (of_weights * weights).sum(-1, keepdim=True)) * scale
            of_query[of_queries] = (scores @ k).transpose(0, 1)
            for total, heads in (
                (of_key, scores.transpose(1, 2) @ query[of_queries].transpose(0, 1)),
                (of_value, weights.transpose(1, 2) @ one_above),
            ):
                total[of_keys] = heads.unflatten(0, (key.shape[1], -1)).sum(1).transpose(0, 1)
        return of_query, of_key, of_value

    @backward.register_fake
    def _(above: Tensor, query: Tensor, key: Tensor, value: Tensor, *others: Any) -> tuple[Tensor, Tensor, Tensor]:
        return torch.empty(query.shape), torch.empty(key.shape), torch.empty(value.shape)

    def keep(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:5])
        ctx.scale = inputs[7]

    def back(ctx: Any, above: Tensor) -> tuple[Any, ...]:
        return (*torch.ops.bench_test.kernel_backward(above, *ctx.saved_tensors, ctx.scale), *(5 * [None]))

    forward.register_autograd(back, setup_context=keep)


@pytest.fixture
def closed_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    if not hasattr(torch.ops.bench_test, "kernel"):
        define_kernel()
    monkeypatch.setattr(varlen, "operator", lambda: kernel)
    monkeypatch.setattr(varlen, "reason_against", lambda model, device: None)


def test_one_call_for_all_stretches_lies_within_one_graph(
    closed_kernel: None, compiler: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A layer is one graph: the loop over stretches would break it. Batches of other lengths, whose bounds here are 2, 4, 8
    and 16, need no further graphs than those of rows that are gathered and of rows that are not."""
    monkeypatch.setattr(varlen, "LEAST_BOUND", 2)
    made = load()
    assert made.notes == []
    assert made.model.bench_one_call
    made.attach(LORA, seed=0)
    stir(made)
    expected = outcomes(made)
    compiled.install(made, TRACED)
    assert made.notes == []
    assert not compiler["graph_break"]
    graphs = compiler["stats"]["unique_graphs"]
    assert_near(outcomes(made), expected)
    assert compiler["stats"]["unique_graphs"] == graphs


# ---- with code generated --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_generated_code_agrees_on_a_cpu_and_is_kept_on_disk(tmp_path: Path) -> None:
    made = load()
    made.attach(LORA, seed=0)
    stir(made)
    expected = outcomes(made)
    compiled.install(made)
    assert made.notes == []
    assert_near(outcomes(made), expected)
    assert any(one.is_file() for one in tmp_path.rglob("*"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_generated_code_agrees_on_a_gpu(dtype: str) -> None:
    made = policy.load(Model.model_validate({"source": "random", "dtype": dtype}), torch.device("cuda"))
    made.attach(LORA, seed=0)
    stir(made)
    expected = outcomes(made)
    compiled.install(made)
    assert made.compiled is not None
    allowed = 1e-3 if dtype == "float32" else 0.1
    for one, other in zip(outcomes(made), expected, strict=True):
        assert float((one - other).norm()) <= allowed * float(other.norm())
