"""What counts as training, what is on record, and how rows become measurements."""

from __future__ import annotations

import gc
import json
import math
import statistics
import threading
import time
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, ClassVar

import pytest

import bench.collectors
from bench.collectors import (
    COLLECTORS,
    Collector,
    Collectors,
    Combine,
    Unavailable,
    Watched,
    collect,
    energy,
    of_devices,
    summarize,
)
from bench.collectors.cpu import Cpu
from bench.collectors.energy import Energy
from bench.collectors.memory import Memory
from bench.records.metrics import Metric, undescribed
from bench.registry import Registry

ON_CPU = Watched("cpu")
HANGING = 60.0  # seconds after which a test says that something hangs


class Diary(Collector):
    """Write down every call."""

    metric: ClassVar[Metric] = undescribed("tokens", "tokens")
    combine: ClassVar[Combine] = max

    def __init__(self, watched: Watched) -> None:
        self.calls: list[str] = []
        calls.append(self.calls)

    def resume(self) -> None:
        self.calls.append("resume")

    def pause(self) -> None:
        self.calls.append("pause")

    def sample(self, seconds: float) -> float | None:
        self.calls.append("sample")
        return seconds

    def drain(self) -> float | None:
        return None


calls: list[list[str]] = []


@pytest.fixture(autouse=True)
def _new_diary() -> None:
    calls.clear()


