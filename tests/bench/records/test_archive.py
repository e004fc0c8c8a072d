"""Records as one file: what goes in, equal bytes, read like a folder, and archives that mean harm."""

from __future__ import annotations

import copy
import os
import shutil
import stat
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.errors import InputError
from bench.records import archive, record, suite_record
from bench.records.archive import Archive, ArchivePath
from bench.records.pack import pack

SUITE = b'{"schema": 1, "name": "made", "suite": {}, "jobs": []}'


def make_suite(folder: Path, jobs: tuple[str, ...] = ("first", "second")) -> Path:
    """Write a suite whose first job is complete; the others were never finished."""
    for name in jobs:
        job = folder / "jobs" / name
        record.write_json(
            job / "spec.json",
            {"schema": 1, "id": name, "kind": "pretrain", "labels": {}, "settings": {}, "inputs": {}, "roles": []},
        )
        record.append_jsonl(
            job / "steps.jsonl", ({"step": step, "loss": 0.5, "seconds": 1.0, "weights": {}} for step in range(1, 4))
        )
    record.write_json(folder / "jobs" / jobs[0] / "status.json", {"schema": 1, "outcome": "complete"})
    info = {"schema": 1, "name": folder.name, "suite": {"λ": 0.5}, "jobs": list(jobs)}
    record.write_json(folder / "suite.json", info)
    return folder


def zipped(file: Path, entries: dict[str | zipfile.ZipInfo, bytes], **options: int) -> Path:
    """Write a zip that holds a suite, and these entries besides."""
    with zipfile.ZipFile(file, "w", **options) as made:  # type: ignore[call-overload]
        made.writestr("suite.json", SUITE)
        for name, content in entries.items():
            made.writestr(name, content)
    return file


# ---- writing ---------------------------------------------------------------------------------------------------------


def test_records_go_in_and_nothing_else(tmp_path: Path) -> None:
    """Weights, checkpoints, logs, locks, scraps of a write, and reports stay out; what a plugin keeps beside goes in."""
    folder = make_suite(tmp_path / "made", ("job",))
    job = folder / "jobs" / "job"
    for name in ("adapter/adapter_model.safetensors", "checkpoints/step-1.pt", "model/config.json"):
        (job / name).parent.mkdir()
        (job / name).write_text("{}")
    for name in ("log.txt", "journal.jsonl.lock", "extra.safetensors", "extra.pt", ".scores.json.x1", "steps.cut"):
        (job / name).write_text("{}")
    for name in (".lock", "report.html", "runs.parquet"):
        (folder / name).write_text("")
    (job / "angles.csv").write_text("1,2\n")
    (packed,) = pack(folder)
    names = [f"jobs/job/{name}" for name in ("angles.csv", "spec.json", "status.json", "steps.jsonl")]
    assert zipfile.ZipFile(packed.file).namelist() == [*names, "suite.json"]


def test_equal_records_give_equal_bytes(tmp_path: Path) -> None:
    """Whenever, in whatever order and with whatever permissions they were written."""
    first = make_suite(tmp_path / "a" / "made")
    second = make_suite(tmp_path / "b" / "made", ("second", "first"))
    for name in ("suite.json", "jobs/first/status.json"):
        shutil.copyfile(first / name, second / name)
    (second / "jobs" / "second" / "status.json").unlink()
    for file in second.rglob("*.json"):
        os.utime(file, (1, 1))
        file.chmod(0o600)
    packed = [pack(folder)[0].file for folder in (first, second)]
    assert packed[0].read_bytes() == packed[1].read_bytes()
    assert {one.date_time[0] for one in zipfile.ZipFile(packed[0]).infolist()} == {1980}
    assert {one.external_attr >> 16 for one in zipfile.ZipFile(packed[0]).infolist()} == {stat.S_IFREG | 0o644}


def test_packing_twice_writes_over_an_archive_and_over_nothing_else(tmp_path: Path) -> None:
    """What is in the way keeps its content, and no scraps are left beside it."""
    folder = make_suite(tmp_path / "made")
    (packed,) = pack(folder)
    assert packed.file == tmp_path / "made.bench"
    record.write_json(folder / "jobs" / "second" / "status.json", {"schema": 1, "outcome": "complete"})
    (again,) = pack(folder)
    assert (packed.complete, again.complete, again.planned) == (1, 2, 2)
    mine = tmp_path / "thesis.bench"
    mine.write_text("the only copy")
    with pytest.raises(InputError, match=r"thesis\.bench: is no archive, so it is not written over"):
        pack(folder, mine)
    assert mine.read_text() == "the only copy"
    with pytest.raises(InputError, match=r"--out .*made\.zip: must end in \.bench"):
        pack(folder, tmp_path / "made.zip")
    (tmp_path / "folder.bench").mkdir()
    with pytest.raises(InputError, match=r"folder\.bench: is a folder"):
        pack(folder, tmp_path / "folder.bench")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["folder.bench", "made", "made.bench", "thesis.bench"]


