"""What is exported loads elsewhere, by plain transformers and peft, and says the same as the trained policy."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from bench.errors import InputError, JobError, ModelError
from bench.export import export
from bench.models import policy, world_model
from bench.records import record
from bench.run import execute
from bench.suite.suite import Suite

COMMIT = "0123456789abcdef0123456789abcdef01234567"
IDS = [[5, 11, 3, 17, 8, 2, 9]]
# -I: no PYTHONPATH, no user site, not the folder it runs in: nothing of this repository but what is installed. An
# editable install would still be found, so any import of it ends the script.
ISOLATED = """\
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        assert name.partition(".")[0] not in ("bench", "report"), name
sys.meta_path.insert(0, Refuse())
"""


@pytest.fixture
def made(run_plan: Any) -> Callable[..., Any]:
    """Run a suite's jobs that match, and write its suite.json as a run does."""

    def run(settings: Suite, *starts: str) -> Any:
        runner = run_plan(settings)
        execute.write_suite(runner.plan, runner.folder)
        for start in starts:
            runner.run(start)
        return runner

    return run


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Save a tiny base model with its tokenizer in a folder."""
    folder = tmp_path / "base"
    settings = policy.Model(source="random")
    loaded = policy.load(settings, torch.device("cpu"))
    loaded.model.save_pretrained(folder)
    world_model.tokenizer().save_pretrained(folder)
    return folder


def logits_of(runner: Any, start: str) -> torch.Tensor:
    """Return the logits of a job's policy as the suite holds it in memory."""
    loaded = policy.load(runner.suite.model, torch.device("cpu"))
    loaded.attach_saved(runner.context.job_folder(runner.job(start).id))
    return loaded.logits(torch.tensor(IDS))


def elsewhere(code: str, folder: Path, **environment: str) -> str:
    """Run Python in a folder without this repository's code; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-I", "-W", "ignore", "-c", ISOLATED + code],
        cwd=folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


LOGITS = f"""\
import torch
from transformers import AutoTokenizer
with torch.no_grad():
    logits = model.eval()(input_ids=torch.tensor({IDS})).logits
assert AutoTokenizer.from_pretrained(".")("trees")["input_ids"]
torch.save(logits, "logits.pt")
"""
MERGED = 'from transformers import AutoModelForCausalLM\nmodel = AutoModelForCausalLM.from_pretrained(".")\n'
ADAPTER = 'from peft import AutoPeftModelForCausalLM\nmodel = AutoPeftModelForCausalLM.from_pretrained(".")\n'


def test_a_merged_model_loads_by_transformers_alone(tiny: Any, made: Any, tmp_path: Path) -> None:
    """A trained adapter, and one that is a sum of two."""
    jobs = ("mix-l0.5-s0", "interpolation-l0.5-s0")
    runner = made(tiny(methods=["mix", "interpolation"]), *jobs)
    done = {job: export.export(runner.folder, job, tmp_path / job, merge=True) for job in jobs}
    elsewhere("import os\n" + "".join(f"os.chdir({str(tmp_path / job)!r})\n{MERGED}{LOGITS}" for job in jobs), tmp_path)
    for job, one in done.items():
        assert (one.merged, one.note) == (True, "")
        assert one.difference < 1e-5
        torch.testing.assert_close(torch.load(one.folder / "logits.pt"), logits_of(runner, job), atol=1e-5, rtol=0)
        assert not list(one.folder.glob("adapter_*"))
        assert {oct(file.stat().st_mode & 0o777) for file in one.folder.glob("*.safetensors")} == {"0o644"}
        assert json.loads((one.folder / "generation_config.json").read_text())["eos_token_id"] == 2


def test_an_adapter_loads_by_peft_alone_on_the_base_it_names(tiny: Any, made: Any, base: Path, tmp_path: Path) -> None:
    """The adapter's tensors are those that were trained, bit for bit."""
    runner = made(tiny(model={"source": "local", "path": str(base)}), "mix")
    done = export.export(runner.folder, "mix", tmp_path / "adapter")
    assert "its base model" in done.note
    settings = json.loads((done.folder / "adapter_config.json").read_text())
    assert (settings["base_model_name_or_path"], settings["revision"]) == (str(base), None)
    elsewhere(ADAPTER + LOGITS, done.folder)
    torch.testing.assert_close(torch.load(done.folder / "logits.pt"), logits_of(runner, "mix"), atol=1e-5, rtol=0)
    trained = load_file(runner.context.job_folder(runner.job("mix").id) / "adapter" / "adapter_model.safetensors")
    written = load_file(done.folder / "adapter_model.safetensors")
    assert trained.keys() == written.keys()
    assert all(torch.equal(trained[name], written[name]) for name in trained)