class Clock:
    """Stand still until a test lets time pass."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def train(collecting: Collectors, stretches: int) -> None:
    for _ in range(stretches):
        collecting.resume()
        collecting.pause()


def pass_seconds(clock: Clock, collecting: Collectors, count: int) -> Iterator[float]:
    """Let seconds pass one by one, each time asking for a sample as the thread does; yield what it is told to wait."""
    for _ in range(count):
        clock.seconds += 1
        yield collecting.sample_if_due()


# ---- when samples are taken -----------------------------------------------------------------------------------------


def test_no_sample_outside_training() -> None:
    """Ten intervals go by before the first resume and ten after a pause; none is sampled, and no seconds are counted."""
    clock = Clock()
    collecting = Collectors([Diary], ON_CPU, 1.0, clock)
    list(pass_seconds(clock, collecting, 10))
    assert collecting.drain() == []
    collecting.resume()
    list(pass_seconds(clock, collecting, 2))
    collecting.pause()
    assert [row["seconds"] for row in collecting.drain()] == [1, 2]
    list(pass_seconds(clock, collecting, 10))
    assert collecting.drain() == []


def test_what_looks_back_is_not_sampled_right_after_an_evaluation() -> None:
    """A sample a second that tells of the last 2 s: of 4 s before an evaluation and 4 after it, those at 2, 3, 4 and 6, 7, 8."""

    class LookingBack(Diary):
        looks_back: ClassVar[float] = 2.0

    clock = Clock()
    collecting = Collectors([Diary, LookingBack], ON_CPU, 1.0, clock)
    seen: list[float] = []
    for _ in range(2):
        collecting.resume()
        list(pass_seconds(clock, collecting, 4))
        collecting.pause()
        clock.seconds += 100
        seen += [row["value"] for row in collecting.drain()]
    assert seen == [1, 2, 2, 3, 3, 4, 4, 5, 6, 6, 7, 7, 8, 8]


def test_steps_shorter_than_the_interval_are_sampled_by_training_time() -> None:
    """40 steps of 5 s, 10 s apart, a sample every 50 s of training: 4 of them in 200 s; by the wall clock (600 s) 12."""
    clock = Clock()
    collecting = Collectors([Diary], ON_CPU, 50.0, clock)
    for _ in range(40):
        collecting.resume()
        list(pass_seconds(clock, collecting, 5))
        collecting.pause()
        list(pass_seconds(clock, collecting, 10))
    assert [(row["seconds"], row["value"]) for row in collecting.drain()] == [(at, at) for at in (50, 100, 150, 200)]


def test_the_thread_waits_as_long_as_no_sample_can_be_due() -> None:
    """A sample every 10 s: 7 s to go after 3, as many while paused; one is due at 10, and is not taken while paused."""
    clock = Clock()
    collecting = Collectors([Diary], ON_CPU, 10.0, clock)
    collecting.resume()
    assert list(pass_seconds(clock, collecting, 3)) == [9, 8, 7]
    collecting.pause()
    assert list(pass_seconds(clock, collecting, 2)) == [7, 7]
    collecting.resume()
    assert list(pass_seconds(clock, collecting, 7)) == [6, 5, 4, 3, 2, 1, 10]
    clock.seconds += 13
    collecting.pause()
    assert collecting.sample_if_due() == 0.001
    assert [row["seconds"] for row in collecting.drain()] == [10]


def test_the_thread_takes_samples_by_itself() -> None:
    taken = threading.Event()

    class Telling(Diary):
        def sample(self, seconds: float) -> float | None:
            taken.set()
            return super().sample(seconds)

    with Collectors([Telling], ON_CPU, interval=0.001) as collecting:
        collecting.resume()
        assert taken.wait(HANGING)
        collecting.pause()
        assert collecting.drain()


def test_a_run_shorter_than_the_interval_has_one_sample() -> None:
    with Collectors([Diary], ON_CPU, interval=HANGING) as collecting:
        train(collecting, 2)
    assert len(collecting.drain()) == 1
    assert calls[0] == ["resume", "pause", "resume", "pause", "sample"]


def test_resume_and_pause_may_be_repeated() -> None:
    with Collectors([Diary], ON_CPU, interval=10.0) as collecting:
        collecting.pause()
        collecting.resume()
        collecting.resume()
        collecting.pause()
        collecting.pause()
    assert calls[0][:2] == ["resume", "pause"]


def test_the_thread_ends_with_the_block_even_after_an_error() -> None:
    def block() -> None:
        with pytest.raises(KeyError), Collectors([Diary], ON_CPU, interval=10 * HANGING) as collecting:
            collecting.resume()
            raise KeyError

    around = threading.Thread(target=block, daemon=True)
    around.start()
    around.join(HANGING)
    assert not around.is_alive()
    assert not [thread for thread in threading.enumerate() if thread.name == "bench-collectors"]


# ---- what goes wrong ------------------------------------------------------------------------------------------------


class Absent(Diary):
    metric: ClassVar[Metric] = undescribed("energy_joules", "J")

    def __init__(self, watched: Watched) -> None:
        raise Unavailable(f"nothing counts it on {watched.device}")


class Breaking(Diary):
    metric: ClassVar[Metric] = undescribed("energy_joules", "J")

    def pause(self) -> None:
        raise ZeroDivisionError("no more")


def test_what_cannot_be_measured_is_on_record_once() -> None:
    with Collectors([Absent], ON_CPU, interval=10.0) as collecting:
        first = collecting.drain()
        train(collecting, 1)
        assert collecting.drain() == []
    assert first == [{"seconds": 0.0, "name": "energy_joules", "value": None, "reason": "nothing counts it on cpu"}]


def test_training_goes_on_without_a_collector_that_breaks() -> None:
    with Collectors([Breaking, Diary], ON_CPU, interval=10.0) as collecting:
        train(collecting, 2)
        rows = collecting.drain()
    assert [(row["name"], row["value"], row.get("reason")) for row in rows] == [
        ("energy_joules", None, "the collector broke: ZeroDivisionError: no more")
    ]
    assert calls[1][:4] == ["resume", "pause", "resume", "pause"]


# ---- the figures ----------------------------------------------------------------------------------------------------


def test_cpu_utilization_counts_cores_busy_in_training() -> None:
    """2 CPU seconds in 1 s of training are 200 %, then 1 in 1 s; 50 burnt while paused are left out: 1 in 4 s is 25 %."""
    clock = Clock()
    cpu = Cpu(ON_CPU, clock)
    cpu.resume()
    clock.seconds += 2
    assert cpu.sample(1.0) == 200
    clock.seconds += 1
    cpu.pause()
    assert cpu.sample(2.0) == 100
    clock.seconds += 50
    cpu.resume()
    clock.seconds += 1
    cpu.pause()
    assert cpu.sample(6.0) == 25
    assert cpu.sample(6.0) is None


def test_cpu_utilization_goes_by_the_process_own_cpu_seconds() -> None:
    """A tenth of a CPU second, however long it takes to get, is at least 10 % of one second."""
    cpu = Cpu(ON_CPU)
    cpu.resume()
    until = time.process_time() + 0.1
    while time.process_time() < until:
        pass
    cpu.pause()
    utilization = cpu.sample(1.0)
    assert utilization is not None
    assert utilization >= 10


def test_peak_memory_leaves_out_what_happened_between_stretches() -> None:
    """64 MiB written in training count; 256 MiB written while paused do not."""
    mebibyte = 2**20
    try:
        memory = Memory(ON_CPU)
    except Unavailable as error:
        pytest.skip(str(error))

    def peak_of(size: int) -> float:
        memory.resume()
        inside = bytearray(size)
        del inside
        memory.pause()
        peak = memory.drain()
        assert peak is not None
        return peak

    gc.collect()  # so that nothing else is given back meanwhile
    before = peak_of(0)
    outside = bytearray(256 * mebibyte)
    del outside
    without = peak_of(0)
    assert without - before < 64 * mebibyte
    assert 56 * mebibyte < peak_of(64 * mebibyte) - without < 128 * mebibyte
    assert memory.drain() is None


def test_peak_memory_without_proc_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.collectors.memory, "PROCESS", tmp_path / "absent")
    with pytest.raises(Unavailable, match="clear_refs, which resets the peak, cannot be written: No such file"):
        Memory(ON_CPU)


def rapl(folder: Path, package: int, microjoules: int, wraps_at: int = 10**9) -> None:
    """Write the files in which Linux shows a CPU package's energy."""
    (folder / f"intel-rapl:{package}").mkdir(exist_ok=True)
    (folder / f"intel-rapl:{package}" / "energy_uj").write_text(f"{microjoules}\n")
    (folder / f"intel-rapl:{package}" / "max_energy_range_uj").write_text(f"{wraps_at}\n")