def test_a_root_is_packed_suite_by_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b.1"):
        make_suite(tmp_path / name)
    assert [one.file.name for one in pack(tmp_path)] == ["a.bench", "b.1.bench"]
    with pytest.raises(InputError, match=r"is one file, but .* holds 2 suites \(a, b\.1\); give one's folder"):
        pack(tmp_path, tmp_path / "all.bench")
    monkeypatch.chdir(tmp_path / "a")
    assert [one.file for one in pack(Path())] == [tmp_path / "a.bench"]
    for name in ("a", "b.1"):
        shutil.rmtree(tmp_path / name)
    with pytest.raises(InputError, match="holds no suite's folder to pack, only archives"):
        pack(tmp_path)


def test_records_that_no_archive_may_hold_are_not_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MOST_OF_A_FILE", 60)
    with pytest.raises(InputError, match=r"jobs/first/spec\.json' has [0-9]+ bytes, more than the 60 that are read"):
        pack(make_suite(tmp_path / "made"))
    assert not list(tmp_path.glob("*.bench*"))


# ---- reading ---------------------------------------------------------------------------------------------------------


def test_an_archive_reads_like_its_folder(tmp_path: Path) -> None:
    folder = make_suite(tmp_path / "made")
    (packed,) = pack(folder, tmp_path / "elsewhere.bench")
    (ours,), (theirs,) = suite_record.find_suites(folder), suite_record.find_suites(packed.file)
    assert theirs.info == ours.info
    assert list(theirs.jobs) == list(ours.jobs) == ["first", "second"]
    assert [job.status for job in theirs.jobs.values()] == [job.status for job in ours.jobs.values()]
    assert theirs.jobs["first"].rows("steps") == [
        {"step": step, "loss": 0.5, "seconds": 1.0, "weights": {}} for step in (1, 2, 3)
    ]
    assert theirs.jobs["first"].rows("usage") == []
    names = [[one.name for one in suite.jobs["first"].path.iterdir()] for suite in (ours, theirs)]
    assert sorted(names[0]) == names[1] == ["spec.json", "status.json", "steps.jsonl"]
    assert (ours.archive, ours.folder) == (None, folder)
    assert (theirs.archive, theirs.folder) == (packed.file, tmp_path / "elsewhere")
    assert str(theirs.jobs["first"].path) == f"{packed.file}/jobs/first"


def test_a_path_in_an_archive_knows_files_from_folders(tmp_path: Path) -> None:
    """One made by another program may list folders, too."""
    file = zipped(tmp_path / "x.bench", {"jobs/": b"", "jobs/a/": b"", "jobs/a/spec.json": b"{}", "jobs/b/c/d": b""})
    top = ArchivePath(Archive(file))
    assert [str(one.inside) for one in (top / "jobs").iterdir()] == ["jobs/a", "jobs/b"]
    assert [(top / name).is_file() for name in ("suite.json", "jobs", "jobs/a/spec.json", "none")] == [1, 0, 1, 0]
    assert [(top / name).is_dir() for name in ("suite.json", "jobs", "jobs/b/c", "none")] == [0, 1, 1, 0]
    assert [(top / name).exists() for name in ("suite.json", "jobs", "none")] == [1, 1, 0]
    assert list((top / "none").iterdir()) == []
    with pytest.raises(InputError, match=r"x\.bench: holds no none; take one"):
        (top / "none").read_text()


def test_an_archive_stays_what_it_was_when_it_was_opened(tmp_path: Path) -> None:
    folder = make_suite(tmp_path / "made")
    (packed,) = pack(folder)
    (suite,) = suite_record.find_suites(packed.file)
    (folder / "jobs" / "first" / "steps.jsonl").write_text("")
    pack(folder)
    assert len(suite.jobs["first"].rows("steps")) == 3


def test_a_root_holds_folders_and_archives_and_the_folder_counts(tmp_path: Path) -> None:
    """An archive gives way to a folder of its name, which need not be its suite's, and to one of its suite's name."""
    for name in ("both", "only_folder", "only_archive"):
        pack(make_suite(tmp_path / name))
    (tmp_path / "only_folder.bench").unlink()
    shutil.rmtree(tmp_path / "only_archive")
    shutil.copyfile(tmp_path / "both.bench", tmp_path / "earlier.bench")
    found = suite_record.find_suites(tmp_path)
    assert [(one.name, one.archive is not None) for one in found] == [
        ("both", False),
        ("only_archive", True),
        ("only_folder", False),
    ]
    assert [one.note for one in found] == [
        "These are the records of the folder both. Archives of the same suite, not read: both.bench, earlier.bench.",
        "",
        "",
    ]
    (tmp_path / "both.bench").write_text("broken, but not looked at")
    assert len(suite_record.find_suites(tmp_path)) == 3
    (tmp_path / "other.bench").write_text("broken")
    with pytest.raises(InputError, match=r"other\.bench: cannot be read as a \.bench archive"):
        suite_record.find_suites(tmp_path)