def test_an_adapter_of_a_built_in_base_says_what_it_needs(tiny: Any, made: Any, tmp_path: Path) -> None:
    """No hub and no folder can have that name, so nothing else is ever loaded in its place."""
    runner = made(tiny(), "mix")
    done = export.export(runner.folder, "mix", tmp_path / "adapter")
    assert "bench:random:llama; --merge writes a model that needs nothing else" in done.note
    settings = json.loads((done.folder / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == "bench:random:llama"


def test_bfloat16_weights_are_merged_in_float32_and_then_rounded(
    tiny: Any, made: Any, base: Path, tmp_path: Path
) -> None:
    """W + (alpha / rank) B A of the bfloat16 base, in float32, rounded once; alpha / rank is 4 / 2."""
    runner = made(tiny(model={"source": "local", "path": str(base), "dtype": "bfloat16"}), "mix")
    done = export.export(runner.folder, "mix", tmp_path / "model", merge=True)
    name = "model.layers.0.self_attn.q_proj"
    adapter = load_file(runner.context.job_folder(runner.job("mix").id) / "adapter" / "adapter_model.safetensors")
    a, b = (adapter[f"base_model.model.{name}.lora_{part}.weight"].float() for part in "AB")
    whole = load_file(base / "model.safetensors")[f"{name}.weight"].bfloat16().float() + 2 * b @ a
    written = load_file(done.folder / "model.safetensors")[f"{name}.weight"]
    assert written.dtype == torch.bfloat16
    torch.testing.assert_close(written, whole.bfloat16(), atol=0, rtol=2**-7)  # one step of bfloat16 at most
    assert (written == whole.bfloat16()).float().mean() > 0.99
    assert json.loads((done.folder / "config.json").read_text())["dtype"] == "bfloat16"


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings")
def test_adapted_output_embeddings_of_a_tied_model_are_untied(tiny: Any, made: Any, tmp_path: Path) -> None:
    """Added to shared weights, the output's update would change the input embeddings too."""
    runner = made(tiny(lora={"rank": 2, "alpha": 4, "targets": ["lm_head"]}), "mix")
    done = export.export(runner.folder, "mix", tmp_path / "model", merge=True)
    assert done.difference < 1e-5
    assert json.loads((done.folder / "config.json").read_text())["tie_word_embeddings"] is False


def test_a_model_of_the_hub_is_named_with_its_commit_and_the_cards_code_runs(
    tiny: Any, made: Any, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub is a cache as a download leaves it. The code in both cards answers in a folder of its own."""
    from huggingface_hub import constants

    cache = tmp_path / "hub"
    repository = cache / "models--some--model"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    (repository / "snapshots").mkdir()
    base.rename(repository / "snapshots" / COMMIT)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    runner = made(tiny(model={"source": "hub", "path": "some/model"}), "mix")
    adapter = export.export(runner.folder, "mix", tmp_path / "adapter")
    merged = export.export(runner.folder, "mix", tmp_path / "merged", merge=True)
    assert adapter.note == ""
    settings = json.loads((adapter.folder / "adapter_config.json").read_text())
    assert (settings["base_model_name_or_path"], settings["revision"]) == ("some/model", COMMIT)
    code = "import os\n"
    for done in (adapter, merged):
        (own,) = re.findall(r"```python\n(.*?)\n```", (done.folder / "README.md").read_text(), re.DOTALL)
        code += f"os.chdir({str(done.folder)!r})\n{own}\n{LOGITS}"
    printed = elsewhere(code, tmp_path, HF_HUB_CACHE=str(cache)).splitlines()
    half = len(printed) // 2
    assert printed[:half] == printed[half:] != []
    assert f'revision="{COMMIT}"' in (adapter.folder / "README.md").read_text()
    for done in (adapter, merged):
        torch.testing.assert_close(torch.load(done.folder / "logits.pt"), logits_of(runner, "mix"), atol=1e-5, rtol=0)


# ---- what is refused -------------------------------------------------------------------------------------------------


def test_a_job_is_found_by_its_beginning_or_a_glob_if_it_is_the_only_one(tiny: Any, made: Any, tmp_path: Path) -> None:
    runner = made(tiny(lambdas=[0.5, 0.25]), "mix-l0.5", "mix-l0.25")
    half = runner.job("mix-l0.5").id
    for wanted in (half, "mix-l0.5-s0", "mix-l0.5", "*l0.5*"):
        assert export.find(runner.folder.parent, wanted).job.id == half
    for wanted in ("mix", "mix-*"):
        with pytest.raises(InputError, match=r"matches 2 jobs: .*; give one id in full, or one suite") as caught:
            export.find(runner.folder, wanted)
        assert half in str(caught.value)
    with pytest.raises(InputError, match=r"no job 'mxi-l0\.5-s0'; did you mean mix-l0\.5-s0"):
        export.find(runner.folder, "mxi-l0.5-s0")
    with pytest.raises(InputError, match=r"reference-logps-.*: this job makes no weights"):
        export.find(runner.folder, "reference-logps")
    with pytest.raises(InputError, match="no such folder"):
        export.find(tmp_path / "nowhere", "mix")


def test_records_without_weights_say_how_to_make_them(tmp_path: Path) -> None:
    results = Path(__file__).parents[3] / "results" / "quickstart.bench"
    with pytest.raises(InputError, match="the weights of this job are not here, only its records") as caught:
        export.export(results, "mix-l0.5-s0", tmp_path / "model")
    assert "'bench run quickstart --only mix-l0.5-s0-" in str(caught.value)
    assert not (tmp_path / "model").exists()


def test_a_job_that_is_not_complete_is_refused(tiny: Any, made: Any) -> None:
    runner = made(tiny(), "mix")
    status = runner.context.job_folder(runner.job("mix").id) / "status.json"
    record.write_json(status, {"schema": 1, "outcome": "stopped"})
    with pytest.raises(InputError, match=r"this job is stopped; 'bench run .* finishes it"):
        export.find(runner.folder, "mix")
    status.unlink()
    with pytest.raises(InputError, match="this job is not complete"):
        export.find(runner.folder, "mix")


def test_a_base_model_that_changed_since_is_refused(tiny: Any, made: Any, base: Path) -> None:

    runner = made(tiny(model={"source": "local", "path": str(base)}), "mix")
    (base / "config.json").write_text((base / "config.json").read_text() + " ")
    with pytest.raises(ModelError, match="these are not the weights that mix-"):
        export.find(runner.folder, "mix")


def test_a_folder_that_holds_something_needs_force_which_clears_only_what_an_export_writes(
    tiny: Any, made: Any, tmp_path: Path
) -> None:
    """An adapter left beside a merged model would be loaded on top of it, so nothing of the last export stays."""
    runner = made(tiny(), "mix")
    folder = tmp_path / "model"
    export.export(runner.folder, "mix", folder)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="is not empty; give a new folder, or --force"):
        export.export(runner.folder, "mix", folder, merge=True)
    export.export(runner.folder, "mix", folder, merge=True, force=True)
    assert not list(folder.glob("adapter_*"))
    assert (folder / "notes.txt").read_text() == "mine"
    with pytest.raises(InputError, match=r"notes\.txt: is a file"):
        export.export(runner.folder, "mix", folder / "notes.txt", force=True)


def test_a_model_that_does_not_reload_to_the_same_logits_is_not_left(
    tiny: Any, made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the adapter is lost on the way to the disk."""
    runner = made(tiny(), "mix")

    def lose(source: Path, target: Path) -> None:
        from safetensors.torch import save_file

        if source.suffix == ".safetensors":
            save_file({name: value * ("lora_B" not in name) for name, value in load_file(source).items()}, target)
        else:
            target.write_bytes(source.read_bytes())

    monkeypatch.setattr(export.shutil, "copy", lose)
    with pytest.raises(JobError, match=r"the exported model's logits differ .*; nothing was written"):
        export.export(runner.folder, "mix", tmp_path / "model")
    assert not (tmp_path / "model").exists()
    assert not list(tmp_path.glob(".model.*"))


def test_a_policy_that_is_a_whole_model_is_exported_as_one(tiny: Any, made: Any, tmp_path: Path) -> None:
    """Without --merge, too; its card says that all weights were trained, and plain transformers gives its logits."""
    runner = made(tiny(model={"source": "random", "tuning": "full"}, lora=None), "mix")
    done = export.export(runner.folder, "mix", tmp_path / "out")
    assert (done.merged, done.note) == (True, "")
    assert str(done).startswith(f"{tmp_path / 'out'}: model of mix-")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "- All weights were trained, and no adapter" in card
    assert "- lora" not in card.split("---")[1]
    assert not list((tmp_path / "out").glob("adapter*"))
    elsewhere(MERGED + LOGITS, tmp_path / "out")
    expected = logits_of(runner, "mix")
    torch.testing.assert_close(torch.load(tmp_path / "out" / "logits.pt"), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("changes", [{"variant": "dora"}, {"init": "pissa"}])
def test_a_variant_of_lora_loads_by_plain_peft_on_the_base_and_merges(
    changes: dict[str, str], tiny: Any, made: Any, base: Path, tmp_path: Path
) -> None:
    lora = {"rank": 2, "alpha": 4, "targets": ["q_proj", "v_proj"]} | changes
    runner = made(tiny(model={"source": "local", "path": str(base)}, lora=lora, cost="off"), "mix")
    for name, merge, load in (("adapter", False, ADAPTER), ("merged", True, MERGED)):
        export.export(runner.folder, "mix", tmp_path / name, merge=merge)
        elsewhere(load + LOGITS, tmp_path / name)
        torch.testing.assert_close(
            torch.load(tmp_path / name / "logits.pt"), logits_of(runner, "mix"), rtol=0, atol=1e-5
        )
    card = (tmp_path / "adapter" / "README.md").read_text()
    assert ("Adapter: DoRA, rank 2, alpha 4" if "variant" in changes else "begun as pissa") in card
