"""Run aihwkit's own tests of tiles and layers on the fast tile.

    python tests/tools/aihwkit_tests.py [TESTS] [--verbose]

TESTS is the ``tests`` folder of aihwkit, or a source distribution of it (got by ``pip download
--no-binary aihwkit --no-deps aihwkit==1.1.0``); without it, the folder that aihwkit's wheel
installs is taken. Nothing is copied into this repository: the tests run from a temporary folder.

aihwkit's tests take tiles and layers from a package ``helpers`` that is in neither distribution.
The one written here offers one tile only: a c-TTv2 compound of soft-bounds devices, once on
aihwkit's engine and once on the fast one. Every test thus runs twice, and is listed as

    passes                 on both
    does not apply         fails or is skipped on aihwkit's own c-TTv2 tile as well
    fast only fails        what there is to explain
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections import defaultdict
from pathlib import Path

# Files with tests of tiles or layers; the others are about the cloud, experiments, inference.
FILES = (
    "test_simulator_tiles.py",
    "test_rpu_configurations.py",
    "test_specific_tiles.py",
    "test_layers.py",
    "test_layers_linear.py",
    "test_layers_convolution.py",
    "test_layers_mapped.py",
    "test_layers_rnn.py",
    "test_layer_base.py",
    "test_optimizers.py",
    "test_utils.py",
)

# What fails on the fast tile alone, and why.
EXPLAINED = {
    "test_construction_seed": "two tiles of one configuration get devices of their own, on purpose",
    "test_set_hidden_parameters": "refused: slopes that do not belong to soft bounds",
    "test_set_hidden_update_index": "skips a tile that is not a C++ tile",
}

HELPERS = {
    "__init__.py": "",
    "testcases.py": """
from unittest import TestCase
from numpy.testing import assert_array_almost_equal, assert_raises

SKIP_CUDA_TESTS = True


class AihwkitTestCase(TestCase):
    def assertTensorAlmostEqual(self, a, b, decimal=4):
        a, b = (v.detach().cpu().numpy() for v in (a, b))
        assert_array_almost_equal(a, b, decimal=decimal)

    def assertNotAlmostEqualTensor(self, a, b, decimal=4):
        assert_raises(AssertionError, self.assertTensorAlmostEqual, a, b, decimal=decimal)


class ParametrizedTestCase(AihwkitTestCase):
    use_cuda = False
    simulator_tile_class = None
    first_hidden_field = None
    bias = False
    digital_bias = False
    parameter = ""

    def get_cuda_decimal(self, *_, **__):
        return 6
""",
    "tiles.py": '''
import os
from aihwkit.simulator.configs import UnitCellRPUConfig
from aihwkit.simulator.configs.compounds import ChoppedTransferCompound
from aihwkit.simulator.configs.devices import SoftBoundsDevice
from aihwkit.simulator.configs.configs import (
    QuantizedTorchInferenceRPUConfig, TorchInferenceRPUConfig,
)
from aihwkit.simulator.parameters import IOParameters
from aihwkit.simulator.rpu_base import tiles
from aihwkit.simulator.tiles.analog import AnalogTile
from analogtl.fastsim import FastTile, fast_rpu_config
from analogtl.fastsim.pulsed import PulsedTile

FAST = os.environ["ENGINE"] == "fast"


class CTTv2:
    simulator_tile_class = PulsedTile if FAST else tiles.AnalogTile
    first_hidden_field = "max_bound_0"
    use_cuda = False

    def get_rpu_config(self, **kwargs):
        devices = [SoftBoundsDevice(w_max_dtod=0, w_min_dtod=0) for _ in range(2)]
        compound = ChoppedTransferCompound(
            unit_cell_devices=devices,
            transfer_forward=IOParameters(is_perfect=True),
            transfer_every=1,
            units_in_mbatch=False,
        )
        config = UnitCellRPUConfig(device=compound, **kwargs)
        return fast_rpu_config(config, seed=1) if FAST else config

    def get_tile(self, out_size, in_size, rpu_config=None, **kwargs):
        rpu_config = rpu_config or self.get_rpu_config()
        return (FastTile if FAST else AnalogTile)(out_size, in_size, rpu_config, **kwargs)


class Other:
    """A tile of another kind."""


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    pulsed = ("ConstantStep", "SoftBounds", "SoftBoundsReference", "BufferedTransfer", "Transfer")
    return CTTv2 if name in pulsed else Other
''',
    "layers.py": """
import inspect
from functools import partial
import torch
import aihwkit.nn as nn


def _layer(make, native="RNN", **defaults):
    names = list(inspect.signature(make).parameters)

    class Kind:
        use_cuda = False

        def get_layer(self, *args, **kwargs):
            own = {"rpu_config": self.get_rpu_config(), "bias": self.bias}
            given = {**defaults, **own, **dict(zip(names, args)), **kwargs}
            given["rpu_config"].mapping.digital_bias = self.digital_bias
            return make(**given)

        def get_native_layer_comparison(self, *args, **kwargs):
            return getattr(torch.nn, native)(*args, **kwargs)

    return Kind


_linear = partial(_layer, in_features=3, out_features=4)
_conv = partial(_layer, in_channels=2, out_channels=3, kernel_size=4, padding=2)


def _rnn(cell, native="RNN"):
    return _layer(partial(nn.AnalogRNN, cell), native, input_size=2, hidden_size=3)


