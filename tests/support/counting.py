"""A stand-in for `run_trial` that counts, in whichever process imports it, what is done once more.

Every resolving of an experiment and every reading of a trial's record adds a line to the file that
the environment variable ``ANALOGTL_COUNTS`` names; then the trial runs as it does without.
"""

import os
from collections import Counter
from functools import cached_property
from pathlib import Path

from analogtl.config.schema import Experiment
from analogtl.study import run_dir
from analogtl.training.run_trial import run_trial

__all__ = ["FUNCTION", "counts", "run_trial"]

FUNCTION = "counting:run_trial"


def counts(file: Path) -> Counter[str]:
    """How often each was done, over all processes."""
    return Counter(file.read_text(encoding="utf-8").split())


def _count(what: str) -> None:
    if "ANALOGTL_COUNTS" in os.environ:
        with open(os.environ["ANALOGTL_COUNTS"], "a", encoding="utf-8") as file:
            file.write(f"{what}\n")


def _install() -> None:
    resolve, read = vars(Experiment)["_resolved"].func, run_dir.read_record

    def resolved(self):
        _count("resolved")
        return resolve(self)

    def read_record(path, trial_id):
        _count("record")
        return read(path, trial_id)

    counted = cached_property(resolved)
    counted.__set_name__(Experiment, "_resolved")
    type.__setattr__(Experiment, "_resolved", counted)
    run_dir.read_record = read_record


_install()
