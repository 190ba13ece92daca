"""Networks in a Python file of the user's own."""

from __future__ import annotations

import pytest
import torch

from analogtl.config.network_file import network_template
from analogtl.errors import ExperimentError
from analogtl.models.own import OwnNetwork, told_with_line
from analogtl.vocabulary import FileNetwork

TEMPLATE = network_template().read_text()
SIZES = {"n_classes": 3, "image_size": 8, "in_channels": 1}
HEAD = """\
from torch import nn

def build(n_classes, image_size, in_channels):
    body = nn.Sequential(nn.Flatten(), nn.Linear(image_size**2, 4))
    head = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, n_classes))
    return nn.Sequential(body, head), NAME
"""


BUILD = "from torch import nn\nimport torch\n\ndef build(n_classes, image_size, in_channels):\n"


def own(text: str, *, n_classes: int = 3, **kwargs) -> OwnNetwork:
    sizes = {**SIZES, "n_classes": n_classes}
    return OwnNetwork(FileNetwork("folder/net.py"), text, sizes, kwargs)


def test_the_template_is_built_from_the_seed_and_takes_its_kwargs():
    torch.manual_seed(1)
    first, after = own(TEMPLATE).build().state_dict(), torch.rand(1)
    torch.manual_seed(1)
    second = own(TEMPLATE).build().state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(after, torch.rand(1))
    assert own(TEMPLATE, width=5).build().features[0].out_channels == 5


@pytest.mark.parametrize("classes", [3, 5])
@pytest.mark.parametrize(
    ("text", "new"),
    [
        (TEMPLATE, {"head.weight", "head.bias"}),
        (HEAD.replace("NAME", "None"), {"1.1.weight", "1.1.bias"}),
        (
            HEAD.replace("NAME", "'1'"),
            {f"1.{n}.{part}" for n in "01" for part in ("weight", "bias")},
        ),
    ],
)
def test_a_new_head_is_drawn_and_the_rest_is_kept(text, new, classes):
    torch.manual_seed(1)
    trained = own(text).build()
    torch.manual_seed(2)
    found = own(text, n_classes=classes).with_new_head(trained)
    before, after = trained.state_dict(), found.state_dict()
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    assert changed == new
    assert found(torch.zeros(2, 1, 8, 8)).shape == (2, classes)


def test_a_network_without_a_head_is_refused():
    text = BUILD + "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))\n"
    with pytest.raises(ExperimentError, match=r"net\.py:4: .*no weight"):
        own(text).with_new_head(own(text).build())


def test_a_layer_that_the_head_leaves_out_is_named():
    text = HEAD.replace("NAME", "'0'")
    with pytest.raises(ExperimentError, match=r"1\.1\.weight"):
        own(text, n_classes=4).with_new_head(own(text).build())


NET = "class Net(nn.Module):\n    def forward(self, x):\n        return {}\n"
BAD = {
    "nothing": (BUILD + "    pass\n", 4, "nothing"),
    "no module": (BUILD + "    return [1]\n", 4, "list"),
    "no such head": (BUILD + "    return nn.Linear(4, 2), 'fc'\n", 4, "'fc'"),
    "an import that fails": ("import nowhere_x\n" + BUILD + "    pass\n", 1, "nowhere_x"),
    "an end of the program": ("import sys\nsys.exit(3)\n" + BUILD + "    pass\n", 2, "SystemExit"),
    "not Python": (BUILD + "    return (\n", 5, "not Python"),
    "other arguments": ("def build(classes):\n    pass\n", 1, "n_classes"),
    "no function": ("build = 3\n", 1, "function"),
    "an error in it": (BUILD + "    x = 1\n    return x.y\n", 6, "AttributeError"),
    "an end in it": (BUILD + "    raise SystemExit(3)\n", 5, "SystemExit"),
    "another shape": (BUILD + "    return nn.Flatten()\n", 4, r"\(1, 64\); expected \(1, 3\)"),
    "another type": (NET.format("[x]") + BUILD + "    return Net()\n", 7, "list"),
    "an error in a pass": (NET.format("x @ torch.ones(3)") + BUILD + "    return Net()\n", 3, "x"),
    "one image at a time": (
        NET.format("x.view(1, 64)[:, :3]") + BUILD + "    return Net()\n", 3, "size 128"
    ),
    "no gradient": (
        NET.format("x.flatten(1)[:, :3]") + BUILD + "    return Net()\n", 7, "gradient"
    ),
    "other random numbers": (
        "import random\n" + BUILD + "    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))\n"
        "    nn.init.constant_(net[1].bias, random.random())\n    return net\n",
        5,
        "1.bias",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "line", "word"), BAD.values(), ids=BAD)
def test_what_is_wrong_is_one_line_with_its_place(text, line, word):
    text = text.replace("class Net", "import torch\nfrom torch import nn\nclass Net", 1)
    line += 2 if "class Net" in text else 0
    with pytest.raises(ExperimentError, match=word) as caught:
        own(text).build()
    (problem,) = caught.value.problems
    assert problem.startswith(f"folder/net.py:{line}: ")


def test_an_error_elsewhere_stays_what_it_is():
    with pytest.raises(ZeroDivisionError), told_with_line():
        _ = 1 / 0


def test_dataclasses_and_annotations_work_in_a_file():
    text = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "from torch import nn\n@dataclass\nclass Sizes:\n    n: int = 64\n"
        "def build(n_classes, **_):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(Sizes().n, n_classes))\n"
    )
    assert own(text).build()[1].in_features == 64