def test_cpu_energy_adds_packages_and_stretches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """First 3 J and 1 J; then 896 J while paused; then 999 -> 2, which is 3 J where 1000 wraps to 0, and 0 J: in all 7 J."""
    monkeypatch.setattr(energy, "POWERCAP", tmp_path)
    rapl(tmp_path, 0, 100_000_000)
    rapl(tmp_path, 1, 0)
    meter = Energy(ON_CPU)
    assert meter.drain() is None
    meter.resume()
    rapl(tmp_path, 0, 103_000_000)
    rapl(tmp_path, 1, 1_000_000)
    meter.pause()
    rapl(tmp_path, 0, 999_000_000)
    meter.resume()
    rapl(tmp_path, 0, 2_000_000)
    meter.pause()
    assert meter.drain() == pytest.approx(7.0)
    assert meter.drain() is None


def test_a_machine_without_an_energy_counter_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "POWERCAP", tmp_path)
    with pytest.raises(Unavailable, match="does not show the CPU's energy counter"):
        Energy(ON_CPU)
    (tmp_path / "intel-rapl:0").mkdir()
    with pytest.raises(Unavailable, match="cannot be read: No such file or directory"):
        Energy(ON_CPU)


# ---- from rows to measurements --------------------------------------------------------------------------------------


def rows(name: str, *values: float) -> list[dict[str, Any]]:
    return [{"step": 1, "seconds": 0.5, "name": name, "value": value} for value in values]


def test_utilization_is_a_median_memory_a_maximum_and_energy_a_sum() -> None:
    """Medians over both phases' samples: of 10, 90, 20, 30 it is 25; the mean would be 37.5."""
    phase_1 = [*rows("cpu_utilization_percent", 10, 90), *rows("peak_memory_bytes", 500), *rows("energy_joules", 1.5)]
    phase_2 = [*rows("cpu_utilization_percent", 20, 30), *rows("peak_memory_bytes", 400), *rows("energy_joules", 2.0)]
    measurements = summarize([*phase_1, *phase_2])
    assert measurements["cpu_utilization_percent"] == {"value": 25, "unit": "%", "quartiles": [17.5, 45.0]}
    assert measurements["peak_memory_bytes"] == {"value": 500, "unit": "B"}
    assert measurements["energy_joules"] == {"value": 3.5, "unit": "J"}
    unmeasured = {"value": None, "unit": "%", "reason": bench.collectors.NO_SAMPLE}
    assert measurements["gpu_utilization_percent"] == unmeasured


