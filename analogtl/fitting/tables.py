"""Read measured pulses from the tables that people have: CSV, TSV, XLSX, in five layouts."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Mapping
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analogtl.errors import ExperimentError, one_line

# Roles of columns and the words that people head them with, without units; the first match counts.
ROLES = {
    "up": r"(g |conductance )?(up|pot|potentiation|ltp)( (g|cond|conductance|response|data))?",
    "down": r"(g |conductance )?(down|dep|depression|ltd)( (g|cond|conductance|response|data))?",
    "width": r"(pulse |write )?(width|duration)|t (pulse|width)",
    "voltage": r"(pulse |write |applied )?(voltage|amplitude|v)|v (pulse|write)",
    "direction": r"(pulse )?(direction|dir|polarity|sign|type|mode)",
    "cycle": r"cycle|cyc|cycle (number|no|index)|loop|sweep|repeat|repetition",
    "device": r"device|dev|cell|sample|device (id|number|no|name)|id",
    "pulse": r"(up |down |pot |dep )?(pulse|pulses|n|no|index|step)( ?(number|no|index|count|#))?",
    "conductance": r"conductance|cond|g|weight|w|normali[sz]ed conductance",
}
UNITS = {"s": "S", "ms": "mS", "us": "uS", "µs": "uS", "μs": "uS", "ns": "nS", "ps": "pS"}
UP, DOWN = (
    {"up", "pot", "potentiation", "ltp", "p", "set", "+", "+1", "1", "1.0", "+1.0"},
    {*("down", "dep", "depression", "ltd", "d", "reset", "-", "-1", "-1.0")},
)
LAYOUTS = (
    "expected conductance with direction or write voltage (and device, cycle, pulse); or two "
    "columns up, down; or voltage and a column for each device"
)
MAX_BYTES = 500_000_000


def read_table(file: Path) -> tuple[pd.DataFrame, str]:
    """Read measured pulses.

    Returns:
        A row for each reading, in order: device, cycle, sign (+1 up, -1 down, 0 a reading without
        a pulse), conductance, row (of the file); and the unit, "" if the file does not tell.

    Raises:
        ExperimentError: If the file is not there, is no table, or lacks columns.
    """
    frame = _cells(file)
    roles, units = _roles(frame)
    unit = next(
        (units[c] for c in map(str, frame) if roles[c] in ("conductance", "up", "down", "")), ""
    )
    readings = pd.concat(list(_readings(file, frame, roles)), ignore_index=True)
    if readings.empty:
        raise ExperimentError(f"{file}: no readings")
    bad = readings[~np.isfinite(readings["conductance"].astype(float))]
    if len(bad):
        more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
        raise ExperimentError(
            f"{file}: row {bad['row'].iloc[0]}{more}: conductance is no finite number; remove the "
            "row, or the whole device or cycle"
        )
    return _with_cycles(file, readings), unit


def _cells(file: Path) -> pd.DataFrame:
    """The cells of a file, with headings."""
    if not file.is_file():
        raise ExperimentError(f"{file}: no such file; expected a table of pulses (CSV, TSV, XLSX)")
    if file.stat().st_size > MAX_BYTES:
        raise ExperimentError(f"{file}: larger than {MAX_BYTES // 10**6} MB")
    try:
        if file.suffix.lower() in (".xlsx", ".xlsm"):
            frame = pd.read_excel(file, header=None, dtype=object)
        else:
            frame = _delimited(file.read_text(encoding="utf-8-sig"))
    except ImportError:
        raise ExperimentError(
            f"{file}: XLSX needs openpyxl: pip install 'analogtl[xlsx]'"
        ) from None
    except UnicodeDecodeError:
        raise ExperimentError(f"{file}: not a text table; expected CSV, TSV or XLSX") from None
    except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise ExperimentError(f"{file}: not a table: {one_line(error)}") from None
    frame = frame.dropna(how="all").dropna(how="all", axis=1)
    if frame.empty or len(frame) < 2:
        raise ExperimentError(f"{file}: no table; {LAYOUTS}")
    first = [_number(cell) for cell in frame.iloc[0]]
    if all(np.isnan(first)):
        names = [str(cell).strip() for cell in frame.iloc[0]]
        if len(set(names)) < len(names):
            raise ExperimentError(f"{file}: columns of the same name: {', '.join(names)}")
        frame = frame.iloc[1:].set_axis(names, axis=1)
    elif frame.shape[1] == 2:
        frame = frame.set_axis(["up", "down"], axis=1)
    else:
        found = f"found {frame.shape[1]} columns without headings"
        raise ExperimentError(f"{file}: {found}; {LAYOUTS}")
    return frame


def _delimited(text: str) -> pd.DataFrame:
    rows = enumerate(text.splitlines())
    lines = {row: line for row, line in rows if line.strip() and not line.startswith("#")}
    if not lines:
        return pd.DataFrame()
    sample = "\n".join([*lines.values()][:20])
    delimiter = next((one for one in "\t;," if one in sample), r"\s+")
    frame = pd.read_csv(StringIO("\n".join(lines.values())), sep=delimiter, header=None, dtype=str)
    frame.index = pd.Index(lines)
    if delimiter != "," and frame.iloc[1:].map(_comma).any().any():
        frame = frame.map(lambda cell: cell.replace(",", ".") if _comma(cell) else cell)
    return frame


def _comma(cell: Any) -> bool:
    return bool(re.fullmatch(r"\s*[+-]?\d*,\d+([eE][+-]?\d+)?\s*", str(cell)))


def _number(cell: Any) -> float:
    try:
        return float(str(cell).strip())
    except ValueError:
        return float("nan")


def _numbers(cells: pd.Series[Any]) -> pd.Series[float]:
    return cells.map(_number).astype(float)


def _roles(frame: pd.DataFrame) -> tuple[dict[str, str], dict[str, str]]:
    """Each column's role, "" for none, and its unit."""
    roles, units = {}, {}
    for name in map(str, frame):
        text = re.sub(r"[_\s\-.]+", " ", name.strip().lower())
        found = re.search(r"[(\[/]\s*([^)\]]*?)\s*[)\]]?$| ([mupnµμ]?s)$", text)
        unit = (found[1] or found[2] or "") if found else ""
        units[name] = UNITS.get(unit, "")
        plain = text[: found.start()].strip() if found else text
        matches = (role for role, words in ROLES.items() if re.fullmatch(words, plain))
        roles[name] = next(matches, "")
    return roles, units


