"""NVML's path, with the real `pynvml` over a C stand-in for NVIDIA's library (nvml_stub.c), in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.collectors import NO_SAMPLE, collect, summarize

FIRST, SECOND = "GPU-aaaaaaaa-0000-0000-0000-000000000000", "GPU-bbbbbbbb-1111-1111-1111-111111111111"
GIB = 2**30
IMPORTS = """
import json
from bench.collectors import Collectors, Watched, collect, summarize
from bench.collectors.energy import Energy
from bench.collectors.gpu import GpuMemory, GpuUtilization
from bench.collectors.gpu_activity import MemoryBandwidth, SmActivity, TensorActivity
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile the stand-in; return its folder."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler to make the stand-in for NVIDIA's library with")
    folder = tmp_path_factory.mktemp("nvml")
    source = Path(__file__).with_name("nvml_stub.c")
    command = [compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", folder / "libnvidia-ml.so.1", source]
    subprocess.run(command, check=True)
    return folder


def run(library: Path, code: str, stub: str = "") -> Any:
    """Run code in a new interpreter that finds the stand-in; it prints JSON."""
    environment = {**os.environ, "LD_LIBRARY_PATH": str(library), "STUB": stub}
    script = IMPORTS + textwrap.dedent(code)
    command = [sys.executable, "-W", "error", "-c", script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def watch(
    library: Path, *uuids: str, stub: str = "", stretches: int = 3
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Train in stretches of 3 s with a sample every second, by a clock that is moved; return measurements and rows."""
    code = f"""
        now = [0.0]
        collecting = Collectors([GpuUtilization, GpuMemory, Energy], Watched("cuda:0", {uuids!r}), 1.0, lambda: now[0])
        for _ in range({stretches}):
            collecting.resume()
            for _ in range(3):
                now[0] += 1
                collecting.sample_if_due()
            collecting.pause()
            now[0] += 1
        rows = collecting.drain()
        print(json.dumps([summarize(rows), rows]))
    """
    measurements, rows = run(library, code, stub)
    return measurements, rows


def median(value: float, unit: str, *quartiles: float) -> dict[str, Any]:
    """Return a median's entry, and where the middle half of its samples lies: at the median itself where all are alike."""
    return {"value": value, "unit": unit, "quartiles": list(quartiles or (value, value))}


def values(rows: list[dict[str, Any]], name: str) -> list[float]:
    return [row["value"] for row in rows if row["name"] == name]


def test_the_gpu_is_found_by_its_uuid_and_not_by_its_number(library: Path) -> None:
    """NVML's GPU 1 is watched as cuda:0: its samples go 70, 80, 90, 70, ...; GPU 0 would give 30 throughout."""
    measurements, rows = watch(library, SECOND)
    samples = values(rows, "gpu_utilization_percent")
    assert samples == 3 * [70.0, 80.0, 90.0]
    assert measurements["gpu_utilization_percent"] == median(80.0, "%", 70.0, 90.0)
    assert measurements["gpu_memory_used_bytes"] == median(5.0 * GIB, "B")


def test_the_other_gpu_by_its_uuid(library: Path) -> None:
    measurements, rows = watch(library, FIRST)
    assert set(values(rows, "gpu_utilization_percent")) == {30.0}
    assert measurements["gpu_utilization_percent"] == median(30.0, "%")
    assert measurements["gpu_memory_used_bytes"] == median(2.0 * GIB, "B")


def test_two_gpus_give_their_mean_utilization_and_the_sum_of_their_memory(library: Path) -> None:
    """(30 + 70) / 2 = 50 at first; 2 + 5 GiB."""
    measurements, rows = watch(library, FIRST, SECOND)
    assert values(rows, "gpu_utilization_percent")[:3] == [50.0, 55.0, 60.0]
    assert measurements["gpu_memory_used_bytes"] == median(7.0 * GIB, "B")


def test_energy_adds_up_over_training_only(library: Path) -> None:
    """The counter rises by 2.5 J a reading: each stretch is one step of it, three make 7.5 J; what is between is not counted."""
    measurements, rows = watch(library, SECOND, stretches=3)
    assert measurements["energy_joules"] == {"value": 7.5, "unit": "J"}
    assert values(rows, "energy_joules") == [7.5]


def test_a_part_of_a_gpu_is_not_measured(library: Path) -> None:
    """MIG: NVML counts neither utilization nor energy of an instance."""
    cut = f"MIG: NVML does not count the use of a part of a GPU ({SECOND})"
    instance = "MIG: NVML does not count the use of a part of a GPU (MIG-1234)"
    for reason, (measurements, rows) in {
        cut: watch(library, SECOND, stub="mig"),
        instance: watch(library, "MIG-1234"),
    }.items():
        for name, unit in {"gpu_utilization_percent": "%", "gpu_memory_used_bytes": "B", "energy_joules": "J"}.items():
            assert measurements[name] == {"value": None, "unit": unit, "reason": reason}
        assert values(rows, "gpu_utilization_percent") == [None]


def test_a_figure_that_the_driver_does_not_know_leaves_the_others(library: Path) -> None:
    measurements, _ = watch(library, FIRST, stub="old")
    assert measurements["gpu_utilization_percent"] == {"value": None, "unit": "%", "reason": "NVML: Not Supported"}
    assert measurements["energy_joules"] == {"value": None, "unit": "J", "reason": "NVML: Not Supported"}
    assert measurements["gpu_memory_used_bytes"]["value"] == 2.0 * GIB


def test_an_unknown_uuid_is_a_reason(library: Path) -> None:
    measurements, _ = watch(library, "GPU-cccccccc")
    assert measurements["gpu_utilization_percent"]["reason"] == "NVML: Not Found"


def test_a_refused_reading_is_a_sample_less(library: Path) -> None:
    """Of 9 readings, 1, 3, 5, 7 and 9 are refused."""
    measurements, rows = watch(library, FIRST, stub="flaky")
    assert measurements["gpu_utilization_percent"] == median(30.0, "%")
    assert values(rows, "gpu_utilization_percent") == 4 * [30.0]
    assert values(rows, "gpu_memory_used_bytes") == 9 * [2.0 * GIB]


def test_a_lost_counter_is_a_reason_and_training_goes_on(library: Path) -> None:
    """Reading 1 asks whether there is a counter, 2 starts the first stretch, 3 fails: no part of the sum is reported."""
    measurements, _ = watch(library, FIRST, stub="lost")
    reason = "the collector broke: NVMLError_Unknown: Unknown Error"
    assert measurements["energy_joules"] == {"value": None, "unit": "J", "reason": reason}
    assert measurements["gpu_utilization_percent"]["value"] == 30.0


def test_collect_passes_the_uuids_on(library: Path) -> None:
    """All collectors at once, as a training job starts them; torch sees no GPU here, and its peak memory has a reason."""
    code = f"""
        with collect("cuda:0", ["{SECOND}"]) as collecting:
            collecting.resume()
            collecting.pause()
        print(json.dumps(summarize(collecting.drain())))
    """
    measurements = run(library, code)
    assert measurements["gpu_memory_used_bytes"] == {"value": 5.0 * GIB, "unit": "B"}  # too few samples to have halves
    no_sample = {"value": None, "unit": "%", "reason": NO_SAMPLE}
    assert measurements["gpu_utilization_percent"] == no_sample  # NVML's window reaches back over a second
    assert measurements["gpu_tensor_activity_percent"] == no_sample  # shorter than NVML's counters need
    assert measurements["peak_memory_bytes"] == {"value": None, "unit": "B", "reason": "torch sees no CUDA device"}


# ---- the hardware's own counters -------------------------------------------------------------------------------------


def activity(library: Path, kind: str, uuid: str = SECOND, stub: str = "", step: float = 1.0) -> list[dict[str, Any]]:
    """Train 3 s, a sample every second, two steps a second; evaluate; train another 2 s. Return the rows."""
    code = f"""
        now = [0.0]

        class Clocked({kind}):
            def __init__(self, watched):
                super().__init__(watched, lambda: now[0] * {step}, lambda seconds: None)

        collecting = Collectors([Clocked], Watched("cuda:0", ("{uuid}",)), 1.0, lambda: now[0])
        rows = []
        for seconds in (3, 2):
            for _ in range(2 * seconds):
                collecting.resume()
                now[0] += 0.5
                collecting.sample_if_due()
                collecting.pause()
            now[0] += 100
            rows += collecting.drain()
        print(json.dumps(rows))
    """
    rows: list[dict[str, Any]] = run(library, code, stub)
    return rows


def test_activity_is_that_between_two_looks_in_training(library: Path) -> None:
    """Looks 0 and 1 try the counters. Then 2 → 3 → 4 → 5, a look a second; after the evaluation 6 → 7 → 8, and never 5 → 6."""
    for kind, more in (("SmActivity", 0), ("TensorActivity", 30), ("MemoryBandwidth", 60)):
        found = [row["value"] - more for row in activity(library, kind)]
        assert found == pytest.approx([2.03, 3.04, 4.05, 6.07, 7.08])


def test_two_looks_lie_a_tenth_of_a_second_apart(library: Path) -> None:
    """On a clock on which a second is 0.06 s, every other sample is a look: at 0.12 s, none at 0.18; then at 0.12 again."""
    found = [row["value"] for row in activity(library, "SmActivity", step=0.06)]
    assert found == pytest.approx([2.03, 4.05])


def test_a_refused_look_is_a_sample_less(library: Path) -> None:
    """Look 4 is refused; the next step begins anew with 5, then 5 → 6; after the evaluation 7 → 8 → 9."""
    found = [row["value"] for row in activity(library, "SmActivity", stub="shaky")]
    assert found == pytest.approx([2.03, 5.06, 7.08, 8.09])


def test_a_card_without_counters_and_a_machine_that_hides_them_say_so(library: Path) -> None:
    (without,) = activity(library, "SmActivity", FIRST)
    assert without["value"] is None and without["reason"] == "NVML: this GPU has no such counters (GPM)"
    (hidden,) = activity(library, "TensorActivity", stub="locked")
    assert hidden["value"] is None and hidden["reason"] == "NVML's counters (GPM): Insufficient Permissions"


def test_the_machines_gpus_are_named(library: Path) -> None:
    assert run(library, "from bench.run import environment\nprint(json.dumps(environment.hardware()['gpus']))") == [
        "Stub A",
        "Stub B",
    ]


def test_a_run_gets_one_worker_a_gpu_and_only_the_visible_ones(library: Path) -> None:
    """The stand-in has two GPUs; CUDA_VISIBLE_DEVICES narrows them, and "" hides both, which leaves one worker."""
    code = """
        import os
        from bench.run import gpus
        from bench.collectors import nvml
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)
        counts = [gpus.default_workers()]
        for visible in ("1", ""):
            os.environ["CUDA_VISIBLE_DEVICES"] = visible
            counts.append(gpus.default_workers())
        print(json.dumps([nvml.uuids(), nvml.names(), counts]))
    """
    assert run(library, code) == [[FIRST, SECOND], ["Stub A", "Stub B"], [2, 1, 1]]


# ---- a real card -----------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore")  # of libraries, which differ from card to card
def test_a_cards_own_figures() -> None:
    """3 s of matrix products: busy by every counter that the card shows, its energy and memory with them; else a reason."""
    with collect("cuda:0", interval=0.25) as collecting:
        left = torch.randn(4096, 4096, device="cuda:0", dtype=torch.bfloat16)
        collecting.resume()
        until = time.monotonic() + 3
        while time.monotonic() < until:
            for _ in range(20):
                left @ left
            torch.cuda.synchronize()
        collecting.pause()
        rows = collecting.drain()
    figures = summarize(rows)
    assert figures["peak_memory_bytes"]["value"] >= 2 * 2 * 4096**2  # the matrix and a product
    for name in ("gpu_utilization_percent", "gpu_sm_activity_percent", "gpu_tensor_activity_percent"):
        assert figures[name].get("reason") or figures[name]["value"] > 20, name
    assert figures["energy_joules"].get("reason") or figures["energy_joules"]["value"] > 50
    bandwidth = figures["gpu_memory_bandwidth_percent"]
    assert bandwidth.get("reason") or 0 <= bandwidth["value"] <= 100
