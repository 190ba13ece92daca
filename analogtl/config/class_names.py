"""The classes of the data sets whose content is known, so that a misspelt one is found unread.

The data itself is judged by `analogtl.tasks.images`: a copy may hold fewer classes than these.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from analogtl.vocabulary import Dataset

# Source of the names: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
SUPERCLASSES = {
    "aquatic_mammals": "beaver dolphin otter seal whale",
    "fish": "aquarium_fish flatfish ray shark trout",
    "flowers": "orchid poppy rose sunflower tulip",
    "food_containers": "bottle bowl can cup plate",
    "fruit_and_vegetables": "apple mushroom orange pear sweet_pepper",
    "household_electrical_devices": "clock keyboard lamp telephone television",
    "household_furniture": "bed chair couch table wardrobe",
    "insects": "bee beetle butterfly caterpillar cockroach",
    "large_carnivores": "bear leopard lion tiger wolf",
    "large_man-made_outdoor_things": "bridge castle house road skyscraper",
    "large_natural_outdoor_scenes": "cloud forest mountain plain sea",
    "large_omnivores_and_herbivores": "camel cattle chimpanzee elephant kangaroo",
    "medium_mammals": "fox porcupine possum raccoon skunk",
    "non-insect_invertebrates": "crab lobster snail spider worm",
    "people": "baby boy girl man woman",
    "reptiles": "crocodile dinosaur lizard snake turtle",
    "small_mammals": "hamster mouse rabbit shrew squirrel",
    "trees": "maple_tree oak_tree palm_tree pine_tree willow_tree",
    "vehicles_1": "bicycle bus motorcycle pickup_truck train",
    "vehicles_2": "lawn_mower rocket streetcar tank tractor",
}
_CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck"
CLASS_NAMES: dict[str, tuple[str, ...]] = {  # in label order, which is alphabetical for images
    "cifar10": tuple(_CIFAR10.split()),
    "cifar100": tuple(sorted(" ".join(SUPERCLASSES.values()).split())),
    "digits": tuple("0123456789"),
    "kjv": ("genesis", "proverbs", "mark"),
    "points": ("circle", "moons", "spiral"),
}


def class_problems(dataset: str, classes: int | str | Sequence[int | str] | None) -> list[str]:
    """What is wrong with a choice of classes, one line each; little if the data set is a user's.

    Args:
        dataset: Name of the data set, e.g. ``cifar100``.
        classes: As `analogtl.tasks.images.load_task` takes them.
    """
    names = CLASS_NAMES.get(dataset)
    if isinstance(classes, Sequence) and not isinstance(classes, str) and len(classes) == 1:
        superclass = dataset == "cifar100" and str(classes[0]).removeprefix("superclass:")
        if Dataset(dataset).parts[0] == "class" and superclass not in SUPERCLASSES:
            return [f"expected 2 classes at least; got {list(classes)}"]
    if names is None or classes is None:
        return []
    if isinstance(classes, int):
        too_many = classes > len(names)
        return [f"{dataset} has {len(names)} classes; got {classes}"] if too_many else []
    asked = [classes] if isinstance(classes, str) else classes
    return [problem for item in asked if (problem := _problem(item, dataset, names))]


def _problem(item: int | str, dataset: str, names: Sequence[str]) -> str:
    if isinstance(item, int):
        last = len(names) - 1
        return "" if 0 <= item <= last else f"{item} is no label of {dataset}: they are 0 to {last}"
    groups = tuple(SUPERCLASSES) if dataset == "cifar100" else ()
    word = item.removeprefix("superclass:")
    if word in groups or (word == item and item in names):
        return ""
    near = difflib.get_close_matches(word, groups if word != item else (*names, *groups), n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "`analogtl list classes` shows them"
    return f"{dataset} has no class {item!r}; {hint}"
