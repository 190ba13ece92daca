"""The small GPT and the denoisers: what they may see, and what of them arrays hold."""

import pytest
import torch

from analogtl.crossbar.survey import survey
from analogtl.errors import ExperimentError
from analogtl.models.build import build_model

TEXT = {"context": 16, "vocabulary": 256}


@pytest.fixture
def gpt():
    torch.manual_seed(0)
    return build_model("gpt_bytes", **TEXT).eval()


def test_no_token_sees_those_after_it(gpt):
    tokens = torch.arange(16)[None]
    changed = tokens.clone()
    changed[0, 10] = 99
    with torch.no_grad():
        before, after = gpt(tokens), gpt(changed)
    assert torch.equal(before[0, :10], after[0, :10])
    assert not torch.allclose(before[0, 10:], after[0, 10:])


def test_gpt_has_the_parameters_that_are_told():
    whole = build_model("gpt_bytes", context=64, vocabulary=256)
    assert sum(p.numel() for p in whole.parameters()) == 478_272


def test_arrays_hold_the_linear_layers_and_see_a_vector_for_each_token(gpt):
    found = survey(gpt, torch.zeros(2, 16, dtype=torch.int64))
    assert len(found.arrays) == 16
    assert {one.vectors for one in found.arrays.values()} == {16}
    assert [part.name for part in found.digital] == ["embedding"]


def test_a_head_of_its_own_goes_onto_an_array():
    model = build_model("gpt_bytes", kwargs={"tied": False}, **TEXT)
    found = survey(model, torch.zeros(2, 16, dtype=torch.int64))
    assert "head" in found.arrays
    assert not found.digital


def test_the_published_score_network_is_2_14_14_2_and_all_of_it_is_on_arrays():
    found = survey(build_model("denoiser_2d", features=2), torch.zeros(2, 3))
    assert [one.weights for one in found.arrays.values()] == [2 * 14, 14 * 14, 14 * 2]
    assert {one.vectors for one in found.arrays.values()} == {1}
    assert found.share_on_arrays == 1


def test_a_denoiser_is_told_the_time():
    model = build_model("denoiser_digits", features=64).eval()
    x = torch.zeros(3, 65)
    x[:, 0] = torch.tensor([0.1, 0.5, 0.9])
    with torch.no_grad():
        out = model(x)
    assert not torch.allclose(out[0], out[1])
    assert not torch.allclose(out[1], out[2])


def test_sizes_that_do_not_fit_are_one_line():
    with pytest.raises(ExperimentError, match="heads 5"):
        build_model("gpt_bytes", kwargs={"heads": 5}, **TEXT)
    with pytest.raises(ExperimentError, match="context"):
        build_model("gpt_bytes", kwargs={"context": 8}, **TEXT)
