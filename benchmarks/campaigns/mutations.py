"""Make damaged suites of the shipped ones, and say of a file what docs/reference/ forbids in it.

What is legal is read off the reference pages and PyYAML's own reading of the file, not asked of the code under test.
"""

from __future__ import annotations

import copy
import math
import random
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
SUITES = ("toy", "quickstart", "extended", "max_evaluation", "smollm2_135m", "llama3_8b")
KINDS = ("bytes and lines", "values", "keys", "structure", "--set")
MAY_BE_BLANK = {"description", "data.instruction.answer_prefix", "data.instruction.template"}
MANY = 10_000

Path_ = tuple[str | int, ...]


@dataclass(frozen=True)
class Mutation:
    """One damaged suite: of which kind and how, its file, and what `--set` adds."""

    kind: str
    how: str
    content: bytes
    sets: tuple[str, ...] = ()


def mutations(count: int, seed: int = 0) -> list[Mutation]:
    """Draw mutations, of the kinds in turn; every structural one is among 500 or more."""
    rng = random.Random(seed)
    sources = _sources()
    made = {kind: list(found) for kind, found in _every().items()}
    for kind in made.values():
        rng.shuffle(kind)
    draws = {kind: iter(found) for kind, found in made.items()}
    draws["bytes and lines"] = iter(lambda: damage(rng, *rng.choice(list(sources.items()))), None)
    found: list[Mutation] = []
    while len(found) < count:
        found += [one for one in (next(draws[kind], None) for kind in KINDS) if one]
    return found[:count]


def _sources() -> dict[str, bytes]:
    return {name: (ROOT / "suites" / f"{name}.yaml").read_bytes() for name in SUITES}


@cache
def _every() -> dict[str, tuple[Mutation, ...]]:
    """Make all mutations but those of bytes and lines, of which there is no end: tens of thousands, so once."""
    sources = _sources()
    return {
        "structure": tuple(one for name in SUITES[:2] for one in structures(name, sources[name])),
        "keys": tuple(one for name in SUITES for one in keys(name, sources[name])),
        "values": tuple(one for name in SUITES for one in values(name, sources[name])),
        "--set": tuple(one for name in SUITES[:3] for one in overrides(name, sources[name])),
    }


# ---- bytes and lines -------------------------------------------------------------------------------------------------

ODD = (
    "\0",
    "\x07",
    "\x1b",
    "\x7f",
    "\x85",
    "\ufeff",
    "\u2028",
    "\u202e",
    "\U0001f600",
    "\t",
    "%",
    "@",
    "`",
    "&a ",
    "*a ",
    "!x ",
)


def damage(rng: random.Random, name: str, content: bytes) -> Mutation:
    """Damage a file's text in one place."""
    lines = content.splitlines(keepends=True)
    place = rng.randrange(len(lines))
    at = rng.randrange(len(content))
    odd = rng.choice(ODD).encode()
    ways: dict[str, Callable[[], bytes]] = {
        "a byte changed": lambda: content[:at] + bytes([rng.randrange(256)]) + content[at + 1 :],
        "a byte taken out": lambda: content[:at] + content[at + 1 :],
        "a byte that is no UTF-8": lambda: content[:at] + bytes([rng.choice((0x80, 0xC0, 0xFE, 0xFF))]) + content[at:],
        f"{odd!r} put in": lambda: content[:at] + odd + content[at:],
        "a line taken out": lambda: b"".join(lines[:place] + lines[place + 1 :]),
        "a line twice": lambda: b"".join(lines[: place + 1] + lines[place:]),
        "a line moved": lambda: b"".join([lines[place], *lines[:place], *lines[place + 1 :]]),
        "indented more": lambda: b"".join([*lines[:place], b"  " + lines[place], *lines[place + 1 :]]),
        "indented less": lambda: b"".join([*lines[:place], lines[place].removeprefix(b" "), *lines[place + 1 :]]),
        "indented by a tab": lambda: b"".join([*lines[:place], b"\t" + lines[place], *lines[place + 1 :]]),
        "cut off": lambda: content[:at],
        "as UTF-16": lambda: content.decode().encode("utf-16"),
        "with a byte order mark": lambda: b"\xef\xbb\xbf" + content,
        "with Windows line ends": lambda: content.replace(b"\n", b"\r\n"),
    }
    how = rng.choice(list(ways))
    return Mutation("bytes and lines", f"{name}: {how} at line {place + 1}, byte {at}", ways[how]())


# ---- values and keys -------------------------------------------------------------------------------------------------