def test_a_phase_that_was_not_measured_leaves_no_figure_for_the_run() -> None:
    """A first phase on a machine with a counter and a second without have no common sum."""
    lost = {"step": 9, "seconds": 0.0, "name": "energy_joules", "value": None, "reason": "no counter"}
    measurements = summarize([*rows("energy_joules", 5.0), lost])
    assert measurements["energy_joules"] == {"value": None, "unit": "J", "reason": "no counter"}


def test_a_run_on_this_cpu_end_to_end() -> None:
    """Every figure is there or says why not; without a GPU its figures are null, never 0; rows are JSON."""
    with collect("cpu", interval=0.02) as collecting:
        train(collecting, 4)
    collected = json.loads(json.dumps(collecting.drain()))
    measurements = summarize(collected)
    assert set(measurements) == set(COLLECTORS)
    assert measurements["gpu_utilization_percent"]["value"] is None
    assert measurements["gpu_utilization_percent"]["reason"] == "no GPU: trained on cpu"
    assert measurements["cpu_utilization_percent"]["value"] >= 0
    for name, measurement in measurements.items():
        assert measurement["unit"] == COLLECTORS[name].metric.unit
        assert measurement["value"] is not None or measurement["reason"]


# ---- the table ------------------------------------------------------------------------------------------------------


def test_own_collectors_stand_under_their_metric() -> None:
    assert {name: kind.metric.name for name, kind in COLLECTORS.items()} == {name: name for name in COLLECTORS}
    assert COLLECTORS["gpu_utilization_percent"].combine is statistics.median
    assert COLLECTORS["energy_joules"].combine is math.fsum


def test_another_packages_collector_is_summed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    table: Registry[Any] = Registry("collector", "bench.collectors", {"tokens": f"{__name__}:Diary"})
    monkeypatch.setattr(EntryPoint, "load", lambda self: Diary)
    monkeypatch.setattr(bench.collectors, "COLLECTORS", table)
    assert summarize(rows("tokens", 3, 7))["tokens"] == {"value": 7, "unit": "tokens"}


def test_a_median_comes_with_the_middle_half_of_its_samples() -> None:
    """10, 20, 30, 40, 50: median 30, quartiles 20 and 40. Of three samples there are none, and none of a sum or a maximum."""
    rows = [{"name": "cpu_utilization_percent", "value": float(value)} for value in (50, 10, 40, 20, 30)]
    made = summarize([*rows, {"name": "peak_memory_bytes", "value": 5.0}])
    assert made["cpu_utilization_percent"] == {"value": 30.0, "unit": "%", "quartiles": [20.0, 40.0]}
    assert "quartiles" not in made["peak_memory_bytes"]
    assert "quartiles" not in summarize(rows[:3])["cpu_utilization_percent"]


def test_figures_of_several_devices_come_together_as_each_collector_says() -> None:
    """Peaks, memory and a process's utilization add up, a GPU's utilization is the mean; energy adds up where each has a GPU.

    The second process took one sample of its utilization less: the last one of the first has no companion.
    """

    def rows(name: str, *values: float | None) -> list[dict[str, Any]]:
        return [
            {"seconds": 1.0, "name": name, "value": one} | ({} if one is not None else {"reason": "none"})
            for one in values
        ]

    first = rows("peak_memory_bytes", 10.0) + rows("cpu_utilization_percent", 50.0, 60.0, 70.0)
    first += rows("gpu_utilization_percent", 80.0) + rows("gpu_memory_used_bytes", 5.0) + rows("energy_joules", 100.0)
    second = rows("peak_memory_bytes", 12.0) + rows("cpu_utilization_percent", 40.0, 30.0)
    second += rows("gpu_utilization_percent", 40.0) + rows("gpu_memory_used_bytes", 6.0) + rows("energy_joules", 90.0)

    def values(device: str) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = {}
        for row in of_devices([first, second], device):
            found.setdefault(row["name"], []).append(row["value"])
        return found

    assert values("cuda") == {
        "peak_memory_bytes": [22.0],
        "cpu_utilization_percent": [90.0, 90.0],
        "gpu_utilization_percent": [60.0],
        "gpu_memory_used_bytes": [11.0],
        "energy_joules": [190.0],
    }
    assert values("cpu")["energy_joules"] == [100.0]  # each process read the same counter, of the whole machine
    assert of_devices([first], "cuda") == first
    missing = of_devices([rows("energy_joules", 1.0), rows("energy_joules", None)], "cuda")
    assert [row["value"] for row in missing] == [None]