Linear, LinearMapped = _linear(nn.AnalogLinear), _linear(nn.AnalogLinearMapped)
Conv1d, Conv2d, Conv3d = map(_conv, (nn.AnalogConv1d, nn.AnalogConv2d, nn.AnalogConv3d))
Conv1dMapped, Conv2dMapped, Conv3dMapped = map(
    _conv, (nn.AnalogConv1dMapped, nn.AnalogConv2dMapped, nn.AnalogConv3dMapped)
)
LSTM, GRU = _rnn(nn.AnalogLSTMCell, "LSTM"), _rnn(nn.AnalogGRUCell, "GRU")
VanillaRNN = _rnn(nn.AnalogVanillaRNNCell)
LSTMCombinedWeight = _rnn(nn.AnalogLSTMCellCombinedWeight)


def __getattr__(name):
    if name.endswith("Cuda"):
        return None
    raise AttributeError(name)
""",
    "decorators.py": """
import sys
from unittest import skip
from .tiles import CTTv2


def _members(cls):
    return {k: v for k, v in vars(cls).items() if not k.startswith("_")}


def _classes(base, variants):
    module = sys.modules[base.__module__]
    for name, values in variants.items():
        setattr(module, f"{base.__name__}_{name}",
                type(f"{base.__name__}_{name}", (base,),
                     {"__module__": base.__module__, "__test__": True, **values}))
    base.__test__ = False
    return base


def parametrize_over_tiles(tiles):
    def decorate(base):
        if CTTv2 not in tiles:
            return skip("not about tiles of pulsed devices")(base)
        return _classes(base, {"CTTv2": {**_members(CTTv2), "parameter": "CTTv2"}})

    return decorate


def parametrize_over_layers(layers, tiles, biases):
    def decorate(base):
        variants = {}
        for i, layer in enumerate(layers):
            for bias in biases:
                if layer is None:
                    continue
                variants[f"{i}_{bias}"] = {
                    **_members(layer),
                    "get_rpu_config": CTTv2.get_rpu_config,
                    "tile_class": CTTv2,
                    "bias": bias in ("analog", "digital"),
                    "digital_bias": bias == "digital",
                    "parameter": f"{i}_{bias}",
                }
        return _classes(base, variants)

    return decorate


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return lambda *_, **__: (lambda base: skip("not about tiles")(base))
""",
}


def find_tests(given: Path | None, folder: Path) -> Path:
    """The folder with aihwkit's tests; a source distribution is unpacked into ``folder``."""
    path = given or Path(sys.prefix) / "tests"
    if path.suffix == ".gz":
        with tarfile.open(path) as archive:
            archive.extractall(folder / "source", filter="data")
        path = next((folder / "source").glob("*/tests"))
    if not (path / FILES[0]).is_file():
        raise SystemExit(f"{path}: expected aihwkit's tests, for instance {FILES[0]}")
    return path


def run(folder: Path, engine: str) -> dict[str, tuple[str, str]]:
    """Run the tests in ``folder`` on one engine: test -> (outcome, last line of the message)."""
    report = folder / f"{engine}.json"
    (folder / "conftest.py").write_text(
        "import json\n"
        "found = {}\n"
        "def pytest_runtest_logreport(report):\n"
        "    if report.when == 'call' or report.outcome != 'passed':\n"
        "        text = report.longreprtext.strip().splitlines()\n"
        "        lines = [t for t in text if t.startswith('E ')] or text[-1:] or ['']\n"
        "        found[report.nodeid] = (report.outcome, lines[-1])\n"
        "def pytest_sessionfinish():\n"
        f"    json.dump(found, open({str(report)!r}, 'w'))\n"
    )
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "ENGINE": engine, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull]
    command += ["--rootdir", str(folder), str(folder / "aihwkit_tests")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    found = json.loads(report.read_text()) if report.is_file() else {}
    if not found:
        raise SystemExit(done.stdout[-3000:] + done.stderr[-3000:])
    return {k: tuple(v) for k, v in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tests", nargs="?", type=Path)
    parser.add_argument("--verbose", action="store_true", help="list every test")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = find_tests(arguments.tests, folder)
        package = folder / "aihwkit_tests"
        (package / "helpers").mkdir(parents=True)
        (package / "__init__.py").write_text("")
        for file in FILES:
            if (source / file).is_file():
                shutil.copy(source / file, package)
        for file, text in HELPERS.items():
            (package / "helpers" / file).write_text(text)
        stock, fast = run(folder, "aihwkit"), run(folder, "fast")
    groups: dict[str, list[str]] = defaultdict(list)
    for test in sorted(stock.keys() | fast.keys()):
        a, b = stock.get(test, ("missing", "")), fast.get(test, ("missing", ""))
        short = re.sub(r"^.*?(test_\w+\.py)", r"\1", test)
        if b[0] == "passed":
            group = "passes" if a[0] == "passed" else "passes on the fast tile only"
            groups[group].append(short)
        elif a[0] != "passed":
            groups["does not apply"].append(f"{short}: {a[1].strip()[:110]}")
        else:
            groups["fast only fails"].append(f"{short}: {b[1].strip()[:160]}")
    for group, tests in groups.items():
        print(f"\n{group}: {len(tests)}")
        if group == "fast only fails":
            for t in tests:
                why = EXPLAINED.get(t.split(": ", 1)[0].rsplit("::", 1)[-1], "NOT EXPLAINED")
                print(f"  {t}\n      {why}")
        elif arguments.verbose:
            print("\n".join(f"  {t}" for t in tests))
        elif group == "does not apply":
            print(f"  {sum('Skipped' in t for t in tests)} skipped, the rest fails alike on both:")
            print("  they expect the numbers of floating-point or inference tiles")


if __name__ == "__main__":
    main()
