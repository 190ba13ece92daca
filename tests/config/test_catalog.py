"""The catalogue says of aihwkit what the installed aihwkit says of itself."""

import pytest
from scan_aihwkit import scan

from analogtl.config import catalog
from analogtl.config.parameters import DEFAULTS
from analogtl.vocabulary import Algorithm


def test_the_catalogue_is_what_the_installed_aihwkit_offers():
    assert scan() == catalog.catalog()


def test_presets_know_their_device_and_its_parameters():
    assert catalog.device_class("ReRamArrayHfO2PresetDevice") == "SoftBoundsReferenceDevice"
    assert catalog.device_parameters("ReRamArrayHfO2PresetDevice")["dw_min"] == 0.4622
    assert "EcRamPresetDevice" not in catalog.presets_with("reference_std")


@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_default_settings_exist_in_the_compound(algorithm):
    assert set(DEFAULTS[algorithm].get("compound", ())) <= set(
        catalog.compound_parameters(algorithm)
    )
