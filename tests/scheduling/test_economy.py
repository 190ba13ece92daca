"""What is done once is done once: experiments resolved, records read, modules imported."""

import functools
import subprocess
import sys
from pathlib import Path

import counting
import pytest
from command_line import call

from analogtl.scheduling import sweep

HEAVY = ("timm", "torchvision", "pandas", "matplotlib", "sympy", "sklearn", "torch._dynamo")


@pytest.fixture
def counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the counts of this process and its workers go."""
    file = tmp_path / "counts"
    file.touch()
    monkeypatch.setenv("ANALOGTL_COUNTS", str(file))
    function = functools.partial(sweep.run_trials, function=counting.FUNCTION)
    monkeypatch.setattr(sweep, "run_trials", function)
    return file


def test_a_fresh_trial_is_resolved_and_read_a_few_times_only(
    counted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], in_process: None
) -> None:
    settings = ["finetune.arms=analog-tl", "finetune.epochs=1", "pretrain.epochs=1"]
    settings += ["sweep.seeds=0", "model.architecture=mlp_digits"]
    chosen = [word for one in settings for word in ("--set", one)]
    assert call(capsys, "finetune", "quickstart", *chosen, "--runs", tmp_path / "runs").code == 0
    counts = counting.counts(counted)
    assert 1 <= counts["resolved"] <= 4
    assert 1 <= counts["record"] <= 2
    # Once more: it is done, and no worker starts.
    assert call(capsys, "finetune", "quickstart", *chosen, "--runs", tmp_path / "runs").code == 0
    again = counting.counts(counted) - counts
    assert again["record"] <= 1
    assert again["resolved"] <= 2


def test_a_worker_imports_nothing_heavy_that_its_trial_may_not_need() -> None:
    # timm is for its own networks, and not for those of this package.
    code = (
        "import sys, analogtl.training.run_trial\nfrom analogtl.models.build import build_model\n"
        "build_model('swin_digits', n_classes=3, image_size=8, in_channels=1)\n"
        f"print(*set(sys.modules) & set({HEAVY}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()) == (0, [])
