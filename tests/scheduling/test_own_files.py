"""A network, a rule, a device and weights in files of one's own, on every backend."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import fake_slurm
import pytest
import torch

from analogtl.config.network_file import network_template
from analogtl.config.rule_file import shipped_rules
from analogtl.models.template import build
from analogtl.scheduling.sweep import run_trials
from analogtl.study.study import Study
from analogtl.study.tables import read_rows

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
EXPERIMENT = """\
name = "own"
[model]
file = "net.py"
kwargs = { width = 2 }
weights = "net.pt"
[analog]
algorithm = "mine.py:Rule"
[analog.device]
file = "measured.toml"
[pretrain]
epochs = 0
[finetune]
classes = [3, 4, 5]
samples_per_class = 20
epochs = 1
arms = ["digital-tl", "analog-tl"]
"""
DEVICE = 'class = "SoftBoundsReferenceDevice"\n[parameters]\ndw_min = 0.02\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An experiment with files of its own beside it, and its trials as this process runs them."""
    here = tmp_path / "mine"
    here.mkdir()
    rule = next(file for file in shipped_rules() if file.stem == "c_ttv2")
    shutil.copy(network_template(), here / "net.py")
    shutil.copy(rule, here / "mine.py")
    (here / "measured.toml").write_text(DEVICE)
    (here / "exp.toml").write_text(EXPERIMENT)
    torch.manual_seed(3)
    torch.save(build(3, 8, 1, width=2).state_dict(), here / "net.pt")
    return here


def epochs_of(study: Study, **how: Any) -> list[dict[str, str]]:
    """The epochs of a study's trials, without what the clock decides."""
    updates = list(run_trials(study, **how))
    assert [update.text for update in updates if update.kind == "failed"] == []
    rows = read_rows(study.run.path / "epochs.csv")
    return [{name: cell for name, cell in row.items() if name != "wall_s"} for row in rows]


@pytest.mark.parametrize("backend", ["slurm", "ray"])
def test_files_of_ones_own_go_along_to_where_trials_run(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    if backend == "slurm":
        pytest.importorskip("submitit")
        commands = fake_slurm.install(tmp_path / "slurm-commands")
        monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
    else:
        pytest.importorskip("ray")
    monkeypatch.chdir(folder)
    here = Study.open("exp.toml", root=tmp_path / "local")
    there = Study.open("exp.toml", root=tmp_path / backend)
    own = here.trials[1].experiment
    assert own.analog.array_device.parameters["dw_min"] == 0.02
    assert all(map(os.path.isabs, own.model.weight_files.values())), "found from elsewhere"
    expected = epochs_of(here, jobs=1)
    for file in ("net.py", "mine.py", "measured.toml"):
        (folder / file).write_text("nonsense")  # what was planned is what runs
    assert epochs_of(there, jobs=1, backend=backend) == expected
    assert {row["arm"] for row in expected} >= {"digital-tl", "analog-tl"}
