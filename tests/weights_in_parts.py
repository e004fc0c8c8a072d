"""Say, as a process that `torchrun` starts, how weights in parts lie and what gradients they get; see `test_sharding.py`.

Arguments: a folder, the dtype, and whether all weights are trained.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from torch.distributed.tensor import DTensor

from bench.data.tokens import Example
from bench.models import policy
from bench.models.objectives import collate, sft_sum
from bench.models.processes import Processes, whole
from bench.settings import Lora, Model

ROWS = [Example((5, 11, 3), ((17, 8),)), Example((4,), ((6, 7, 12),)), Example((9, 2), ((3, 14),))]
LORA = Lora(rank=2, alpha=4, targets=("q_proj", "v_proj"))


def main(folder: Path, dtype: str, full: bool) -> None:
    """Give each process its rows, go forward and back, and write down what came of it."""
    torch.set_num_threads(1)
    cpu = torch.device("cpu")
    processes = Processes(cpu)
    settings = Model.model_validate({"source": "random", "dtype": dtype, "tuning": "full" if full else "lora"})
    made = policy.load(settings, cpu, processes=processes, sharded=True)
    frozen = dict(made.model.named_parameters())
    made.attach(None if full else LORA, seed=0)
    made.model.train()
    own = list(processes.own(ROWS)) or ROWS[:1]
    idle = not processes.own(ROWS)
    loss = sft_sum(made.model, collate(own, "plain", cpu)) * (0.0 if idle else 1.0)
    loss.backward()
    trained = made.trainable()
    processes.sum_gradients(list(trained.values()))
    told = {
        "backend": torch.distributed.get_backend(),
        "in_parts": {name: isinstance(one, DTensor) for name, one in frozen.items()},
        "numbers": {
            name: [one.numel(), one.to_local().numel()] for name, one in frozen.items() if isinstance(one, DTensor)
        },
        "dtypes": sorted({str(one.dtype) for one in trained.values()}),
        "trained_in_parts": [isinstance(one, DTensor) for one in trained.values()],
        "loss": float(processes.sum(loss.detach())),
    }
    gradients = {name: whole(one.grad) for name, one in trained.items() if one.grad is not None}
    if processes.main:
        torch.save(gradients, folder / "gradients.pt")
    (folder / f"told-{processes.rank}.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "full")
