"""The known classes are those of the data sets."""

from analogtl.config.class_names import CLASS_NAMES, SUPERCLASSES
from analogtl.tasks.sources import read_digits


def test_cifar_100_has_five_classes_in_each_of_twenty_superclasses():
    assert len(SUPERCLASSES) == 20
    assert {len(names.split()) for names in SUPERCLASSES.values()} == {5}
    assert len(set(CLASS_NAMES["cifar100"])) == 100
    # Labels that the data set's own list gives.
    labels = {name: CLASS_NAMES["cifar100"].index(name) for name in ("bear", "cattle", "worm")}
    assert labels == {"bear": 3, "cattle": 19, "worm": 99}


def test_the_digits_are_scikit_learn_s():
    assert read_digits().classes.names == CLASS_NAMES["digits"]
