"""Read texts, with their labels or without, from a table of the user's own: CSV or JSONL."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from analogtl.errors import ExperimentError, did_you_mean
from analogtl.files import check_regular, decoded
from analogtl.tasks.folders import listed

TABLES = (".csv", ".jsonl")
MAX_BYTES = 200_000_000  # of a file


def read_table(
    dataset: str, file: Path, text: str, label: str | None = None
) -> list[tuple[str, str]]:
    """Read the texts of a table, each with its label; without a column of labels, with "".

    Raises:
        ExperimentError: No such column, no label where there should be one, no table.
    """
    content = decoded(read_file(dataset, file), str(file))
    rows = _json_rows(file, content) if file.suffix.lower() == ".jsonl" else _csv_rows(content)
    wanted = {"data.text_column": text} | ({"data.label_column": label} if label else {})
    found: list[tuple[str, str]] = []
    problems: list[str] = []
    for line, row in rows:
        for key, name in wanted.items():
            if name not in row:
                hint = did_you_mean(name, map(str, row)) or f"it has {', '.join(map(str, row))}"
                raise ExperimentError(f"{file}:{line}: {key}: no column {name!r}; {hint}")
        value, of = row[text], row[label] if label else ""
        if of is None or isinstance(of, dict | list) or (label and not str(of).strip()):
            problems.append(f"{file}:{line}: no label; expected one in the column {label!r}")
        elif value is not None and not isinstance(value, str):
            problems.append(f"{file}:{line}: expected text in the column {text!r}; got {value!r}")
        else:
            found.append((value or "", str(of).strip()))
    if problems:
        raise ExperimentError(listed(problems, dataset))
    if not found:
        raise ExperimentError(f"data set {dataset}: {file}: no rows in it")
    return found


def _csv_rows(content: str) -> Iterator[tuple[int, Mapping[Any, Any]]]:
    csv.field_size_limit(MAX_BYTES)
    reader = csv.DictReader(io.StringIO(content, newline=""))
    for row in reader:
        yield reader.line_num, row


def _json_rows(file: Path, content: str) -> Iterator[tuple[int, Mapping[Any, Any]]]:
    for number, line in enumerate(content.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ExperimentError(f"{file}:{number}: not JSON: {error}") from None
        if not isinstance(row, dict):
            raise ExperimentError(f"{file}:{number}: expected a JSON object in each line")
        yield number, row


def read_file(dataset: str, file: Path) -> bytes:
    """Read a file of text.

    Raises:
        ExperimentError: It cannot be read, or is too large.
    """
    try:
        if check_regular(file) > MAX_BYTES:
            raise ExperimentError(f"data set {dataset}: {file}: more than {MAX_BYTES:,} bytes")
        return file.read_bytes()
    except OSError as error:
        raise ExperimentError(
            f"data set {dataset}: cannot read {file}: {error.strerror or error}"
        ) from None
