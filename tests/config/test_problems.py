"""What is said of a wrong experiment file: one snapshot of the whole family, in problems.txt.

To write it again: python tests/config/test_problems.py
"""

from pathlib import Path

import pytest

from analogtl.config.load import load_experiment
from analogtl.errors import ExperimentError

SNAPSHOT = Path(__file__).with_name("problems.txt")
CASES = [case.split("---\n") for case in SNAPSHOT.read_text().split("===\n")[1:]]


def said_of(text: str) -> str:
    """The problems of a file exp.toml in this folder, a line each."""
    Path("exp.toml").write_text(text)
    try:
        load_experiment("exp.toml")
    except ExperimentError as error:
        return "".join(f"{line}\n" for line in error.problems)
    return "no problem\n"


@pytest.mark.parametrize(("text", "said"), CASES)
def test_every_problem_is_said_with_its_line(text, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert said_of(text) == said.rstrip("\n") + "\n"


if __name__ == "__main__":
    SNAPSHOT.write_text("\n".join(f"===\n{text}---\n{said_of(text)}" for text, _ in CASES))
    Path("exp.toml").unlink()