WRONG: tuple[Any, ...] = (
    *(True, False, None, 0, -1, 1.5, 2**63, 10**30, -(2**70), 1e308),
    *(float("nan"), float("inf"), float("-inf"), "", " ", "\n", "word", "8", "0.5", "1e-3", "nan", "yes"),
    *("a\nb", "\0", "\x1b[31m", "\ud800", "ü" * 300, "x" * 5000, "../" * 2000, [], [[]], [None], [True], [1, 1], {}),
    *({"a": 1}, {"": None}, b"\xff", "2024-13-01"),
)


def values(name: str, content: bytes) -> Iterator[Mutation]:
    """Put every wrong value in place of every value, lists and mappings too."""
    whole = yaml.safe_load(content)
    for at, _ in walk(whole):
        for wrong in WRONG:
            changed = copy.deepcopy(whole)
            _put(changed, at, wrong)
            yield Mutation("values", f"{name}: {written(at)} = {wrong!r:.40}", _dump(changed))


def keys(name: str, content: bytes) -> Iterator[Mutation]:
    """Take each key out, misspell it, and put unknown ones beside it."""
    whole = yaml.safe_load(content)
    for at, value in walk(whole):
        if not isinstance(at[-1], str):
            continue
        for key in (None, at[-1][::-1], at[-1].upper(), f"{at[-1]} ", "", "smoke", "<<", "x" * 3000, "a\nb", "\0", "λ"):
            changed = copy.deepcopy(whole)
            around = changed
            for part in at[:-1]:
                around = around[part]
            if key is not None:
                around[key] = value
            if key != at[-1]:
                del around[at[-1]]
            yield Mutation("keys", f"{name}: {written(at)} named {key!r:.40}", _dump(changed))


def overrides(name: str, content: bytes) -> Iterator[Mutation]:
    """Give every wrong value by `--set`, and keys that lead nowhere."""
    texts = (
        "true",
        "",
        "{a: 1, a: 2}",
        "[",
        "*a",
        "\0",
        "a\nb",
        "2024-13-01",
        ".nan",
        "9" * 5000,
        "[" * 3000,
        "!!bool x",
        "x: y: z",
    )
    for at, _ in walk(yaml.safe_load(content)):
        key = ".".join(map(str, at))
        for text in texts:
            yield Mutation("--set", f"{name}: {key}={text!r:.30}", content, (f"{key}={text}",))
    for odd in (
        "",
        "=",
        "a",
        ".=1",
        "a..b=1",
        "methods.²=1",
        "a." * 3000 + "a=1",
        "methods.99=1",
        "name.a=1",
        "\n=1",
        "ä" * 999,
    ):
        yield Mutation("--set", f"{name}: {odd!r:.30}", content, (odd,))
    yield Mutation("--set", f"{name}: smoke=true", content, ("smoke=true",))


def _put(whole: Any, at: Path_, value: Any) -> None:
    *before, last = at
    for part in before:
        whole = whole[part]
    whole[last] = value


def _dump(value: Any) -> bytes:
    return yaml.safe_dump(value, sort_keys=False, width=10**6).encode()