def _readings(file: Path, frame: pd.DataFrame, roles: dict[str, str]) -> Iterator[pd.DataFrame]:
    """The rows of a table, whichever layout it has."""
    place: dict[str, str] = {}
    for name, role in roles.items():
        place.setdefault(role, name)
    rows = pd.Series(frame.index + 1, index=frame.index)
    common: dict[str, Any] = {
        "device": frame[place["device"]].astype(str) if "device" in place else "1",
        "cycle": frame[place["cycle"]].astype(str) if "cycle" in place else "",
        "pulse": _numbers(frame[place["pulse"]]) if "pulse" in place else np.nan,
        "row": rows,
    }
    if "up" in place and "down" in place:
        whole = pd.DataFrame(common)
        for _, part in whole.groupby(["device", "cycle"], sort=False):
            for sign, role in ((1, "up"), (-1, "down")):
                values = _numbers(frame.loc[part.index, place[role]])
                blank = frame.loc[part.index, place[role]].isna()  # lists of different lengths
                ramp = part.assign(sign=sign, conductance=values)
                last = int(np.flatnonzero(~blank)[-1]) + 1 if (~blank).any() else 0
                yield ramp.iloc[:last]
        return
    common["sign"] = _signs(file, frame, place)
    if "conductance" in place:
        yield pd.DataFrame({**common, "conductance": _numbers(frame[place["conductance"]])})
        return
    devices = [name for name, role in roles.items() if not role]
    if not devices:
        raise ExperimentError(f"{file}: found columns {', '.join(map(str, frame))}; {LAYOUTS}")
    for name in devices:
        yield pd.DataFrame({**common, "device": name, "conductance": _numbers(frame[name])})


def _signs(file: Path, frame: pd.DataFrame, place: Mapping[str, str]) -> pd.Series[int]:
    """The direction of each pulse."""
    if "direction" in place:
        cells, expected = frame[place["direction"]], "direction up or down"
        words = cells.map(lambda cell: str(cell).strip().lower())
        signs = words.map(lambda word: 1 if word in UP else -1 if word in DOWN else np.nan)
    elif "voltage" in place:
        cells, expected = frame[place["voltage"]], "a voltage"
        signs = _numbers(cells).map(np.sign)
    else:
        raise ExperimentError(f"{file}: found columns {', '.join(map(str, frame))}; {LAYOUTS}")
    if signs.isna().any():
        row = signs.index[signs.isna()][0]
        raise ExperimentError(f"{file}: row {row + 1}: expected {expected}, found {cells[row]!r}")
    return signs.astype(int)


def _with_cycles(file: Path, readings: pd.DataFrame) -> pd.DataFrame:
    """Count cycles where the table does not: one begins where down turns to up. Check the order."""
    parts = []
    for device, part in readings.groupby("device", sort=False):
        signs = part["sign"].replace(0, np.nan).ffill().bfill().fillna(0)
        if (part["cycle"] == "").all():
            first = signs.iloc[0]
            turns = (signs == first) & (signs.shift(fill_value=first) != first)
            part = part.assign(cycle=turns.cumsum().astype(str))
        ramp = (signs != signs.shift()).cumsum()
        order = part["pulse"].groupby([part["cycle"], ramp], sort=False).diff()
        if (order <= 0).any():
            row = part["row"][order <= 0].iloc[0]
            raise ExperimentError(
                f"{file}: row {row}: device {device}: pulse numbers do not increase; sort the rows "
                "by device, cycle, direction and pulse, or name the cycles in a column"
            )
        parts.append(part)
    return pd.concat(parts, ignore_index=True).drop(columns="pulse")
