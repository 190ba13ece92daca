"""Tasks: what is read, which classes, how it is split, and what a batch holds."""

import hashlib
import os
import socket
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_cifar import (
    CIFAR10_NAMES,
    CIFAR100_NAMES,
    cifar10_files,
    cifar100_files,
    write_archive,
    write_folder,
)
from PIL import Image

from analogtl.errors import ExperimentError
from analogtl.tasks import sources
from analogtl.tasks.images import ImageTask, Split, load_task


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with both fake CIFARs: one as an archive, the other extracted."""
    root = tmp_path / "data"
    root.mkdir()
    write_archive(cifar10_files(), "cifar-10-batches-py", root / "cifar-10-python.tar.gz")
    write_folder(cifar100_files(), root / "cifar-100-python")
    return root


@pytest.fixture
def no_download(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("offline")

    monkeypatch.setattr("urllib.request.urlopen", refuse)


def problems_of(**arguments: Any) -> list[str]:
    """What loading such a task fails with, a line each."""
    with pytest.raises(ExperimentError) as error:
        load_task(**arguments)
    return error.value.problems


def problem_of(**arguments: Any) -> str:
    """The one line that loading such a task fails with."""
    (problem,) = problems_of(**arguments)
    assert "\n" not in problem
    return problem


def first_pixels(split: Split) -> list[int]:
    """The fake images' first pixel tells their label in the full set."""
    return (split.images[:, 0, 0, 0] // 10).tolist()


def test_cifar10_is_read_whole_and_in_order(root: Path) -> None:
    task = load_task("cifar10", root=root)
    files = cifar10_files()
    expected = np.concatenate([files[f"data_batch_{i}"]["data"] for i in range(1, 6)])
    np.testing.assert_array_equal(task.train.images.flatten(1).numpy(), expected)
    assert task.train.images.dtype == torch.uint8
    assert task.train.images.shape == (75, 3, 32, 32)
    assert task.train.labels.dtype == torch.int64
    assert task.train.labels.tolist() == first_pixels(task.train)
    assert (len(task.train), len(task.validation), len(task.test)) == (75, 0, 20)
    assert task.class_names == tuple(CIFAR10_NAMES)
    assert (task.n_classes, task.in_channels, task.image_size) == (5, 3, 32)


def test_folder_archive_and_any_way_to_point_at_them_give_the_same_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = cifar100_files()
    folder = write_folder(files, tmp_path / "a" / "cifar-100-python")
    (tmp_path / "b").mkdir()
    archive = write_archive(files, folder.name, tmp_path / "b" / "cifar-100-python.tar.gz")
    tasks = [
        load_task("cifar100", root=place)
        for place in (folder, folder.parent, archive, archive.parent)
    ]
    monkeypatch.setenv("ANALOGTL_DATA", str(tmp_path / "a"))
    tasks.append(load_task("cifar100"))
    monkeypatch.delenv("ANALOGTL_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "a").rename(tmp_path / "analogtl")
    tasks.append(load_task("cifar100"))
    assert len({task.fingerprint for task in tasks}) == 1
    write_archive(cifar100_files((0, 1, 2)), folder.name, archive)  # a changed copy is read again
    assert load_task("cifar100", root=archive).n_classes == 3


@pytest.mark.parametrize(
    ("classes", "names"),
    [
        (None, ["apple", "aquarium_fish", "baby", "bear", "beaver", "bee"]),
        (2, ["apple", "aquarium_fish"]),
        (6, ["apple", "aquarium_fish", "baby", "bear", "beaver", "bee"]),  # bed is absent
        (["bear", "apple"], ["bear", "apple"]),
        ([6, "apple"], ["bee", "apple"]),
        ("superclass:people", ["apple", "baby"]),
        (["superclass:people", "bee", "beasts"], ["apple", "baby", "bee", "bear"]),
    ],
)
def test_classes_by_count_name_number_and_superclass(
    root: Path, classes: Any, names: list[str]
) -> None:
    task = load_task("cifar100", root=root, classes=classes)
    assert list(task.class_names) == names
    for split in (task.train, task.test):
        expected = [CIFAR100_NAMES.index(task.class_names[i]) for i in split.labels.tolist()]
        assert first_pixels(split) == expected
        assert set(split.labels.tolist()) == set(range(len(names)))


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        (["bare", "apple"], "'bear'"),
        (["superclass:peoples", "bee"], "'superclass:people'"),
        (["qqq", "apple"], "apple, aquarium_fish, "),
        (["bed", "apple"], "bed is"),
        ([5, "apple"], "bed is"),
        ([99, "apple"], "0 to 6"),
        (["apple", "apple", "bee"], ": apple given"),
        (["apple", "superclass:people"], ": apple given"),
        (["apple"], " is apple"),
        ([], " is none"),
        (1, "1 given"),
        (-2, "-2 given"),
        (7, " 6, "),
        (True, "True is"),
        ([1.5, "apple"], "1.5 is"),
    ],
)
def test_classes_that_cannot_be_chosen(root: Path, classes: Any, expected: str) -> None:
    problem = problem_of(dataset="cifar100", root=root, classes=classes)
    assert ": classes: " in problem
    assert expected in problem


