"""CSV and JSON that are whole or not there, and readers that believe nothing."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analogtl.errors import ExperimentError, RunError
from analogtl.files import digest, read_json, write_atomically, write_json
from analogtl.study.columns import axis_columns, columns_of
from analogtl.study.tables import read_rows, read_table, read_tables, write_joined, write_rows


def test_a_table_reads_back_as_it_was_written(tmp_path: Path) -> None:
    rows = [
        {"trial": "a,b", "seed": 0, "error": 12.5, "resumed": True, "weights_changed": None},
        {"trial": 'say "x"\n', "seed": 1, "error": float("nan"), "resumed": False, "wtn": 5},
    ]
    file = tmp_path / "epochs.csv"
    write_rows(file, columns_of(["trial", "seed"], rows), rows)
    read = read_rows(file)
    assert [row["trial"] for row in read] == ["a,b", 'say "x"\n']
    assert [row["error"] for row in read] == ["12.5", ""]
    assert [row["resumed"] for row in read] == ["true", "false"]
    table = read_table(file)
    assert table["error"].isna().tolist() == [False, True]
    assert table["resumed"].tolist() == [True, False]
    assert axis_columns(table.columns) == ["wtn"]


cells = st.one_of(
    st.none(),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20),
    st.integers(),
    st.floats(),
    st.booleans(),
)


@settings(max_examples=25, deadline=None)  # each writes a file
@given(st.lists(st.dictionaries(st.sampled_from("abc"), cells, min_size=3), max_size=6))
def test_any_cell_survives(rows: list[dict[str, Any]]) -> None:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        file = Path(folder, "x.csv")
        write_rows(file, list("abc"), rows)
        read = read_rows(file)
        assert len(read) == len(rows)
        for row, got in zip(rows, read, strict=True):
            for key, value in row.items():
                if isinstance(value, str):
                    assert got[key] == value.replace("\r\n", "\n").replace("\r", "\n")


def test_tables_are_joined_line_by_line_whatever_their_columns(tmp_path: Path) -> None:
    parts = []
    for number, columns in enumerate((["trial", "wtn"], ["trial"], ["spv", "trial"])):
        file = tmp_path / f"{number}.csv"
        write_rows(file, columns, [{"trial": f"t{number}", "wtn": 5, "spv": 7}])
        parts.append(file)
    write_joined(tmp_path / "all.csv", ["trial"], [*parts, tmp_path / "gone.csv"])
    assert read_rows(tmp_path / "all.csv") == [
        {"trial": "t0", "wtn": "5", "spv": ""},
        {"trial": "t1", "wtn": "", "spv": ""},
        {"trial": "t2", "wtn": "", "spv": "7"},
    ]


def test_joining_a_torn_table_leaves_the_old_result(tmp_path: Path) -> None:
    (tmp_path / "all.csv").write_text("old\n")
    (tmp_path / "torn.csv").write_text("a,b\n1,2\n3\n")
    with pytest.raises(RunError, match=r"torn.csv:3: 1 cells"):
        write_joined(tmp_path / "all.csv", ["a"], [tmp_path / "torn.csv"])
    assert (tmp_path / "all.csv").read_text() == "old\n"
    assert sorted(os.listdir(tmp_path)) == ["all.csv", "torn.csv"], "nothing is left behind"


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    contents = [f"{letter * 200_000}\n" for letter in "ab"]
    write_atomically(file, contents[0])
    stop = threading.Event()

    def write() -> None:
        for number in range(10_000):
            write_atomically(file, contents[number % 2])
            if stop.is_set():
                return

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(200):
            assert file.read_text() in contents
    finally:
        stop.set()
        writer.join()


def test_a_disk_that_fills_at_the_last_moment_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "x.json"
    write_json(file, {"a": 1})

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="No space"):
        write_json(file, {"a": 2})
    assert read_json(file) == {"a": 1}
    assert os.listdir(tmp_path) == ["x.json"]


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside.txt"
    outside.write_text("precious")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "x.csv").symlink_to(outside)
    write_atomically(tmp_path / "run" / "x.csv", "new")
    assert outside.read_text() == "precious"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[" * 200_000,
        b'{"a": ' * 50_000,
        b"1" * 10_000,
        b'{"a": 1}{"b": 2}',
        b"\0" * 100,
    ],
)
def test_hostile_json_is_an_error(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "x.json"
    file.write_bytes(content)
    with pytest.raises(RunError, match="readable JSON"):
        read_json(file)


def test_json_that_is_too_large_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "x.json"
    with open(file, "wb") as sparse:
        sparse.truncate(10**11)
    with pytest.raises(RunError, match="too large"):
        read_json(file)


def test_what_never_ends_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("pipe", "zero"):
        with pytest.raises(RunError, match="not a file"):
            read_json(tmp_path / name)
        with pytest.raises(RunError):
            read_rows(tmp_path / name)
        with pytest.raises(OSError, match="not a file"):
            digest(tmp_path / name)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"a,b\n1\n",
        b"a,b\n1,2,3\n",
        b"a,b\n\xff,2\n",
        b'a,b\n"1,2\n3,4\n',
        b"a,b\n" + b"x" * 200_000 + b",1\n",
    ],
)
def test_torn_or_hostile_csv_is_an_error(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "trials.csv"
    file.write_bytes(content)
    with pytest.raises(RunError, match=r"trials\.csv"):
        read_rows(file)


def test_cells_stay_text_and_are_never_evaluated(tmp_path: Path) -> None:
    formula = '=HYPERLINK("http://example.org","x")'
    code = "__import__('os').system('touch /tmp/analogtl-was-here')"
    write_rows(tmp_path / "trials.csv", ["trial", "message"], [
        {"trial": formula, "message": code}
    ])  # fmt: skip
    table = read_tables("trials.csv", [tmp_path])
    assert table["trial"].tolist() == [formula]
    assert table["message"].tolist() == [code]


def test_tables_of_several_runs_are_one(tmp_path: Path) -> None:
    for name, axis in (("one", "wtn"), ("two", "spv")):
        (tmp_path / name / "trials" / "x").mkdir(parents=True)
        rows = [{"experiment": name, "trial": "t", "seed": 0, axis: 5}]
        columns = columns_of(["experiment", "trial", "seed"], rows)
        write_rows(tmp_path / name / "trials.csv", columns, rows)
        write_rows(tmp_path / name / "trials" / "x" / "trials.csv", columns, rows)
    table = read_tables("trials.csv", [tmp_path])
    assert sorted(table["experiment"]) == ["one", "two"], "no table of a single trial among them"
    assert table["wtn"].notna().sum() == 1
    with pytest.raises(ExperimentError, match=r"no trials\.csv"):
        read_tables("trials.csv", [tmp_path / "one" / "trials" / "y"])
