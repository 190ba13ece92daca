"""The catalogue says of aihwkit what the installed aihwkit says of itself."""

from importlib import metadata

import pytest

from analogtl.config import catalog
from analogtl.config.parameters import DEFAULTS
from analogtl.vocabulary import Algorithm


def test_the_catalogue_is_what_the_installed_aihwkit_offers():
    installed = metadata.version("aihwkit")
    kept, found = catalog.catalog(), catalog.scan()
    for (compound, parameter), since in catalog.SINCE.items():
        if tuple(map(int, installed.split("."))) < tuple(map(int, since.split("."))):
            assert parameter in kept["compounds"][compound]
            found["compounds"][compound][parameter] = kept["compounds"][compound][parameter]
    assert found == kept


def test_presets_know_their_device_and_its_parameters():
    assert catalog.device_class("ReRamArrayHfO2PresetDevice") == "SoftBoundsReferenceDevice"
    assert catalog.device_parameters("ReRamArrayHfO2PresetDevice")["dw_min"] == 0.4622
    assert "EcRamPresetDevice" not in catalog.presets_with("reference_std")


@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_default_settings_exist_in_the_compound(algorithm):
    assert set(DEFAULTS[algorithm].get("compound", ())) <= set(
        catalog.compound_parameters(algorithm)
    )