def test_all_wrong_classes_are_reported_at_once(root: Path) -> None:
    found = problems_of(dataset="cifar100", root=root, classes=["bare", "bed", 70])
    assert len(found) == 3


def test_limits_keep_so_many_of_each_class_by_seed_for_training_images_only(root: Path) -> None:
    tasks = [
        load_task("cifar100", root=root, samples_per_class=4, test_samples_per_class=3, seed=seed)
        for seed in (0, 0, 1)
    ]
    assert torch.bincount(tasks[0].train.labels).tolist() == [4] * 6
    assert torch.bincount(tasks[0].test.labels).tolist() == [3] * 6
    assert len(torch.unique(tasks[0].train.images.flatten(1), dim=0)) == 24
    assert torch.equal(tasks[0].train.images, tasks[1].train.images)
    assert not torch.equal(tasks[0].train.images, tasks[2].train.images)
    assert torch.equal(tasks[0].test.images, tasks[2].test.images)
    assert len(load_task("cifar100", root=root, samples_per_class=1000).train) == 60


def test_validation_is_carved_class_by_class_by_seed(root: Path) -> None:
    tasks = [
        load_task("cifar100", root=root, validation_fraction=0.3, seed=seed) for seed in (0, 0, 1)
    ]
    whole = load_task("cifar100", root=root)
    for task in tasks:
        assert torch.bincount(task.validation.labels).tolist() == [3] * 6
        assert torch.bincount(task.train.labels).tolist() == [7] * 6
        parts = torch.cat([task.train.images, task.validation.images]).flatten(1)
        assert torch.equal(
            torch.unique(parts, dim=0), torch.unique(whole.train.images.flatten(1), dim=0)
        )
        assert torch.equal(task.test.images, whole.test.images)
    assert tasks[0].fingerprint == tasks[1].fingerprint != tasks[2].fingerprint
    least = load_task("cifar100", root=root, validation_fraction=0.01)
    assert torch.bincount(least.validation.labels).tolist() == [1] * 6


def test_a_class_with_nothing_left_to_train_on(root: Path) -> None:
    problem = problem_of(
        dataset="cifar100", root=root, samples_per_class=1, validation_fraction=0.5
    )
    assert "validation_fraction 0.5" in problem


def test_mean_and_std_are_those_of_the_training_images(root: Path) -> None:
    task = load_task("cifar10", root=root, validation_fraction=0.2)
    pixels = task.train.images.double() / 255
    assert task.mean == pytest.approx(pixels.mean(dim=(0, 2, 3)).tolist(), rel=1e-5)
    assert task.std == pytest.approx(pixels.std(dim=(0, 2, 3), correction=0).tolist(), rel=1e-5)


