"""Which class each image file belongs to: EDM's dataset.json if there is one, else the top-level folders."""

import json
from typing import Any, NamedTuple

from smallbatch.data.files import Files
from smallbatch.errors import UserError

LISTING = "dataset.json"


class Classes(NamedTuple):
    """One label per image, in the order of `files.images`; both are empty where the images carry no label."""

    labels: list[int]
    names: list[str]


def find_classes(files: Files) -> Classes:
    if LISTING in files.names:
        return listed(files)
    if any(map(top, files.images)):
        return by_folder(files)
    return Classes([], [])


def by_folder(files: Files) -> Classes:
    """The folders directly below the root, sorted; deeper ones do not matter."""
    for name in files.images:
        if not top(name):
            raise UserError(f"{files.path}: {name} lies beside the class folders: move it into one, or away")
    names = sorted({top(name) for name in files.images})
    number = {name: label for label, name in enumerate(names)}
    return Classes([number[top(name)] for name in files.images], names)


def listed(files: Files) -> Classes:
    """EDM's {"labels": [["00000/img0.png", 6], ...]}, or {"labels": null}."""
    entries = read_listing(files)
    if entries is None:
        return Classes([], [])
    there = set(files.images)
    for name in entries:
        if name not in there:
            raise UserError(f"{files.path}: {LISTING} names {name}, which is not among its images")
    for name in files.images:
        if name not in entries:
            raise UserError(f"{files.path}: {LISTING} has no label for {name}: list all images or none")
    labels = [entries[name] for name in files.images]
    return Classes(labels, class_names(files, labels))


def read_listing(files: Files) -> dict[str, int] | None:
    fix = '{"labels": [["name.png", 0], ...]} or {"labels": null}'
    try:
        entries = json.loads(files.read(LISTING))["labels"]
        labels: dict[str, Any] | None = None if entries is None else {name: label for name, label in entries}
    except Exception as error:  # a damaged zip or text fails in many ways
        raise UserError(f"{files.path}: {LISTING} must read {fix} ({error!r})") from None
    for name, label in (labels or {}).items():
        if type(label) is not int:
            raise UserError(f"{files.path}: {LISTING} labels {name} {label!r}: labels must be integers")
    return labels


def class_names(files: Files, labels: list[int]) -> list[str]:
    """The folders' names where each class is exactly one folder, else the numbers."""
    classes = sorted(set(labels))
    if classes != list(range(len(classes))):
        raise UserError(
            f"{files.path}: {LISTING} has {len(classes)} classes, labelled {classes[0]} to {classes[-1]}: "
            f"number them 0 to {len(classes) - 1}"
        )
    pairs = sorted(set(zip(labels, map(top, files.images), strict=True)))
    folders = [folder for _, folder in pairs]
    one_each = all(folders) and len(set(folders)) == len(pairs) == len(classes)
    return folders if one_each else [str(label) for label in classes]


def top(name: str) -> str:
    """Empty for a file that lies directly below the root."""
    return name.split("/", 1)[0] if "/" in name else ""
