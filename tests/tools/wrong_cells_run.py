"""How the commands that read run directories take wrong cells and fields.

    python tests/tools/wrong_cells_run.py RUN [--every N] [--formats html,csv]

Makes every change of `tests/support/wrong_cells.py` to a copy of a run directory, one after the
other, beside an unchanged copy, and calls ``report``, ``runs list``, ``runs show``, ``runs diff``
and ``runs clean --dry-run``. It prints each internal error and counts them. Exit code 0: none.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from wrong_cells import changes

from analogtl.cli.app import run as call


def main() -> int:
    """Make the changes; return the exit code."""
    parser = argparse.ArgumentParser(description="Commands on run directories with wrong cells.")
    parser.add_argument("run", type=Path)
    parser.add_argument("--every", type=int, default=1, help="only every Nth change")
    parser.add_argument("--formats", default="html,csv,markdown,latex")
    parser.add_argument("--only", default="", help="only changes whose name has this in it")
    options = parser.parse_args()
    formats = [word for one in options.formats.split(",") for word in ("--format", one)]
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "runs")
        for name in ("good", "wrong"):
            shutil.copytree(options.run, root / name)
        commands = [
            ["report", str(root), "--out", str(Path(folder, "out")), *formats],
            ["runs", "list", "--runs", str(root)],
            ["runs", "show", "wrong", "--runs", str(root)],
            ["runs", "diff", "good", "wrong", "--runs", str(root)],
            ["runs", "clean", "--all", "--dry-run", "--runs", str(root)],
        ]
        for change in list(changes(options.run))[:: options.every]:
            if options.only not in change.name:
                continue
            file = root / "wrong" / change.file
            before = file.read_bytes()
            file.write_text(change.content, encoding="utf-8")
            for command in commands:
                kind = f"{' '.join(command[:2]) if command[0] == 'runs' else 'report'}"
                out, err = io.StringIO(), io.StringIO()
                with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                    code = call(command)
                counts[f"{kind}: tried"] += 1
                counts[f"{kind}: exit code {code}"] += 1
                if "internal error" in err.getvalue():
                    counts[f"{kind}: internal errors"] += 1
                    print(f"{kind}: {change.name}: {err.getvalue().strip()[-300:]}", flush=True)
                if "\x1b" in out.getvalue() + err.getvalue():
                    counts[f"{kind}: escapes"] += 1
                    print(f"{kind}: {change.name}: an escape sequence", flush=True)
            file.write_bytes(before)
    for kind, count in sorted(counts.items()):
        print(f"{count:6} {kind}")
    return int(any("internal" in kind or "escapes" in kind for kind in counts))


if __name__ == "__main__":
    sys.exit(main())