def test_images_are_resized_on_request(root: Path) -> None:
    task = load_task("cifar10", root=root, image_size=16)
    assert task.train.images.shape == (75, 3, 16, 16)
    assert task.train.images.dtype == torch.uint8
    whole = load_task("cifar10", root=root)
    difference = task.train.images.float().mean() - whole.train.images.float().mean()
    assert abs(difference) < 0.5


def test_digits_need_no_files_and_keep_every_image() -> None:
    task = load_task("digits")
    assert len(task.train) + len(task.test) == 1797
    assert task.train.images.shape[1:] == (1, 8, 8)
    assert (task.train.images.min(), task.train.images.max()) == (0, 255)
    assert len(torch.unique(task.train.images)) == 17
    shares = torch.bincount(task.test.labels) / torch.bincount(task.train.labels)
    assert ((shares > 0.23) & (shares < 0.26)).all()
    fine = load_task("digits", classes=[5, "6", 7, 8, 9], seed=3)
    assert fine.class_names == ("5", "6", "7", "8", "9")
    keep = task.test.labels >= 5
    assert torch.equal(fine.test.images, task.test.images[keep])


def test_unknown_data_set() -> None:
    assert "'cifar10'" in problem_of(dataset="cifar_10")
    assert "image_folder" in problem_of(dataset="zzz")


@pytest.mark.usefixtures("no_download")
def test_without_data_and_network_one_line_names_the_places_and_the_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ANALOGTL_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for download in (True, False):
        problem = problem_of(dataset="cifar10", download=download)
        assert str(tmp_path / "analogtl" / "cifar-10-batches-py") in problem
        assert str(tmp_path / "analogtl" / "cifar-10-python.tar.gz") in problem
        assert "[data] root" in problem
        assert "ANALOGTL_DATA" in problem
        assert ("(offline)" in problem) == download
    assert not list(tmp_path.rglob("*.part"))
    problem = problem_of(dataset="cifar10", root=tmp_path / "mistyped")
    assert str(tmp_path / "mistyped") in problem
    assert not (tmp_path / "mistyped").exists()