def walk(value: Any, at: Path_ = ()) -> Iterator[tuple[Path_, Any]]:
    """Yield every place in a document below the top, with its value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for part, one in inner:
        yield (*at, part), one
        yield from walk(one, (*at, part))


# ---- structure -------------------------------------------------------------------------------------------------------


def structures(name: str, content: bytes) -> Iterator[Mutation]:
    """Yield what is built to be hard to read: bombs, depth, mass, odd tags, names that no file system takes."""
    whole = yaml.safe_load(content)
    doubling = "notes:\n" + "".join(
        f"  - &n{place} [{', '.join([f'*n{place - 1}'] * 9) if place else 'x'}]\n" for place in range(60)
    )
    chain = "notes:\n" + "".join(f"  - &n{place} [{f'*n{place - 1}' if place else 'x'}]\n" for place in range(500))
    tops = {
        "aliases that double": doubling,
        "a chain of aliases": chain,
        "an alias of itself": "notes: &a [*a]\n",
        "an undefined alias": "notes: *nowhere\n",
        "a mapping that holds itself": "lora: &a {rank: *a}\n",
        "5,000 lists in each other": "notes: " + "[" * 5000 + "]" * 5000 + "\n",
        "5,000 mappings in each other": "notes: " + "{a: " * 5000 + "}" * 5000 + "\n",
        "1,000 mappings, indented": "".join(f"{' ' * place}a:\n" for place in range(1000)),
        "5,000 brackets, open": "notes: " + "[" * 5000,
        "5,000 entries of an entry": "notes:\n  " + "- " * 5000 + "x\n",
        "2 MiB of text": "description: " + "x" * 2**21 + "\n",
        "half a MiB of text": "description: " + "x" * 2**19 + "\n",
        "half a MiB in many lines": "notes:\n" + "- x\n" * 2**17,
        "200,000 entries": "notes: [" + "x," * 200_000 + "]\n",
        "a list for a key": "? [a, b]\n: c\n",
        "a mapping for a key": "? {a: b}\n: c\n",
        "a second document": "---\nname: other\n",
        "an end and more": "...\nname: other\n",
        "a directive": "%YAML 9.9\n---\n",
        "a set": "notes: !!set {a, b}\n",
        "a tag of Python": "notes: !!python/object/apply:os.system ['true']\n",
        "a tuple of Python": "notes: !!python/tuple [a]\n",
        "an unknown tag": "notes: !mine [a]\n",
        "a boolean that is none": "notes: [!!bool perhaps]\n",
        "a number that is none": "notes: [!!int '']\n",
        "a float that is none": "notes: [!!float x]\n",
        "a date that is none": "notes: [!!timestamp x]\n",
        "bytes": "notes: [!!binary /w==]\n",
        "a number of 5,000 digits": "seeds: [" + "9" * 5000 + "]\n",
        "smoke": "smoke: true\n",
    }
    for how, text in tops.items():
        key = text.split(":")[0]
        rest = {one: value for one, value in whole.items() if one != key}
        yield Mutation("structure", f"{name}: {how}", _dump(rest) + text.encode())
        yield Mutation("structure", f"{name}: {how}, twice", content + text.encode())
    method = next(one for one in whole["methods"] if one == "mix" or (isinstance(one, dict) and one["name"] == "mix"))
    own = {"name": "mix"} | (method if isinstance(method, dict) else {})
    many = [place / MANY for place in range(MANY)]
    changes: dict[str, Mapping[str, Any]] = {
        f"{MANY} λ of a method": {"methods": [own | {"lambdas": many}]},
        f"{MANY} λ": {"lambdas": many, "methods": [own]},
        f"{MANY} λ of every method": {"lambdas": many},
        "3,000 methods": {"methods": [own | {"label": f"mix {place}"} for place in range(3000)]},
        "no λ of a method": {"methods": [own | {"lambdas": []}]},
        "one λ of a method twice": {"methods": [own | {"lambdas": [0.5, 0.5]}]},
        "one λ twice, as 1 and 1.0": {"methods": [own | {"lambdas": [1, 1.0]}]},
        "an empty label": {"methods": [own | {"label": ""}]},
        "a label of spaces": {"methods": [own | {"label": "  "}]},
        "a label of two lines": {"methods": [own | {"label": "a\nb"}]},
        "a long label": {"methods": [own | {"label": "x" * 5000}]},
        "a label of 100 letters of four bytes": {"methods": [own | {"label": "𐌰" * 100}]},
        "a long name": {"name": "x" * 5000},
        "a name of 200 letters": {"name": "x" * 200},
        "a name that leads out": {"name": "../other"},
        "no methods": {"methods": []},
    }
    for how, change in changes.items():
        yield Mutation("structure", f"{name}: {how}", _dump(whole | change))


# ---- what is legal ---------------------------------------------------------------------------------------------------


def illegal(mutation: Mutation) -> str | None:
    """Say what the reference forbids in a file that was accepted, `--set` applied; None: nothing."""
    try:
        whole = yaml.safe_load(mutation.content.decode("utf-8-sig"))
        _refuse_twins(yaml.compose(mutation.content.decode("utf-8-sig"), Loader=yaml.SafeLoader), set())
    except (yaml.YAMLError, ValueError) as error:
        return f"not YAML: {str(error).splitlines()[0]}"
    for one in mutation.sets:
        key, _, text = one.partition("=")
        parts: Path_ = tuple(int(part) if part.isdecimal() else part for part in key.split("."))
        value = yaml.safe_load(text)
        try:
            _put(whole, parts, value)
        except (KeyError, TypeError, IndexError):
            return f"--set {key}: there is no such place"
    allowed = reference("problem" in whole)
    for at, value in [((), whole), *walk(whole)]:
        names = [part for part in at if isinstance(part, str)]
        key = ".".join(names)
        if not key or (at and not isinstance(at[-1], str)):
            continue
        if any(allowed.get(".".join(names[:end])) == "any keys" for end in range(1, len(names))):
            continue
        problem = misfit(key, value, allowed)
        if problem:
            return f"{written(at)} = {value!r:.60}: {problem}"
    return None


def _refuse_twins(node: Any, seen: set[int]) -> None:
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if len(set(names)) < len(names):
            raise ValueError(f"a key twice among {names}")
    for child in node.value if isinstance(node, yaml.CollectionNode) else ():
        for one in child if isinstance(child, tuple) else (child,):
            _refuse_twins(one, seen)


@cache
def reference(toy: bool) -> dict[str, str]:
    """Read what each key takes, in words, from the reference page of a kind of suite."""
    pages = ["suite.md", "toy_suite.md"] if toy else ["suite.md"]
    found: dict[str, str] = {}
    for page in pages:  # a toy's methods take the options of the others'
        text = (ROOT / "docs" / "reference" / page).read_text(encoding="utf-8")
        rows = re.findall(r"^\| `([^`]+)` \| (.*?) \| ", text, re.MULTILINE)
        own = {key: allowed for key, allowed in rows if page != "suite.md" or not toy or key.startswith("methods.")}
        found |= own
    return found


def misfit(key: str, value: Any, allowed: Mapping[str, str]) -> str | None:
    """Say why a value is not what the reference says of its key, or what no words of it say: blank, empty, twice."""
    words = _words(key, allowed)
    if words is None:
        return "the reference has no such key"
    if key == "evaluation.lm_eval.tasks" and isinstance(value, str):
        value = [value]
    if value is False and "`off`" in words:
        value = "off"
    if not fits(value, words):
        return f"the reference says: {words}"
    numbers = [float(one) for one in value or ()] if key.endswith("lambdas") or key == "seeds" else []
    problems = {
        "blank": isinstance(value, str) and not value.strip() and key not in MAY_BE_BLANK,
        "an empty list": value == [] and key != "notes",
        "a value twice": len(set(numbers)) < len(numbers),
        "a seed of more than 32 bits": key == "seeds" and max(numbers, default=0) >= 2.0**32,
    }
    return next((problem for problem, is_there in problems.items() if is_there), None)


def _words(key: str, allowed: Mapping[str, str]) -> str | None:
    """Find what the reference says of a key, or that it has keys below."""
    if key.startswith("evaluation.win_rate.judge.local_model."):
        return allowed.get(f"model.{key.rpartition('.')[2]}")
    return allowed.get(key) or ("keys below" if any(one.startswith(f"{key}.") for one in allowed) else None)


def fits(value: Any, words: str) -> bool:
    """Say whether a value is what words such as "list of number ≥ 0 and ≤ 1 or `null`" describe."""
    if words.endswith(" or `null`"):
        return value is None or fits(value, words.removesuffix(" or `null`"))
    if words.startswith("keys "):
        return isinstance(value, dict)
    if words == "list of entries":
        return isinstance(value, list) and all(isinstance(one, str | dict) for one in value)
    if words.startswith("list of "):
        return isinstance(value, list) and all(fits(one, words.removeprefix("list of ")) for one in value)
    if words.startswith("["):
        parts = words[1:-1].split(", ")
        return isinstance(value, list) and len(value) == len(parts) and all(map(fits, value, parts))
    if words == "text":
        return isinstance(value, str)
    if words == "any keys":
        return isinstance(value, dict)
    if words.startswith(("number", "whole number")):
        return _is_number(value, words)
    choices = set(re.findall(r"`([^`]+)`", words))
    assert choices, words
    return (
        (str(value).lower() if isinstance(value, bool) else value) in choices
        if isinstance(value, bool | str)
        else False
    )


def _is_number(value: Any, words: str) -> bool:
    if isinstance(value, str) and re.fullmatch(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+", value) and words.startswith("number"):
        value = float(value)  # YAML 1.1 reads 1e-3 as text
    kinds = (int,) if words.startswith("whole") else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds):
        return False
    if not math.isfinite(value) if isinstance(value, float) else abs(value) >= 2**63:
        return False
    bounds = {">": float.__gt__, "≥": float.__ge__, "<": float.__lt__, "≤": float.__le__}
    return all(bounds[sign](float(value), float(bound)) for sign, bound in re.findall(r"([>≥<≤]) (\S+)", words))


def written(at: Path_) -> str:
    """Write a place as text."""
    return ".".join(map(str, at))
