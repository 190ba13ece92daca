"""With nothing set but the device preset, the arrays learn: a cheap part of the results page."""

from __future__ import annotations

from pathlib import Path

import pytest

from analogtl import api
from analogtl.config.load import load_experiment, with_settings
from analogtl.vocabulary import Arm

# The error of analog-tl was 4.5 to 34 % there, and 71 to 92 % in both controls, over five seeds.
PRESETS = [
    "GokmenVlasovPresetDevice",
    "EcRamPresetDevice",
    "EcRamMOPresetDevice",
    "ReRamArrayHfO2PresetDevice",
]


@pytest.mark.slow
def test_arrays_of_fine_and_of_coarse_devices_learn_at_the_defaults(tmp_path: Path) -> None:
    experiment = load_experiment("defaults/presets", ["sweep.seeds=[7]"])
    experiment = with_settings(experiment, {"sweep.axes": {"analog.device.preset": PRESETS}})
    table = api.run(experiment, sweep=True, root=tmp_path)
    assert set(table["status"]) == {"done"}
    errors = table.pivot(index="analog.device.preset", columns="arm", values="error_final")
    assert len(errors) == len(PRESETS)
    assert (errors[Arm.ANALOG_TL] < 50).all()
    assert (errors[[Arm.FROZEN_ARRAY, Arm.SHUFFLED_GRADIENTS]] > 60).all(axis=None)