def test_cifar_is_found_in_the_shared_folders_where_root_is_a_folder_of_images(
    tmp_path: Path, root: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANALOGTL_DATA", str(root))
    assert len(load_task("cifar10", root=images, download=False).train) == 75
    monkeypatch.setenv("ANALOGTL_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    root.rename(tmp_path / "analogtl")
    assert len(load_task("cifar10", root=images, download=False).train) == 75
    assert str(tmp_path / "gone") in problem_of(dataset="cifar10", root=tmp_path / "gone")


def test_an_absent_archive_is_downloaded_once_and_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = write_archive(cifar10_files(), "cifar-10-batches-py", tmp_path / "served")
    monkeypatch.setenv("ANALOGTL_DATA", str(tmp_path / "cache"))
    monkeypatch.setattr(sources._Cifar, "url", served.as_uri())
    assert "checksum" in problem_of(dataset="cifar10")
    assert {path.suffix for path in (tmp_path / "cache").iterdir()} == {".lock"}

    right = hashlib.sha256(served.read_bytes()).hexdigest()
    spec = replace(sources.CIFAR["cifar10"], sha256=right)
    monkeypatch.setitem(sources.CIFAR, "cifar10", spec)
    assert len(load_task("cifar10").train) == 75
    served.unlink()
    assert len(load_task("cifar10").train) == 75


def spoilt(**changes: Any) -> dict[str, Any]:
    return cifar100_files() | changes


def train(**changes: Any) -> dict[str, Any]:
    content = cifar100_files()["train"] | changes
    return {key: value for key, value in content.items() if value is not None}


SPOILT = {
    "cut pickle": (spoilt(train=b"\x80\x02}U\x04da"), "train: not"),
    "hostile pickle": (spoilt(test=b"cos\nsystem\n(S'id'\ntR."), "refused"),
    "a list": (spoilt(train=[1]), "a list"),
    "no data": (spoilt(train=train(data=None)), "3072"),
    "narrow": (spoilt(train=train(data=np.zeros((60, 3), np.uint8))), "3072"),
    "floats": (spoilt(train=train(data=np.zeros((60, 3072), np.float32))), "uint8"),
    "no labels": (spoilt(train=train(fine_labels=None)), "fine_labels"),
    "few labels": (spoilt(train=train(fine_labels=[1])), "fine_labels"),
    "high label": (spoilt(train=train(fine_labels=[7] * 60)), "0 to 6"),
    "text labels": (spoilt(train=train(fine_labels=["1"] * 60)), "fine_labels"),
    "no coarse": (spoilt(train=train(coarse_labels=None)), "coarse_labels"),
    "no names": (spoilt(meta={"fine_label_names": "apple"}), "fine_label_names"),
}


@pytest.mark.parametrize(("files", "expected"), SPOILT.values(), ids=SPOILT)
def test_wrong_content_is_one_line(tmp_path: Path, files: dict[str, Any], expected: str) -> None:
    place = write_folder(files, tmp_path / "cifar-100-python")
    problem = problem_of(dataset="cifar100", root=tmp_path)
    assert " cifar100: " in problem
    assert str(place) in problem
    assert expected in problem


@pytest.mark.parametrize("dataset", ["cifar10", "image_folder"])
def test_places_that_the_system_refuses_are_one_line(dataset: str) -> None:
    problem = problem_of(dataset=dataset, root=Path("x" * 5000))
    assert f" {dataset}: cannot read" in problem
    assert "xxx" in problem


# --- image folders


def write_image(path: Path, size: tuple[int, int] = (20, 20), color: Any = (200, 100, 50)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """train/ and test/ of two classes: reddish cats, bluish dogs, of many sizes and formats."""
    for part, count in (("train", 6), ("test", 3)):
        for i in range(count):
            suffix = ("png", "jpg", "JPEG")[i % 3]
            write_image(tmp_path / part / "dog" / f"{i}.{suffix}", (30 + i, 20), (0, 0, 200 + i))
            write_image(tmp_path / part / "cat" / f"{i}.{suffix}", (20, 30 + i), (200 + i, 0, 0))
    (tmp_path / "train" / "cat" / ".hidden.png").write_bytes(b"")
    (tmp_path / "train" / "cat" / "notes.txt").write_text("not an image")
    return tmp_path


def test_an_image_folder_with_train_and_test(images: Path) -> None:
    task = load_task("image_folder", root=images, image_size=16)
    assert task.class_names == ("cat", "dog")
    assert task.train.images.shape == (12, 3, 16, 16)
    assert len(task.test) == 6
    for split in (task.train, task.test):
        red, _, blue = split.images.float().mean(dim=(2, 3)).T
        assert torch.equal(split.labels, (blue > red).long())
    assert load_task("image_folder", root=images).image_size == 32
    assert load_task("image_folder", root=images, classes=["dog", "cat"]).class_names[0] == "dog"


def test_val_is_the_test_set_if_alone_and_validation_data_beside_one(images: Path) -> None:
    (images / "test").rename(images / "val")
    task = load_task("image_folder", root=images)
    assert (len(task.train), len(task.validation), len(task.test)) == (12, 0, 6)
    for i in range(2):
        write_image(images / "test" / "cat" / f"{i}.png")
        write_image(images / "test" / "dog" / f"{i}.png")
    task = load_task("image_folder", root=images, validation_fraction=0.5)
    assert (len(task.train), len(task.validation), len(task.test)) == (12, 6, 4)


def test_one_level_of_class_folders_is_split(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for i in range(10):
            write_image(tmp_path / name / f"{i}.png", color=(i * 20, 0, 0))
    tasks = [load_task("image_folder", root=tmp_path, seed=seed) for seed in (0, 1)]
    for task in tasks:
        assert torch.bincount(task.train.labels).tolist() == [8, 8]
        assert torch.bincount(task.test.labels).tolist() == [2, 2]
    assert tasks[0].fingerprint == tasks[1].fingerprint


def test_images_of_every_kind_become_rgb(tmp_path: Path) -> None:
    grey16 = np.full((8, 8), 128 * 257, dtype=np.uint16)
    kinds = {
        "grey": Image.new("L", (8, 8), 128),
        "grey16": Image.fromarray(grey16),
        "palette": Image.new("RGB", (8, 8), (128, 128, 128)).quantize(),
        "alpha": Image.new("RGBA", (8, 8), (128, 128, 128, 255)),
        "rgb": Image.new("RGB", (8, 8), (128, 128, 128)),
    }
    for name, image in kinds.items():
        for part in ("train", "test"):
            (tmp_path / part / name).mkdir(parents=True)
            image.save(tmp_path / part / name / "0.png")
    task = load_task("image_folder", root=tmp_path, image_size=8)
    assert (task.train.images.int() - 128).abs().max() <= 2


def test_image_folders_that_cannot_be_used(tmp_path: Path, images: Path) -> None:
    def problem(root: Path | None) -> str:
        return problem_of(dataset="image_folder", root=root)

    assert "[data] root" in problem(None)
    assert "0.png is" in problem(images / "train" / "cat" / "0.png")
    write_image(tmp_path / "one" / "cat" / "0.png")
    assert "folder (cat)" in problem(tmp_path / "one")
    (images / "train" / "emu").mkdir()
    assert ": emu in" in problem(images)
    (images / "test" / "emu").mkdir()
    assert "class emu" in problem(images)
    assert load_task("image_folder", root=images, classes=["cat", "dog"]).n_classes == 2
    (images / "test").rename(images / "elsewhere")
    assert " test/ " in problem(images)
    for i in range(5):
        write_image(tmp_path / "few" / "a" / f"{i}.png")
    write_image(tmp_path / "few" / "b" / "0.png")
    assert problem(tmp_path / "few").endswith(" of b")


def test_every_unreadable_image_is_named_up_to_a_number(images: Path) -> None:
    (images / "train" / "cat" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n garbage")
    (images / "train" / "dog" / "text.jpg").write_text("hello")
    whole = (images / "train" / "dog" / "0.png").read_bytes()
    (images / "train" / "dog" / "cut.png").write_bytes(whole[: len(whole) // 2])
    os.mkfifo(images / "train" / "dog" / "pipe.png")
    (line,) = problems_of(dataset="image_folder", root=images)
    assert "pipe.png" in line
    (images / "train" / "dog" / "pipe.png").unlink()
    lines = problems_of(dataset="image_folder", root=images)
    assert len(lines) == 3
    assert all("readable image" in line for line in lines)
    for i in range(20):
        (images / "train" / "dog" / f"bad{i}.png").write_text("")
    lines = problems_of(dataset="image_folder", root=images)
    assert len(lines) == 11
    assert "and 13 more" in lines[-1]


def test_every_format_that_pillow_decodes_is_read_in_sub_folders_too(tmp_path: Path) -> None:
    suffixes = ("png", "jpg", "bmp", "webp", "tiff", "gif", "ppm", "jp2", "tga", "ico")
    for name, color in (("a", (250, 0, 0)), ("b", (0, 0, 250))):
        for i, suffix in enumerate(suffixes):
            folder = ("", "one", "two/three")[i % 3]
            write_image(tmp_path / name / folder / f"{i}.{suffix}", (16, 16), color)
    task = load_task("image_folder", root=tmp_path, image_size=16)
    assert (len(task.train), len(task.test)) == (16, 4)
    for split in (task.train, task.test):
        blue = split.images[:, 2].float().mean(dim=(1, 2))
        assert torch.equal(split.labels, (blue > 128).long())


@pytest.mark.parametrize("name", ["valid", "validation", "Val"])
def test_validation_data_has_several_names(images: Path, name: str) -> None:
    (images / "train").rename(images / "Training")
    for label in ("cat", "dog"):
        write_image(images / name / label / "0.png")
    task = load_task("image_folder", root=images, validation_fraction=0.5)
    assert (len(task.train), len(task.validation), len(task.test)) == (12, 2, 6)
    (images / "val-2").mkdir()
    (images / "test").rename(images / "val-2" / "test")
    assert len(load_task("image_folder", root=images).test) == 2


def test_two_folders_for_one_split_are_refused(images: Path) -> None:
    for name in ("val", "valid"):
        write_image(images / name / "cat" / "0.png")
        write_image(images / name / "dog" / "0.png")
    assert "valid/" in problem_of(dataset="image_folder", root=images)


def test_a_link_upwards_brings_no_image_of_another_class(images: Path) -> None:
    before = load_task("image_folder", root=images).fingerprint
    (images / "train" / "cat" / "loop").symlink_to(images, target_is_directory=True)
    (images / "train" / "cat" / "itself").symlink_to(".", target_is_directory=True)
    assert load_task("image_folder", root=images).fingerprint == before


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as end:
        # A socket's path has a hundred characters at most.
        folder = os.open(path.parent, os.O_RDONLY)
        end.bind(f"/proc/self/fd/{folder}/{path.name}")
        os.close(folder)


@pytest.mark.parametrize("make", [os.mkfifo, device, dangling, listening])
def test_what_is_no_file_is_refused_unopened(images: Path, make: Callable[[Path], None]) -> None:
    make(images / "train" / "dog" / "7.png")
    assert "7.png" in problem_of(dataset="image_folder", root=images)


def with_size(path: Path, width: int, height: int) -> None:
    """Make a PNG claim another size."""
    content = bytearray(path.read_bytes())
    content[16:24] = struct.pack(">II", width, height)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(content)


@pytest.mark.parametrize("size", [(9000, 9000), (12_000, 12_000), (2**31 - 1, 2**31 - 1)])
def test_an_image_that_claims_to_be_huge_is_refused_undecoded(
    images: Path, size: tuple[int, int], recwarn: pytest.WarningsRecorder
) -> None:
    with_size(images / "train" / "cat" / "0.png", *size)
    tracemalloc.start()
    assert "cat/0.png" in problem_of(dataset="image_folder", root=images)
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()
    assert not recwarn


@pytest.mark.parametrize("pixels", [np.float32(0.5), np.int32(70_000)])
def test_pixels_of_unknown_scale_are_refused(images: Path, pixels: Any) -> None:
    Image.fromarray(np.full((8, 8), pixels)).save(images / "train" / "cat" / "0.tiff")
    assert "0.tiff" in problem_of(dataset="image_folder", root=images)


def test_too_few_test_images_are_refused_unless_asked(images: Path, root: Path) -> None:
    assert "data.min_test_images = 6" in problem_of(
        dataset="image_folder", root=images, min_test_images=7
    )
    assert len(load_task("image_folder", root=images, min_test_images=6).test) == 6
    # of the chosen classes; and fewer where the experiment asks for fewer
    few = {"dataset": "cifar10", "root": root, "min_test_images": 9}
    assert "8 test images" in problem_of(classes=2, **few)
    assert len(load_task(classes=3, test_samples_per_class=1, **few).test) == 3


# --- batches


@pytest.fixture
def task(root: Path) -> ImageTask:
    return load_task("cifar10", root=root)


def served(task: ImageTask, **arguments: Any) -> list[tuple[torch.Tensor, torch.Tensor]]:
    defaults = {"seed": 0, "epoch": 1, "shuffle": True}
    return list(task.batches(task.train, 8, **{**defaults, **arguments}))


def same(left: Any, right: Any) -> bool:
    pairs = list(zip(left, right, strict=True))
    return all(torch.equal(a, b) for x, y in pairs for a, b in zip(x, y, strict=True))


def test_batches_hold_every_image_once_normalised(task: ImageTask) -> None:
    got = served(task)
    assert [len(y) for _, y in got] == [8] * 9 + [3]
    in_order = torch.cat([y for _, y in served(task, shuffle=False)])
    assert torch.equal(in_order, task.train.labels)
    x = torch.cat([x for x, _ in got])
    assert x.dtype == torch.float32
    torch.testing.assert_close(x.mean(dim=(0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-4)
    torch.testing.assert_close(x.std(dim=(0, 2, 3)), torch.ones(3), rtol=0, atol=1e-4)
    pixels = pixels_of(task, x).byte()
    assert torch.equal(
        torch.unique(pixels.flatten(1), dim=0), torch.unique(task.train.images.flatten(1), dim=0)
    )
    assert (pixels[:, 0, 0, 0] // 10).tolist() == torch.cat([y for _, y in got]).tolist()


def test_order_and_augmentation_are_functions_of_seed_and_epoch(task: ImageTask) -> None:
    both = ("crop", "flip")
    first = served(task, augment=both)
    torch.rand(100)  # nothing depends on the global generator
    assert same(first, served(task, augment=both))
    for changed in ({"epoch": 2}, {"seed": 1}):
        assert not same(first, served(task, augment=both, **changed))
        assert not same(served(task), served(task, **changed))


def test_starting_later_gives_exactly_the_rest(task: ImageTask) -> None:
    whole = served(task, augment=("crop", "flip"))
    for start in (1, 5, 9, 10, 11):
        assert same(whole[start:], served(task, augment=("flip", "crop"), start=start))


def pixels_of(task: ImageTask, x: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (task.mean, task.std))
    return ((x * std + mean) * 255).round().int()


def test_every_crop_is_a_window_of_the_padded_image_and_every_flip_its_mirror(
    task: ImageTask,
) -> None:
    seen = set()
    places = [(y, x, mirrored) for y in range(9) for x in range(9) for mirrored in (False, True)]
    for epoch in range(3):
        got = served(task, shuffle=False, augment=("crop", "flip"), epoch=epoch)
        pixels = pixels_of(task, torch.cat([x for x, _ in got]))
        padded = torch.nn.functional.pad(task.train.images.int(), (4, 4, 4, 4))
        for original, cut in zip(padded, pixels, strict=True):
            found = [
                (y, x, mirrored)
                for y, x, mirrored in places
                if torch.equal(
                    cut.flip(2) if mirrored else cut, original[:, y : y + 32, x : x + 32]
                )
            ]
            assert len(found) == 1
            seen |= set(found)
    # 225 draws of 162 outcomes, from fixed seeds; both ends of each range must occur.
    assert len(seen) > 81
    assert {y for y, _, _ in seen} == {x for _, x, _ in seen} == set(range(9))


def test_flips_are_fair_and_crops_of_small_images_pad_an_eighth() -> None:
    task = load_task("digits")
    originals = torch.cat([task.train.images.int()] * 3)
    got = [
        pixels_of(task, x)
        for epoch in range(3)
        for x, _ in served(task, epoch=epoch, shuffle=False, augment=("flip",))
    ]
    flipped = (torch.cat(got) == originals.flip(3)).flatten(1).all(1)
    kept = (torch.cat(got) == originals).flatten(1).all(1)
    assert (flipped | kept).all()
    share = (flipped & ~kept).sum() / (flipped ^ kept).sum()
    assert abs(float(share) - 0.5) < 0.03  # four standard errors, from fixed seeds

    white = Split(torch.full((800, 1, 8, 8), 255, dtype=torch.uint8), torch.zeros(800).long())
    x, _ = next(task.batches(white, 800, seed=0, epoch=0, shuffle=False, augment=("crop",)))
    black = pixels_of(task, x) == 0
    assert black.any()
    assert not black[:, :, 1:-1, 1:-1].any()
