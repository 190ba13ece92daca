"""Write again what is made from the code and from the published runs.

``python -m analogtl.cli.generate``, in a source checkout.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import analogtl
from analogtl.cli.reference import commands_markdown
from analogtl.cli.scripts import scripts
from analogtl.config.reference import axes_table, keys_markdown


def generated() -> Mapping[Path, str]:
    """Every generated file of a source checkout, and what belongs in it."""
    package = Path(analogtl.__file__).parent
    found = {
        package / "explain" / "keys.md": keys_markdown(),
        package / "explain" / "commands.md": commands_markdown(),
    }
    for name, text in scripts().items():
        found[package.parent / "completions" / name] = text
    page = package / "explain" / "experiment-file.md"
    found[page] = _between(page.read_text(encoding="utf-8"), "axes", axes_table())
    return found


def _between(text: str, name: str, part: str) -> str:
    """A page with what stands between its markers ``name:begin`` and ``name:end`` replaced."""
    begin, end = f"<!-- {name}:begin -->\n", f"<!-- {name}:end -->"
    before, _, rest = text.partition(begin)
    return before + begin + part + end + rest.partition(end)[2]


def main() -> None:
    """Write the files, and the tables of the pages that show results."""
    from analogtl.report.results import rewrite

    for path, text in generated().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(path)
    package = Path(analogtl.__file__).parent
    for page in (package.parent / "README.md", package / "explain" / "results.md"):
        rewrite(page, package.parent / "experiments" / "results")
        print(page)


if __name__ == "__main__":
    main()
