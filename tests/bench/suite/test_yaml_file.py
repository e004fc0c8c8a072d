"""Every mistake in a suite file is one line: place, value, what is allowed. Checked word by word."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench.errors import SuiteError
from bench.methods import METHODS
from bench.recipes import RECIPES
from bench.suite import yaml_file
from bench.suite.suite import Suite, suite_folder

# Line numbers below count from this text's first line, `name`.
TEXT = """\
name: example
model:
  source: random
lora: {rank: 2, alpha: 4}
data:
  preference: {source: local, path: pairs.jsonl, rows: 24}
  instruction:
    source: local
    path: rows.jsonl
    rows: 48
training:
  epochs: 4
  batch_size: {dpo: 2, sft: 4}
  learning_rate: 1e-3
methods:
  - sequential
  - mix
  - name: maxright
    max_eval_every: 10
    lambdas: [0.25, 0.5]
lambdas: [0.25, 0.5, 0.75]
"""
KNOWN = ", ".join(sorted([*METHODS, *RECIPES]))
METHOD_KEYS = "label, lambdas, name"
TRAINING_KEYS = (
    "adam_betas, batch_size, budget, checkpoint_every, deterministic, devices, epochs, evaluate_every, "
    "group_by_length, learning_rate, max_grad_norm, micro_batch_size, model_dropout, schedule, "
    "shard, steps, stopping, warmup_steps, weight_decay"
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder of its own, so that messages name `x.yaml` and no path of this machine."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(text: str, *overrides: str) -> Suite:
    Path("x.yaml").write_text(text, encoding="utf-8")
    return yaml_file.load("x.yaml", overrides)


def refusal(text: str, *overrides: str) -> str:
    with pytest.raises(SuiteError) as caught:
        load(text, *overrides)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


def changed(old: str, new: str) -> str:
    assert TEXT.count(old) == 1
    return TEXT.replace(old, new)


def test_a_good_file_loads(folder: Path) -> None:
    """YAML 1.1 reads `1e-3` as text; it is still the number."""
    made = load(TEXT)
    assert (made.name, made.steps, made.training.learning_rate) == ("example", 48, 0.001)
    assert [method.name for method in made.methods] == ["sequential", "mix", "maxright"]
    assert made.methods[2].options == {"max_eval_every": 10}


MISTAKES = {
    "a typo in a key, in a block": (
        ("  epochs: 4", "  epohcs: 4"),
        f"x.yaml:12: unknown key 'epohcs'; did you mean 'epochs'? known: {TRAINING_KEYS}",
    ),
    "a typo in a key, inline": (
        ("{rank: 2, alpha: 4}", "{rank: 2, alhpa: 4}"),
        "x.yaml:4: unknown key 'alhpa'; did you mean 'alpha'? known: alpha, dropout, init, rank, targets, variant",
    ),
    "a typo in a nested key": (
        ("    rows: 48", "    rows: 48\n    columns: {outptu: answer}"),
        "x.yaml:11: unknown key 'outptu'; did you mean 'output'? known: input, instruction, messages, output, system",
    ),
    "a typo at the top": (
        ("lambdas: [0.25, 0.5, 0.75]", "lambda: [0.25, 0.5, 0.75]"),
        "x.yaml:21: unknown key 'lambda'; did you mean 'lambdas'? known: cost, data, description, evaluation, lambdas, lora, "
        "methods, model, name, notes, objectives, order, phases, reference, retries, seeds, tracker, training",
    ),
    "a typo in a method's option": (
        ("max_eval_every", "max_eval_evry"),
        "x.yaml:19: unknown key 'max_eval_evry'; did you mean 'max_eval_every'? "
        "known: gaps, label, lambdas, max_eval_every, name, optimum",
    ),
    "an option of another method": (
        ("  - mix", "  - {name: sequential, label: other, backward: joint}"),
        f"x.yaml:17: unknown key 'backward'; known: {METHOD_KEYS}",
    ),
    "an unknown method, by its bare name": (
        ("  - mix", "  - maxrigth"),
        f"x.yaml:17: methods[1]: unknown method 'maxrigth'; did you mean 'maxright'? known: {KNOWN}",
    ),
    "an unknown method with options": (
        ("name: maxright", "name: maxrigth"),
        f"x.yaml:18: methods[2]: unknown method 'maxrigth'; did you mean 'maxright'? known: {KNOWN}",
    ),
    "a λ of a method": (
        ("lambdas: [0.25, 0.5]\n", "lambdas: [0.25, 1.3]\n"),
        "x.yaml:20: methods[2].lambdas[1] = 1.3: must lie in [0, 1]",
    ),
    "a λ of the suite": (
        ("[0.25, 0.5, 0.75]", "\n  - 0.25\n  - -0.5"),
        "x.yaml:23: lambdas[1] = -0.5: must lie in [0, 1]",
    ),
    "a wrong option": (
        ("max_eval_every: 10", "max_eval_every: 0"),
        "x.yaml:19: methods[2].max_eval_every = 0: must be greater than or equal to 1",
    ),
    "a word for a number": (
        ("    rows: 48", "    rows: many"),
        "x.yaml:10: data.instruction.rows = 'many': must be a valid integer",
    ),
    "a number that is not allowed": (
        ("learning_rate: 1e-3", "learning_rate: -1"),
        "x.yaml:14: training.learning_rate = -1: must be greater than 0",
    ),
    "a word that is not allowed": (
        ("  source: random", "  source: randm"),
        "x.yaml:3: model.source = 'randm': must be 'hub', 'local', 'gguf_package', 'world' or 'random'",
    ),
    "a list for a word": (
        ("name: example", "name: [a, b]"),
        "x.yaml:1: name = ['a', 'b']: must be a valid string",
    ),
    "a missing key": (
        ("  learning_rate: 1e-3\n", ""),
        "x.yaml:11: training.learning_rate: this key is missing",
    ),
    "a duplicate key": (
        ("  learning_rate: 1e-3", "  learning_rate: 1e-3\n  epochs: 2"),
        "x.yaml:15: training.epochs: duplicate key (first on line 12); keep one",
    ),
    "a duplicate key at the top": (
        ("lambdas: [0.25, 0.5, 0.75]", "lambdas: [0.25, 0.5, 0.75]\nname: again"),
        "x.yaml:22: name: duplicate key (first on line 1); keep one",
    ),
    "keys of one place that do not agree": (
        ("  epochs: 4", "  epochs: 4\n  steps: 9"),
        "x.yaml:11: training: give exactly one of 'epochs' and 'steps'",
    ),
    "epochs of unequal length": (
        ("    rows: 48", "    rows: 40"),
        "x.yaml:12: training.epochs: an epoch is 12 steps of preference pairs but 10 of instruction rows; "
        "make them equal or give training.steps instead of training.epochs",
    ),
    "phases that do not add up": (
        ("lambdas: [0.25, 0.5, 0.75]", "lambdas: [0.25, 0.5]\nphases: [[1, 3], [1, 2]]"),
        "x.yaml:22: phases: they count epochs, so each pair must add up to training.epochs",
    ),
    "a repeated λ": (
        ("[0.25, 0.5, 0.75]", "[0.25, 0.25]"),
        "x.yaml:21: lambdas = [0.25, 0.25]: must not repeat a value",
    ),
    "no λ": (
        ("[0.25, 0.5, 0.75]", "[]"),
        "x.yaml:21: lambdas = []: must have at least 1 item after validation, not 0",
    ),
    "a boolean for a whole number": (
        ("{rank: 2, alpha: 4}", "{rank: yes, alpha: 4}"),
        "x.yaml:4: lora.rank = True: must be a valid integer",
    ),
    "a boolean for a number": (
        ("learning_rate: 1e-3", "learning_rate: true"),
        "x.yaml:14: training.learning_rate = True: must be a valid number",
    ),
    "a boolean in a list of numbers": (
        ("lambdas: [0.25, 0.5]\n", "lambdas: [0.25, true]\n"),
        "x.yaml:20: methods[2].lambdas[1] = True: must be a valid number",
    ),
    "a boolean for a method's number": (
        ("max_eval_every: 10", "max_eval_every: true"),
        "x.yaml:19: methods[2].max_eval_every = True: must be a valid integer",
    ),
    "a number for a boolean": (
        ("learning_rate: 1e-3", "learning_rate: 1e-3\n  group_by_length: 1"),
        "x.yaml:15: training.group_by_length = 1: must be a valid boolean",
    ),
    "a number in quotes": (
        ("learning_rate: 1e-3", 'learning_rate: "0.1"'),
        "x.yaml:14: training.learning_rate = '0.1': must be a valid number",
    ),
    "no number": (
        ("learning_rate: 1e-3", "learning_rate: .nan"),
        "x.yaml:14: training.learning_rate = nan: must be a finite number",
    ),
    "a number without end": (
        ("learning_rate: 1e-3", "learning_rate: 1e999"),
        "x.yaml:14: training.learning_rate = inf: must be a finite number",
    ),
    "a negative seed": (
        ("lambdas: [0.25, 0.5, 0.75]", "lambdas: [0.5]\nseeds: [0, -1]"),
        "x.yaml:22: seeds[1] = -1: must be from 0 to 2^32 - 1",
    ),
    "a seed that no generator takes": (
        ("lambdas: [0.25, 0.5, 0.75]", "lambdas: [0.5]\nseeds: [4294967296]"),
        "x.yaml:22: seeds[0] = 4294967296: must be from 0 to 2^32 - 1",
    ),
    "a seed of 64 bits": (
        ("lambdas: [0.25, 0.5, 0.75]", "lambdas: [0.5]\nseeds: [9223372036854775808]"),
        "x.yaml:22: seeds[0]: a whole number must be from -2^63 to 2^63 - 1",
    ),
    "a number of more digits than Python reads": (
        ("{rank: 2, alpha: 4}", "{rank: " + "9" * 5000 + ", alpha: 4}"),
        "x.yaml:4: lora.rank: a whole number must be from -2^63 to 2^63 - 1",
    ),
    "no λ of a method": (
        ("lambdas: [0.25, 0.5]\n", "lambdas: []\n"),
        "x.yaml:20: methods[2].lambdas = []: must have at least 1 item after validation, not 0",
    ),
    "a repeated λ of a method": (
        ("lambdas: [0.25, 0.5]\n", "lambdas: [1, 1.0]\n"),
        "x.yaml:20: methods[2].lambdas = [1, 1.0]: must not repeat a value",
    ),
    "an empty label": (
        ("max_eval_every: 10", "label: ''"),
        "x.yaml:19: methods[2].label = '': must not be empty",
    ),
    "a label of spaces": (
        ("max_eval_every: 10", "label: '  '"),
        "x.yaml:19: methods[2].label = '  ': must not be empty",
    ),
    "a label of two lines": (
        ("max_eval_every: 10", 'label: "a\\nb"'),
        "x.yaml:19: methods[2].label = 'a\\nb': must be one line without tabs or other control characters",
    ),
    "a long label": (
        ("max_eval_every: 10", "label: " + "x" * 101),
        f"x.yaml:19: methods[2].label = '{'x' * 101}': must have at most 100 characters, not 101",
    ),
    "a long name": (
        ("name: example", "name: " + "x" * 101),
        f"x.yaml:1: name = '{'x' * 101}': must have at most 100 characters",
    ),
    "a path that no file system takes": (
        ("path: pairs.jsonl", "path: " + "x" * 256),
        f"x.yaml:6: data.preference.path = '{'x' * 199}… (258 characters): is longer than a path can be: 255 bytes a name, "
        "4095 bytes in all",
    ),
    "a control character": (
        ("name: example", 'name: "a\\0"'),
        "x.yaml:1: name: the character U+0000 has no place in a text here; delete it",
    ),
    "half a character": (
        ("name: example", 'description: "\\ud800"\nname: example'),
        "x.yaml:1: description: the character U+D800 has no place in a text here; delete it",
    ),
    "a smoke": (
        ("lambdas: [0.25, 0.5, 0.75]", "lambdas: [0.5]\nsmoke: true"),
        "x.yaml:22: smoke is set by --smoke alone; delete it and run with --smoke",
    ),
    "a boolean that is none": (
        ("{rank: 2, alpha: 4}", "{rank: !!bool perhaps, alpha: 4}"),
        "x.yaml:4: lora.rank: 'perhaps' is no bool",
    ),
    "a tag of a list": (
        ("[0.25, 0.5, 0.75]", "!!python/tuple [0.5]"),
        "x.yaml:21: lambdas: the tag 'tag:yaml.org,2002:python/tuple' is not known here; leave it out",
    ),
    "a list for a key": (
        ("name: example", "? [a, b]\n: 1"),
        "x.yaml:1: the file: a key must be a word, not a list or a mapping",
    ),
    "not YAML": (
        ("lora: {rank: 2, alpha: 4}", "lora: {rank: 2, alpha: 4"),
        "x.yaml:5: not valid YAML: expected ',' or '}', but got ':'",
    ),
    "a date that is none": (
        ("name: example", "name: 2024-13-01"),
        "x.yaml:1: name: month must be in 1..12",
    ),
    "a value of no known kind": (
        ("name: example", "name: !!python/name:os.system example"),
        "x.yaml:1: name: could not determine a constructor for the tag 'tag:yaml.org,2002:python/name:os.system'",
    ),
}


@pytest.mark.parametrize(("change", "message"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_one_line(folder: Path, change: tuple[str, str], message: str) -> None:
    assert refusal(changed(*change)) == message


def test_a_file_that_is_no_mapping(folder: Path) -> None:
    assert refusal("- a\n- b\n") == (
        "x.yaml:1: a suite is a mapping of keys such as name, model, data; found ['a', 'b']"
    )
    assert refusal("") == "x.yaml:1: name: this key is missing"


BYTES = {
    "a NUL": (b"a: 1\nb: \0\n", "x.yaml:2: the character U+0000 has no place in YAML; delete it"),
    "no UTF-8": (b"a: 1\n\nb: \xff\n", "x.yaml:3: the byte 0xff is no UTF-8; save the file as UTF-8"),
    "UTF-16": ("a: 1\n".encode("utf-16-le"), "x.yaml:1: the character U+0000 has no place in YAML; delete it"),
    "an escape": (b"a: 1\r\nb: \x1b[31m\r\n", "x.yaml:2: the character U+001B has no place in YAML; delete it"),
    "2 MiB": (b"a: 1\n" * 2**19, "x.yaml:209716: the file is longer than 1 MiB; is it YAML that you mean?"),
    "lists in lists": (b"a: 1\nb:\n  " + b"[" * 5000, "x.yaml:3: not valid YAML: nested deeper than 32 levels"),
    "mappings in mappings": (
        b"".join(b" " * place + b"a:\n" for place in range(500)),
        "x.yaml:32: not valid YAML: nested deeper than 32 levels",
    ),
    "nested by aliases": (
        b"a:\n" + b"".join(b"- &n%d [%s]\n" % (at, b"*n%d" % (at - 1) if at else b"x") for at in range(100)),
        "x.yaml:2: a[30]" + "[0]" * 30 + ": nested deeper than 32 levels through aliases",
    ),
    "a billion laughs": (
        b"a:\n"
        + b"".join(
            b"- &n%d [%s]\n" % (at, b",".join([b"*n%d" % (at - 1)] * 9)) if at else b"- &n0 [x]\n" for at in range(20)
        ),
        "more than 50000 values, counting what aliases repeat",
    ),
    "too many values": (b"a: [" + b"x," * 50_001 + b"]", "x.yaml:1: not valid YAML: more than 50000 values"),
}


@pytest.mark.parametrize(("content", "message"), BYTES.values(), ids=BYTES.keys())
def test_what_is_no_yaml_to_read_is_one_line(folder: Path, content: bytes, message: str) -> None:
    Path("x.yaml").write_bytes(content)
    with pytest.raises(SuiteError) as caught:
        yaml_file.load("x.yaml")
    assert str(caught.value).startswith("x.yaml:")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_byte_order_mark_is_no_part_of_the_first_key(folder: Path) -> None:
    Path("x.yaml").write_bytes(b"\xef\xbb\xbf" + TEXT.encode())
    assert yaml_file.load("x.yaml").name == "example"


def test_whole_numbers_stand_for_numbers(folder: Path) -> None:
    made = load(changed("learning_rate: 1e-3", "learning_rate: 1"))
    assert (made.training.learning_rate, type(made.training.learning_rate)) == (1.0, float)


def test_a_name_that_is_too_long_for_a_file_is_no_file(folder: Path) -> None:
    with pytest.raises(SuiteError, match=r"^x{200}… \(300 characters\): cannot be read: File name too long$"):
        yaml_file.find("x" * 300)


def test_a_suite_has_not_more_runs_than_anyone_means(folder: Path) -> None:
    """Two methods at each of 12,000 λ, and one at its own 2."""
    text = changed("lambdas: [0.25, 0.5, 0.75]", f"lambdas: {[place / 12_000 for place in range(12_000)]}")
    assert refusal(text) == (
        "x.yaml:21: lambdas: these are 24,002 runs (methods × λ × seeds), and a suite has at most 20,000"
    )


# ---- --set ----------------------------------------------------------------------------------------------------------


def test_set_changes_nested_keys_lists_and_methods(folder: Path) -> None:
    made = load(
        TEXT,
        "training.epochs=null",
        "training.steps=20",
        "lambdas=[0.5]",
        "methods.2.max_eval_every=3",
        "methods.1.backward=accumulate",
        "methods.0=alright",
        "evaluation.lm_eval.limit=2",
        "data.preference.columns.prompt=null",
    )
    assert made.steps == 20
    assert made.lambdas == (0.5,)
    assert [(method.name, method.options) for method in made.methods] == [
        ("alright", {}),
        ("mix", {"backward": "accumulate"}),
        ("maxright", {"max_eval_every": 3}),
    ]
    assert made.evaluation.chosen["lm_eval"].options.limit == 2
    assert made.data.preference.columns.prompt is None


def test_a_later_set_wins(folder: Path) -> None:
    assert load(TEXT, "training.epochs=1", "training.epochs=2").steps == 24


SET_MISTAKES = {
    "lambdas": "--set lambdas: write KEY=VALUE, such as --set training.steps=20",
    "=3": "--set =3: write KEY=VALUE, such as --set training.steps=20",
    "lambdas=[0.5": "--set lambdas=[0.5: not valid YAML: expected ',' or ']', but got '<stream end>'",
    "lambdas=[0.5, 1.3]": "--set lambdas=[0.5, 1.3]: lambdas[1] = 1.3: must lie in [0, 1]",
    "lambdas.2=7": "--set lambdas.2=7: lambdas[2] = 7: must lie in [0, 1]",
    "model.gradient_checkpointing=maybe": "--set model.gradient_checkpointing=maybe: model.gradient_checkpointing = 'maybe': "
    "must be auto, true or false",
    "lambdas.3=1": "--set lambdas.3=1: cannot be set: lambdas in x.yaml holds 3 entries",
    "methods.9.label=a": "--set methods.9.label=a: there is no methods[9] in x.yaml",
    "methods.²=mix": "--set methods.²=mix: cannot be set: methods in x.yaml holds 3 entries",
    "a..b=1": "--set a..b=1: write KEY=VALUE, such as --set training.steps=20",
    "lora={rank: 1, rank: 2}": "--set lora={rank: 1, rank: 2}: lora.rank: duplicate key (first on line 1); keep one",
    "name=a\0": "--set name=a\\x00: the character U+0000 has no place in YAML; delete it",
    "name=\na: b\nc": "--set name=\\na: b\\nc: not valid YAML: could not find expected ':'",
    f"{'a.' * 40}a=1": f"--set {'a.' * 40}a=1: the key is nested deeper than 32 levels",
    f"notes={'[' * 5000}": f"--set notes={'[' * 194}… (5006 characters): not valid YAML: nested deeper than 32 levels",
    "lora.rank=yes": "--set lora.rank=yes: lora.rank = True: must be a valid integer",
    "smoke=true": "--set smoke=true: smoke is set by --smoke alone; delete it and run with --smoke",
    "name.first=a": "--set name.first=a: cannot be set: name in x.yaml is 'example', which has no keys",
    "training.stepz=3": f"--set training.stepz=3: unknown key 'stepz'; did you mean 'steps'? known: {TRAINING_KEYS}",
    "lora.rnak.x=3": (
        "--set lora.rnak.x=3: unknown key 'rnak'; did you mean 'rank'? known: alpha, dropout, init, rank, targets, variant"
    ),
    "training=3": "--set training=3: training = 3: must be a valid dictionary or instance of Training",
    "name=2024-13-01": "--set name=2024-13-01: name: month must be in 1..12",
    "training.steps=9": "x.yaml:11: training: give exactly one of 'epochs' and 'steps'",
    "training.epochs=": "x.yaml:11: training: give exactly one of 'epochs' and 'steps'",
}


@pytest.mark.parametrize(("override", "message"), SET_MISTAKES.items())
def test_a_mistake_in_set_names_the_set(folder: Path, override: str, message: str) -> None:
    assert refusal(TEXT, override) == message


def test_a_value_replaced_by_set_is_not_looked_for_in_the_file(folder: Path) -> None:
    """The file says `epochs` on line 12; the mistake stands in the mapping that replaced the one around it."""
    override = "training={epochs: 0, batch_size: {dpo: 2, sft: 4}, learning_rate: 1}"
    assert refusal(TEXT, override) == f"--set {override}: training.epochs = 0: must be greater than 0"


# ---- names ----------------------------------------------------------------------------------------------------------


def test_an_unknown_suite_is_told_the_shipped_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("quickstart", "llama3_8b"):
        (tmp_path / f"{name}.yaml").write_text(TEXT, encoding="utf-8")
    monkeypatch.setattr(yaml_file, "suite_folder", lambda: tmp_path)
    monkeypatch.chdir(tmp_path.parent)
    assert yaml_file.find("quickstart") == tmp_path / "quickstart.yaml"
    with pytest.raises(SuiteError) as caught:
        yaml_file.find("quikstart")
    assert str(caught.value) == (
        "unknown suite 'quikstart'; did you mean 'quickstart'? known: llama3_8b, quickstart "
        "(or give a path to a YAML file; 'bench init' writes one)"
    )
    with pytest.raises(SuiteError) as caught:
        yaml_file.find("suites/mine.yaml")
    assert str(caught.value) == "suites/mine.yaml: no such file; shipped suites: llama3_8b, quickstart"


@pytest.mark.parametrize("path", sorted(suite_folder().glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_suites_are_valid_by_name_and_by_path(path: Path) -> None:
    """Each is named like its file, so that results/<name> leads back to it."""
    made = yaml_file.load(path.stem)
    assert made == yaml_file.load(str(path))
    assert made.name == path.stem


@pytest.mark.parametrize("path", sorted(suite_folder().glob("*.yaml")), ids=lambda path: path.stem)
def test_every_key_of_a_shipped_suite_has_a_comment(path: Path) -> None:
    """A suite is read before it is run: each line that starts a key says behind `#` what the key does."""
    lines = path.read_text(encoding="utf-8").splitlines()
    keys = [(number, line) for number, line in enumerate(lines, 1) if re.match(r"\s*(- )?[a-z_]+:( |$)", line)]
    assert len(keys) > 20
    assert [f"{path.name}:{number}: {line}" for number, line in keys if " # " not in line] == []


def test_an_alias_of_itself_and_a_folder_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("notes: &a [*a]\n")
    with pytest.raises(SuiteError, match=r"x\.yaml:1: notes\[0\]: an alias of what it stands in"):
        yaml_file.load(str(path))
    with pytest.raises(SuiteError, match="is a folder; give a suite's YAML file"):
        yaml_file.load(str(tmp_path))