def test_a_folder_without_records_points_to_the_archive_beside_it(tmp_path: Path) -> None:
    """As in a fresh clone, where the folder holds a rendered report alone."""
    folder = make_suite(tmp_path / "made")
    pack(folder)
    shutil.rmtree(folder / "jobs")
    (folder / "suite.json").unlink()
    with pytest.raises(InputError, match=r"made: holds no suite; its records are in .*made\.bench: give that$"):
        suite_record.find_suites(folder)
    with pytest.raises(InputError, match=r"notes\.txt: is a file; give a folder of results, or a \.bench archive"):
        (tmp_path / "notes.txt").write_text("")
        suite_record.find_suites(tmp_path / "notes.txt")


# ---- archives that mean harm -----------------------------------------------------------------------------------------


def link(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.create_system, entry.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return entry


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "jobs/../../evil",
        "/etc/evil",
        "jobs//evil",
        "./evil",
        "jobs\\evil",
        "C:/evil",
        "jobs/a\nb",
        "jobs/\x1b[2J",
    ],
)
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    entry = zipfile.ZipInfo("x")
    entry.filename = name
    with pytest.raises(InputError, match=r"x\.bench: .* is no plain relative name; take one that") as caught:
        Archive(zipped(tmp_path / "x.bench", {entry: b"1"}))
    assert "\n" not in str(caught.value)


def test_links_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'jobs/a/spec\.json' is a link or a device, not a file"):
        Archive(zipped(tmp_path / "x.bench", {link("jobs/a/spec.json"): b"/etc/passwd"}))


def test_a_name_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    """Two readers could take two different files."""
    with pytest.warns(UserWarning, match="Duplicate name"):
        zipped(tmp_path / "x.bench", {"suite.json": SUITE})
    with pytest.raises(InputError, match=r"'suite\.json' is there twice"):
        Archive(tmp_path / "x.bench")


def test_an_encrypted_or_otherwise_packed_file_is_refused(tmp_path: Path) -> None:
    """The flag of encryption is bit 0 of the two bytes at 8 of an entry in the list, which begins with PK 1 2."""
    content = bytearray(zipped(tmp_path / "x.bench", {}).read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "x.bench").write_bytes(content)
    with pytest.raises(InputError, match=r"'suite\.json' is encrypted"):
        Archive(tmp_path / "x.bench")
    with pytest.raises(InputError, match=r"'suite\.json' is packed in another way than deflate"):
        Archive(zipped(tmp_path / "x.bench", {}, compression=zipfile.ZIP_BZIP2))


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda content: b"", id="empty"),
        pytest.param(lambda content: b"no zip at all", id="text"),
        pytest.param(lambda content: content[: len(content) // 2], id="cut"),
        pytest.param(lambda content: content[:-30] + bytes([255] * 30), id="end overwritten"),
        pytest.param(lambda content: content.replace(b"PK\x01\x02", b"PK\x07\x02"), id="list overwritten"),
    ],
)
def test_what_is_no_sound_zip_is_refused(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    file = zipped(tmp_path / "x.bench", {"jobs/a/spec.json": b"{}"})
    file.write_bytes(spoil(file.read_bytes()))
    with pytest.raises(InputError, match=r"x\.bench: cannot be read as a \.bench archive \(.*\); take one that"):
        Archive(file)


def test_a_zip_of_something_else_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.bench", "w") as made:
        made.writestr("word/document.xml", "<w/>")
    with pytest.raises(InputError, match=r"x\.bench: is no \.bench archive, which holds a suite\.json"):
        Archive(tmp_path / "x.bench")


def test_a_bomb_is_refused_before_it_is_read(tmp_path: Path) -> None:
    """30 MB of zeros become 30 kB: a thousand times as much, where 200 times is allowed."""
    bomb = zipped(tmp_path / "x.bench", {"jobs/a/steps.jsonl": bytes(30_000_000)}, compression=zipfile.ZIP_DEFLATED)
    tracemalloc.start()
    with pytest.raises(InputError, match=r"x\.bench: [0-9,]+ bytes that would become 30,000,054; at most 200 times"):
        Archive(bomb)
    assert tracemalloc.get_traced_memory()[1] < 2e6
    tracemalloc.stop()


def test_a_bomb_that_lies_about_its_size_is_read_no_further(tmp_path: Path) -> None:
    """It says 100 bytes, at 24 of its entry in the list, and holds 30 MB: what is read is as long as it said, and wrong."""
    bomb = zipped(tmp_path / "x.bench", {"jobs/a/steps.jsonl": bytes(30_000_000)}, compression=zipfile.ZIP_DEFLATED)
    content = bytearray(bomb.read_bytes())
    at = content.rindex(b"PK\x01\x02") + 24
    content[at : at + 4] = (100).to_bytes(4, "little")
    bomb.write_bytes(content)
    path = ArchivePath(Archive(bomb)) / "jobs" / "a" / "steps.jsonl"
    tracemalloc.start()
    with pytest.raises(
        InputError, match=r"x\.bench/jobs/a/steps\.jsonl: cannot be read \(Bad CRC-32.*\); take one that"
    ):
        path.read_text()
    assert tracemalloc.get_traced_memory()[1] < 2e6
    tracemalloc.stop()


def test_files_that_lie_on_top_of_each_other_are_refused(tmp_path: Path) -> None:
    """One thousand bytes of noise are listed five times: 5,000 bytes in a file of less than 2,000."""
    with zipfile.ZipFile(tmp_path / "x.bench", "w") as made:
        made.writestr("suite.json", SUITE)
        made.writestr("jobs/a/0", os.urandom(1000))
        for number in range(1, 5):
            entry = copy.copy(made.filelist[1])
            entry.filename = f"jobs/a/{number}"
            made.filelist.append(entry)
    with pytest.raises(InputError, match="its files lie on top of each other"):
        Archive(tmp_path / "x.bench")


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ("MOST_FILES", r"holds 6 files, more than the 5 that are read"),
        ("MOST_OF_A_FILE", r"'suite\.json' has 54 bytes, more than the 5 that are read"),
        ("MOST_IN_ALL", r"would become 64; at most 200 times as many, and 5, are read"),
    ],
)
def test_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, message: str) -> None:
    """suite.json has 54 bytes, five more files have 2 each."""
    monkeypatch.setattr(archive, limit, 5)
    file = zipped(tmp_path / "x.bench", {f"jobs/{number}/spec.json": b"{}" for number in range(5)})
    with pytest.raises(InputError, match=message):
        Archive(file)


