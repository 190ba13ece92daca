"""What a reader must know of a run's numbers."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from report_data import START_AND_FLOOR, write_run

from analogtl.analysis.analyse import analyse
from analogtl.analysis.read import read_run
from analogtl.report.sections import section_of
from analogtl.vocabulary import Arm


@pytest.mark.parametrize(
    ("shuffled", "says"),
    [
        (28.0, ""),  # the gradient makes 11 points: they learned, however little they moved
        (17.0, "did not learn"),
        (None, str(Arm.SHUFFLED_GRADIENTS)),
    ],
)
def test_arrays_that_moved_as_far_as_noise_are_held_to_the_control(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shuffled: float | None, says: str
) -> None:
    arms = [Arm.ANALOG_TL, Arm.FROZEN_ARRAY]
    if shuffled is not None:
        monkeypatch.setitem(START_AND_FLOOR, Arm.SHUFFLED_GRADIENTS, (34.0, shuffled))
        arms.append(Arm.SHUFFLED_GRADIENTS)
    run = write_run(tmp_path / "run", arms=arms)
    layers = pd.read_csv(run / "layers.csv")
    layers["rms_change"] = layers["noise_walk"] = 0.05
    layers.loc[layers["weights_changed"].eq(0), "rms_change"] = 0.0
    layers.to_csv(run / "layers.csv", index=False)
    limits = section_of(analyse(read_run(run, "run"))).limits
    assert len(limits) == bool(says)
    assert all(says in limit for limit in limits)
