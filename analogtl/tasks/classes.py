"""Choose which classes of a data set make up a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from analogtl.errors import ExperimentError, did_you_mean

Classes = int | str | Sequence[int | str] | None


@dataclass(frozen=True)
class ClassList:
    """The classes of a data set at hand.

    Attributes:
        names: Name of each label number of the full set, absent ones included.
        present: Label numbers of the classes that this copy holds, ascending.
        superclasses: Name of each superclass -> label numbers of its classes, of those present.
    """

    names: tuple[str, ...]
    present: tuple[int, ...]
    superclasses: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


def choose_classes(
    dataset: str, known: ClassList, classes: Classes, *, fewest: int = 2
) -> list[int]:
    """Choose label numbers of the full set, in the order asked for.

    Args:
        dataset: Its name, for messages.
        known: What there is.
        classes: As `analogtl.tasks.images.load_task` takes them.
        fewest: How many it takes at least: two classes, or one text.

    Raises:
        ExperimentError: unknown or absent classes, one given twice, too few; all at once.
    """
    where = f"data set {dataset}: classes"
    present, names = known.present, known.names
    classes = len(present) if classes is None else classes
    if isinstance(classes, int) and not isinstance(classes, bool):
        if not fewest <= classes <= len(present):
            raise ExperimentError(
                f"{where}: {classes} given; it has {len(present)}, and a task needs {fewest} at "
                "least"
            )
        return list(present[:classes])
    asked = [classes] if isinstance(classes, str | bool) else list(classes)
    labels_of: dict[Any, Sequence[int]] = {
        f"superclass:{name}": labels for name, labels in known.superclasses.items()
    }
    labels_of |= known.superclasses
    labels_of |= {name: (label,) for label, name in enumerate(names)}
    present_names = ", ".join(names[label] for label in present)
    chosen: list[int] = []
    problems = []
    for item in asked:
        is_label = type(item) is int and item in range(len(names))
        labels = [int(item)] if is_label else labels_of.get(item)
        if labels is None:
            hint = did_you_mean(str(item), labels_of)
            if not hint.startswith("did"):
                hint = f"present are {present_names}, and labels from 0 to {len(names) - 1}"
            problems.append(f"{where}: {item!r} is unknown; {hint}")
        elif not labels or not set(labels) <= set(present):
            name = names[item] if isinstance(item, int) else item
            problems.append(f"{where}: {name} is not in this copy; present are {present_names}")
        else:
            chosen += labels
    twice = sorted({names[label] for label in chosen if chosen.count(label) > 1})
    if twice:
        problems.append(f"{where}: {', '.join(twice)} given twice")
    if not problems and len(chosen) < fewest:
        found = ", ".join(names[label] for label in chosen) or "none"
        problems.append(f"{where}: a task needs {fewest} classes at least, this is {found}")
    if problems:
        raise ExperimentError(problems)
    return chosen