def test_a_broken_file_in_an_archive_is_named(tmp_path: Path) -> None:
    """One byte of a stored file is another; one holds brackets a hundred thousand deep, one is no UTF-8."""
    entries = {"jobs/a/spec.json": b'{"id": "a"}', "deep.json": b"[" * 100_000, "steps.jsonl": b'{}\n"\xff"\n'}
    file = zipped(tmp_path / "x.bench", entries)  # type: ignore[arg-type]
    file.write_bytes(file.read_bytes().replace(b'{"id": "a"}', b'{"id": "b"}'))
    top = ArchivePath(Archive(file))
    with pytest.raises(InputError, match=r"x\.bench/jobs/a/spec\.json: cannot be read \(Bad CRC-32"):
        record.read_job(top / "jobs" / "a")
    with pytest.raises(
        InputError, match=r"x\.bench/deep\.json: cannot be read as JSON .*; pack the suite's folder again"
    ):
        record.read_json(top / "deep.json")
    with pytest.raises(InputError, match=r"x\.bench/steps\.jsonl: is not UTF-8"):
        list(record.read_jsonl(top / "steps.jsonl"))


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/b", "a\\\\b", "..", "", "a\\nb"])
def test_a_suite_or_a_job_that_is_named_like_a_path_is_refused(tmp_path: Path, name: str) -> None:
    """Reports go to folders named like suites."""
    for info in (SUITE.replace(b"made", name.encode()), SUITE.replace(b"[]", f'["{name}"]'.encode())):
        with zipfile.ZipFile(tmp_path / "x.bench", "w") as made:
            made.writestr("suite.json", info)
        with pytest.raises(InputError, match=r"x\.bench/suite\.json: '.*' is no name of a suite or a job"):
            suite_record.find_suites(tmp_path / "x.bench")


def test_links_are_not_packed(tmp_path: Path) -> None:
    """A stranger's folder may lead anywhere, and an archive is there to be given away."""
    (tmp_path / "secret").write_text("mine")
    folder = make_suite(tmp_path / "made")
    (folder / "jobs" / "first" / "notes.csv").symlink_to(tmp_path / "secret")
    (packed,) = pack(folder)
    assert not any("notes" in name for name in zipfile.ZipFile(packed.file).namelist())


def test_what_a_killed_packing_left_is_swept_by_the_next(tmp_path: Path) -> None:
    folder = make_suite(tmp_path / "made")
    (tmp_path / ".made.bench.999999999-0123456789ab").write_bytes(b"half")
    pack(folder)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
