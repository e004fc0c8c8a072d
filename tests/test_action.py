"""The gate for GitHub Actions: its steps are run here, as GitHub would, and so are those of the workflow that comments.

What GitHub itself does is played: expressions, the files that steps write to, `gh`, and the package index.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from loopback_hub import Hub, hub

from bench.records import archive as archives
from bench.records.record import read_json, write_json

__all__ = ["hub"]

ROOT = Path(__file__).parents[1]
ACTION = ROOT / "action.yml"
RECIPES, COMMENT = ROOT / "docs" / "ci" / "recipes.yml", ROOT / "docs" / "ci" / "recipes-comment.yml"
SHORT = "training.horizons=[{steps: 40, seeds: 3}]"
HEAD, OLDER = "a" * 40, "b" * 40


def read(path: Path) -> Any:
    """Read a file's words as they stand: `on` is a key, not true."""
    return yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)


class Steps:
    """Run a file's steps as GitHub does: in order until one fails, but those with always()."""

    def __init__(self, folder: Path, path: list[Path], **contexts: Mapping[str, Any]) -> None:
        self.folder, self.contexts = folder, dict(contexts) | {"steps": {}}
        self.summary = folder / "summary.md"
        python = Path(sys.executable).parent
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("BENCH_")},
            "PATH": ":".join(map(str, [*path, python, os.environ["PATH"]])),
            "PYTHONPATH": str(ROOT),
            "GITHUB_STEP_SUMMARY": str(self.summary),
            "COLUMNS": "200",
        }
        self.log: dict[str, str] = {}

    def run(self, steps: list[dict[str, Any]], environment: Mapping[str, str] | None = None) -> int:
        """Return the exit code of the first step that failed."""
        ended = 0
        for place, step in enumerate(steps):
            if "run" not in step or (ended and "always()" not in step.get("if", "")) or not self._wanted(step):
                continue
            output = self.folder / f"output-{place}"
            output.touch()
            script = self.folder / "step.sh"
            script.write_text(step["run"], encoding="utf-8")
            given = {**(environment or {}), **step.get("env", {})}
            done = subprocess.run(
                ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)],
                cwd=self.folder,
                env=self.environment
                | {name: self.filled(str(value)) for name, value in given.items()}
                # what the runner itself sets
                | {"GITHUB_OUTPUT": str(output)},
                capture_output=True,
                text=True,
                timeout=600,
            )
            self.log[step["name"]] = done.stdout + done.stderr
            pairs = (line.partition("=") for line in output.read_text(encoding="utf-8").splitlines())
            self.contexts["steps"][step.get("id", step["name"])] = {
                "outputs": {name: value for name, _, value in pairs}
            }
            ended = ended or done.returncode
        return ended

    def filled(self, text: str) -> str:
        return re.sub(r"\$\{\{ *([\w.-]+) *\}\}", lambda found: self._value(found[1]), text)

    def _value(self, name: str) -> str:
        value: Any = self.contexts
        for part in name.split("."):
            value = value.get(part, "")  # as GitHub has it: what is not there is empty
            if value == "":
                return ""
        return str(value)

    def _wanted(self, step: dict[str, Any]) -> bool:
        """Take the conditions apart: here they are all comparisons of a value with a text, joined by and."""
        parts = [part.strip() for part in step.get("if", "always()").split("&&")]
        return all(
            part == "always()" or self._holds(*re.fullmatch(r"([\w.-]+) (!=|==) '(.*)'", part).groups())
            for part in parts
        )  # type: ignore[union-attr]

    def _holds(self, name: str, sign: str, text: str) -> bool:
        return (self._value(name) == text) is (sign == "==")

    def outputs(self, step: str) -> dict[str, str]:
        return dict(self.contexts["steps"][step]["outputs"])


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Put `bench`, and a `python` that notes what it was asked to install instead of asking a package index, into a folder."""
    folder = tmp_path_factory.mktemp("tools")
    programs = {
        "bench": f'exec "{sys.executable}" -m bench.cli "$@"',
        "python": '[ "$1 $2 $3" = "-m pip install" ] && printf "%s\\n" "$@" > "$PWD/installed.txt"',
    }
    for name, text in programs.items():
        (folder / name).write_text(f"#!/bin/bash\n{text}\n", encoding="utf-8")
        (folder / name).chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def baseline(tools: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a baseline as the workflow's first lines say."""
    folder = tmp_path_factory.mktemp("baseline")
    for command in (["run", "toy", "--results", "out", "--set", SHORT], ["pack", "out/toy", "--out", "toy.bench"]):
        subprocess.run(
            [tools / "bench", *command],
            cwd=folder,
            check=True,
            capture_output=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
    return folder / "toy.bench"


def gate(folder: Path, tools: Path, **given: str) -> tuple[int, Steps]:
    """Run the action with inputs; those that are left out have their defaults."""
    action = read(ACTION)
    inputs = {name: one.get("default", "") for name, one in action["inputs"].items()}
    named = {name.replace("_", "-"): value for name, value in given.items()}
    assert named.keys() <= inputs.keys()
    steps = Steps(folder, [tools], inputs=inputs | named, github={"action_path": str(ROOT)})
    return steps.run(action["runs"]["steps"]), steps


def changed(baseline: Path, folder: Path, by: float) -> Path:
    """Unpack an archive's folder with every f_DPO of MAXRIGHT changed by so much, and pack it again."""
    suite = folder / "toy"
    with zipfile.ZipFile(baseline) as packed:
        packed.extractall(suite)
    (job,) = suite.glob("jobs/maxright-*")
    scores = read_json(job / "scores.json")
    for name in scores:
        if name.startswith("f_dpo"):
            scores[name]["value"] += by
    write_json(job / "scores.json", scores)
    lines = [json.loads(line) for line in (job / "samples.jsonl").read_text(encoding="utf-8").splitlines()]
    text = "".join(json.dumps(line | {"f_dpo": line["f_dpo"] + by}) + "\n" for line in lines)
    (job / "samples.jsonl").write_text(text, encoding="utf-8")
    status = read_json(job / "status.json")
    write_json(job / "status.json", {name: value for name, value in status.items() if name != "files"})
    made = folder / "changed.bench"
    with made.open("wb") as file:
        archives.write(suite, file)
    return made


# ---- the action ------------------------------------------------------------------------------------------------------


def test_the_same_suite_passes(tools: Path, baseline: Path, tmp_path: Path) -> None:
    """A toy draws nothing but ALRIGHT's batches, which its seeds fix: all figures come out the same."""
    code, steps = gate(tmp_path, tools, suite="toy", baseline=str(baseline), overrides=f"{SHORT}\n", workers="1")
    assert code == 0, steps.log
    kept = {"markdown": "bench-gate/compare.md", "junit": "bench-gate/junit.xml"}
    assert steps.outputs("compare") == {"exit-code": "0", "outcome": "no regression", **kept}
    assert steps.outputs("run") == {"exit-code": "0", "archive": "bench-gate/candidate.bench"}
    assert steps.summary.read_text(encoding="utf-8").startswith("# bench compare: no regression")
    uploaded = steps.filled(
        next(step for step in read(ACTION)["runs"]["steps"] if "upload" in step.get("uses", ""))["with"]["path"]
    )
    assert all((tmp_path / line).is_file() for line in uploaded.split())
    installed = (tmp_path / "installed.txt").read_text(encoding="utf-8").splitlines()
    assert installed[-2:] == ["--", str(ROOT)] and str(ROOT / "constraints.txt") in installed


def test_a_regression_fails(tools: Path, baseline: Path, tmp_path: Path) -> None:
    """0.5 nats beyond a tolerance of 1 %, of a figure that draws nothing: no test is needed to be sure."""
    worse = changed(baseline, tmp_path, 0.5)
    code, steps = gate(tmp_path, tools, candidate=str(worse), baseline=str(baseline))
    assert (code, steps.outputs("compare")["outcome"]) == (1, "regression")
    assert "::error title=bench gate::regression" in steps.log["Verdict"]
    assert '<failure type="regression" message="f_dpo of maxright at λ = 0.5' in (
        tmp_path / "bench-gate/junit.xml"
    ).read_text(encoding="utf-8")


def test_what_cannot_be_told_warns_or_fails_as_asked(tools: Path, baseline: Path, tmp_path: Path) -> None:
    """A gate that asks for five seeds, of three."""
    (tmp_path / "gate.yaml").write_text("seeds: 5\n", encoding="utf-8")
    better = str(changed(baseline, tmp_path, -0.5))
    given = {"candidate": better, "baseline": str(baseline), "gate": "gate.yaml"}
    code, steps = gate(tmp_path, tools, **given)
    assert (code, steps.outputs("compare")["outcome"]) == (0, "inconclusive")
    assert "::warning title=bench gate::inconclusive" in steps.log["Verdict"]
    assert gate(tmp_path, tools, **given, fail_on="inconclusive")[0] == 3


def test_bad_input_fails_with_its_line(tools: Path, baseline: Path, tmp_path: Path) -> None:
    code, steps = gate(tmp_path, tools, suite="toy", baseline=str(baseline), overrides="training.horizon=1")
    assert code == 2 and "--set training.horizon=1: unknown key 'horizon'" in steps.log["Run"]
    code, steps = gate(tmp_path, tools, candidate=str(baseline), baseline="nowhere.bench")
    assert code == 2 and steps.outputs("compare")["outcome"] == "error"
    assert "--baseline nowhere.bench: no such file" in steps.log["Compare"]


def test_a_job_that_failed_fails_the_gate(tools: Path, baseline: Path, tmp_path: Path) -> None:
    """Steps of a size at which the objectives overflow: every job fails, the comparison is made all the same."""
    code, steps = gate(
        tmp_path, tools, suite="toy", baseline=str(baseline), overrides=f"{SHORT}\ntraining.learning_rate=1.0e300"
    )
    assert code == 1
    assert steps.outputs("run")["exit-code"] == "1" and steps.outputs("compare")["outcome"] == "inconclusive"
    assert "a job failed" in steps.log["Verdict"]


def test_a_baseline_on_the_hub(tools: Path, baseline: Path, tmp_path: Path, hub: Hub) -> None:
    """Steps get the hub's address by the environment, as a runner has it."""
    held = hub.add("datasets/some/results", toy__bench=baseline.read_bytes())
    code, steps = gate(tmp_path, tools, candidate=str(baseline), baseline="some/results")
    assert code == 0, steps.log
    assert f"against base some/results@{held.commit[:12]}." in steps.summary.read_text(encoding="utf-8")


def test_no_input_is_read_as_shell(tools: Path, baseline: Path, tmp_path: Path) -> None:
    """Inputs reach the steps by their environment alone; one that is written as shell is a name like any other."""
    steps = [step for file in (ACTION, COMMENT) for step in all_steps(read(file)) if "run" in step]
    assert len(steps) == 7 and [step["name"] for step in steps if "${{" in step["run"]] == []
    odd = '$(touch owned)"; touch owned; "'
    code, _ = gate(tmp_path, tools, suite=odd, baseline=odd, overrides=odd, gate=odd, workers="1", requirement=odd)
    assert code == 2 and not (tmp_path / "owned").exists()


# ---- the workflow that comments --------------------------------------------------------------------------------------

GH = """\
#!{python}
'''Play `gh api`: answers from answers.json by path, through jq where asked; notes what is written.'''
import json, pathlib, subprocess, sys
arguments, here = sys.argv[2:], pathlib.Path({folder!r})
named = dict(zip(arguments, arguments[1:]))
path = next(one for one in arguments if one.startswith("repos/"))
method = named.get("--method", "GET")
if method != "GET":
    body = pathlib.Path(named["-F"].removeprefix("body=@")).read_text(encoding="utf-8")
    with (here / "written.jsonl").open("a") as file:
        file.write(json.dumps([method, path, body]) + "\\n")
elif path.endswith("/zip"):
    sys.stdout.buffer.write((here / "artifact.zip").read_bytes())
else:
    answer = json.dumps(json.loads((here / "answers.json").read_text())[path.partition("?")[0]])
    import jq
    for one in jq.compile(named["--jq"]).input_text(answer):
        print(one)
"""


def all_steps(file: Any) -> list[dict[str, Any]]:
    if "runs" in file:
        return list(file["runs"]["steps"])
    return [step for job in file["jobs"].values() for step in job["steps"]]


class Side:
    """Play a repository with a pull request whose run left an artifact."""

    def __init__(self, folder: Path, tools: Path, baseline: Path) -> None:
        self.folder, self.tools, self.baseline = folder, tools, baseline
        self.gh = folder / "gh-tool"
        self.gh.mkdir()
        (self.gh / "gh").write_text(GH.format(python=sys.executable, folder=str(self.gh)), encoding="utf-8")
        (self.gh / "gh").chmod(0o755)
        (folder / "baseline").mkdir()
        shutil.copy(baseline, folder / "baseline" / "quickstart.bench")
        (folder / "docs" / "ci").mkdir(parents=True)
        (folder / "docs" / "ci" / "gate.yaml").write_text(
            "seeds: 3\n", encoding="utf-8"
        )  # the example's is of lm-eval's tasks
        self.pulls = [{"number": 7, "head": {"sha": OLDER}}, {"number": 12, "head": {"sha": HEAD}}]
        self.comments: list[dict[str, Any]] = []
        self.size = 1000

    def artifact(self, **files: bytes | Path) -> None:
        with zipfile.ZipFile(self.gh / "artifact.zip", "w", zipfile.ZIP_DEFLATED) as made:
            for name, content in files.items():
                made.writestr(name.replace("__", "."), content.read_bytes() if isinstance(content, Path) else content)

    def comment(self) -> tuple[int, list[list[str]]]:
        """Run the workflow; return its exit code and what it wrote."""
        artifacts = {"artifacts": [{"id": 5, "expired": False, "size_in_bytes": self.size}]}
        answers = {
            "repos/some/thing/pulls": self.pulls,
            "repos/some/thing/actions/runs/99/artifacts": artifacts,
            "repos/some/thing/issues/12/comments": self.comments,
        }
        (self.gh / "answers.json").write_text(json.dumps(answers), encoding="utf-8")
        github = {"token": "t", "repository": "some/thing", "event": {"workflow_run": {"head_sha": HEAD, "id": 99}}}
        job = read(COMMENT)["jobs"]["comment"]
        steps = Steps(self.folder, [self.gh, self.tools], github=github)
        place = next(place for place, step in enumerate(job["steps"]) if step.get("id") == "compare")
        environment = {name: steps.filled(value) for name, value in job["env"].items()}
        code = steps.run(job["steps"][:place], environment)
        compared = job["steps"][place]
        if not code and steps._wanted(compared):
            given = {name.replace("-", "_"): value for name, value in compared["with"].items()}
            _, inner = gate(self.folder, self.tools, **given)  # which may fail: continue-on-error
            outputs = read(ACTION)["outputs"]
            told = {name: inner.filled(one["value"]) for name, one in outputs.items()}
            steps.contexts["steps"]["compare"] = {"outputs": told}
            code = steps.run(job["steps"][place + 1 :], environment)
        self.steps = steps
        written = self.gh / "written.jsonl"
        return code, [json.loads(line) for line in written.read_text().splitlines()] if written.exists() else []


@pytest.fixture
def side(tools: Path, baseline: Path, tmp_path: Path) -> Side:
    for program in ("unzip", "bash"):
        if shutil.which(program) is None:
            pytest.skip(f"no {program} on this machine")
    pytest.importorskip("jq")
    return Side(tmp_path, tools, baseline)


def test_a_comment_is_written_once_and_then_changed(side: Side) -> None:
    """It goes to the pull request whose head was measured, number 12."""
    side.artifact(candidate__bench=side.baseline, compare__md=b"# made up")
    code, written = side.comment()
    assert code == 0, side.steps.log
    assert [(method, path) for method, path, _ in written] == [("POST", "repos/some/thing/issues/12/comments")]
    body = written[0][2]
    assert body.startswith("<!-- bench gate -->\n# bench compare: no regression\n") and "made up" not in body
    mine = {"id": 31, "user": {"login": "github-actions[bot]"}, "body": body}
    theirs = {"id": 30, "user": {"login": "somebody"}, "body": body}
    side.comments = [theirs, mine]
    assert side.comment()[1][1][:2] == ["PATCH", "repos/some/thing/issues/comments/31"]


def test_a_head_that_nobody_has_any_more_gets_no_comment(side: Side) -> None:
    side.artifact(candidate__bench=side.baseline)
    side.pulls = side.pulls[:1]
    assert side.comment() == (0, [])


def test_a_regression_is_told(side: Side, tmp_path: Path) -> None:
    side.artifact(candidate__bench=changed(side.baseline, tmp_path / "made", 0.5))
    code, written = side.comment()
    assert code == 0 and "Regression: f\\_dpo of maxright at λ = 0.5 went from" in written[0][2]


def hostile(baseline: Path, folder: Path) -> Path:
    """Give a recipe a name that GitHub would read as HTML, Markdown, a mention, references and addresses."""
    name = "<img src=x onerror=alert(1)> [a](http://b.example) @everyone org/repo#1 GH-2 www.c.example ‮| x\n# y"
    made = changed(baseline, folder, 0.0)
    suite = folder / "toy"
    (job,) = suite.glob("jobs/maxright-*")
    spec = read_json(job / "spec.json")
    spec["labels"]["method"] = spec["labels"]["label"] = name
    write_json(job / "spec.json", spec)
    with made.open("wb") as file:
        archives.write(suite, file)
    return made


def test_an_artifact_says_nothing_that_acts(side: Side, tmp_path: Path) -> None:
    """Names are shown as they are: no tag, link, mention or reference comes of them, and no line of their own."""
    side.artifact(candidate__bench=hostile(side.baseline, tmp_path / "made"))
    code, written = side.comment()
    assert code == 0, side.steps.log
    body = written[0][2]
    assert "onerror" in body  # it was shown
    assert re.findall(r"(?<!\\)<(?!/?details|/?summary|!-- bench gate)", body) == []
    assert re.findall(r"(?<!\\)\[|@\w|#\d|GH-\d|://\w|www\.\w|\u202e|^# y", body, flags=re.MULTILINE) == []


@pytest.mark.parametrize("made", ["too large", "no archive", "broken", "bomb"])
def test_what_is_no_archive_of_records_gets_no_comment(made: str, side: Side) -> None:
    files: dict[str, dict[str, bytes | Path]] = {
        "too large": {"candidate__bench": side.baseline},
        "no archive": {"compare__md": b"# made up"},
        "broken": {"candidate__bench": side.baseline.read_bytes()[:-30]},
        "bomb": {"candidate__bench": bytes(60_000_000)},
    }
    side.size = 10**9 if made == "too large" else 1000
    side.artifact(**files[made])
    assert side.comment()[1] == []
    assert sum(one.stat().st_size for one in side.folder.glob("candidate.bench")) <= 50_000_000


# ---- the files -------------------------------------------------------------------------------------------------------


def test_the_files_are_what_github_reads() -> None:
    """Against GitHub's own schemas, as check-jsonschema ships them."""
    for schema, files in (("github-actions", [ACTION]), ("github-workflows", [RECIPES, COMMENT])):
        command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", *files]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_files_have_no_known_weakness(tmp_path: Path) -> None:
    """zizmor's audits that need no network; OWNER/REPOSITORY@COMMIT is to be replaced by who copies a file."""
    program = shutil.which("zizmor", path=str(Path(sys.executable).parent))
    assert program
    for file in (ACTION, RECIPES, COMMENT):
        text = file.read_text(encoding="utf-8").replace("OWNER/REPOSITORY@COMMIT", f"owner/repository@{HEAD}")
        (tmp_path / file.name).write_text(text, encoding="utf-8")
    done = subprocess.run([program, "--offline", "--quiet", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list(tmp_path.iterdir())) == 3


def test_actions_are_pinned_to_commits() -> None:
    used = [step["uses"] for file in (ACTION, RECIPES, COMMENT) for step in all_steps(read(file)) if "uses" in step]
    assert len(used) == 6
    assert [one for one in used if not re.fullmatch(r"[\w-]+/[\w-]+@([0-9a-f]{40}|COMMIT)", one)] == []


def test_both_workflows_agree() -> None:
    """The one that comments waits for the other by name, and fetches the artifact that the action leaves."""
    recipes, comment = read(RECIPES), read(COMMENT)
    assert comment["on"]["workflow_run"]["workflows"] == [recipes["name"]]
    assert f"name={read(ACTION)['inputs']['artifact']['default']}" in COMMENT.read_text(encoding="utf-8")
    (inner,) = [step["with"] for step in all_steps(recipes) if "with" in step and "suite" in step["with"]]
    (outer,) = [step["with"] for step in all_steps(comment) if "candidate" in step.get("with", {})]
    assert (inner["baseline"], inner["gate"]) == (outer["baseline"], outer["gate"])
    assert recipes["permissions"] == {"contents": "read"} and comment["permissions"] == {}
