import hashlib
from itertools import combinations

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from smallbatch.data.drawing import coverage, draw
from smallbatch.data.scenes import (
    BACKGROUNDS,
    CLASS_NAMES,
    COLOURS,
    RELATIONS,
    SHAPES,
    SIZES,
    SLOPE,
    VERSION,
    Attribute,
    below,
    caption,
    mixed,
    scenes,
)

MANY = scenes(np.arange(20_000))
PALETTE = np.array([*COLOURS.values()])
FORM = {  # nearest edge and area of each shape, held against the circle around it
    "circle": (1, 1),
    "square": (0.71, 0.64),
    "triangle": (0.5, 0.41),
    "cross": (0.44, 0.63),
    "ring": (0, 0.79),
}


def covered(some, size):
    return coverage(some, (np.arange(size, dtype=np.float32) + 0.5) / size)


def masks(picture):
    """What a person sees: the colours in a picture, each with the pixels that it fills, the larger area first."""
    near = [np.abs(picture - colour[:, None, None]).max(0) <= 1 for colour in PALETTE]
    found = [(name, mask) for name, mask in zip(COLOURS, near, strict=True) if mask.any()]
    return sorted(found, key=lambda pair: -pair[1].sum())


def form(mask):
    """The shape whose nearest edge and area are most alike, seen from the centroid."""
    middle = np.argwhere(mask).mean(0)
    far = np.linalg.norm(np.indices(mask.shape) - middle[:, None, None], axis=0)
    radius = far[mask].max()
    seen = far[~mask].min() / radius, mask.sum() / (np.pi * radius**2)
    return min(FORM, key=lambda name: np.hypot(*np.subtract(seen, FORM[name])))


def halved(pictures):
    n, c, h, w = pictures.shape
    return pictures.reshape(n, c, h // 2, 2, w // 2, 2).mean((3, 5))


def excess(table):
    """Chi-square of a table against independent margins (one row: against uniform), in deviations from its mean."""
    expected = table.sum(1, keepdims=True) * table.sum(0) / table.sum() if len(table) > 1 else table.mean()
    freedom = (max(len(table) - 1, 1)) * (table.shape[1] - 1)
    return (((table - expected) ** 2 / expected).sum() - freedom) / np.sqrt(2 * freedom)


def test_splitmix64_gives_its_published_numbers():
    golden = 0x9E3779B97F4A7C15
    states = np.array([golden * k % 2**64 for k in (1, 2, 3)], np.uint64)
    assert mixed(states).tolist() == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


def test_a_scene_and_its_picture_depend_on_the_index_alone():
    indices = np.concatenate([np.arange(150), 2**40 - np.arange(50)])
    order = np.argsort(below(indices, Attribute.COUNT, 2**32)[:, 0])
    whole, shuffled = scenes(indices), scenes(indices[order])
    assert all((a[order] == b).all() for a, b in zip(whole, shuffled, strict=True))
    pictures = draw(whole, 32)
    assert (pictures[order] == draw(shuffled, 32)).all()
    assert all((pictures[i] == draw(scenes(indices[i : i + 1]), 32)[0]).all() for i in range(0, 200, 7))


def test_the_version_stands_for_these_scenes_and_pictures():
    """Whoever must change a number here must raise VERSION: runs on the old scenes are no longer comparable."""
    some = scenes(np.array([0, 1, 2, 3, 12345, 2**40, 2**40 + 9999]))
    attributes = b"".join(field.astype("<i8").tobytes() for field in some)
    assert (VERSION, hashlib.blake2b(attributes, digest_size=8).hexdigest()) == (1, "4c8691783581c36c")
    means = draw(some, 32).mean((1, 2, 3))
    np.testing.assert_allclose(means, [89.0, 92.2, 124.1, 185.3, 184.7, 89.3, 88.4], atol=0.5)


def test_no_scene_repeats():
    held_out = scenes(2**40 + np.arange(10_000))
    rows = [np.concatenate([field.reshape(len(field), -1) for field in some], 1) for some in (MANY, held_out)]
    assert len(np.unique(np.concatenate(rows), axis=0)) == 30_000


def test_every_attribute_is_uniform():
    two = MANY.count == 2
    columns = {
        "count": MANY.count - 1,
        "background": MANY.background,
        "slope": MANY.slope.ravel() + SLOPE,
        "relation": MANY.relation[two],
        "size of one": MANY.size[~two, 0],
        "label": MANY.label,
        "other colour": MANY.colour[two, 1],
        "other shape": MANY.shape[two, 1],
    }
    counts = {name: np.bincount(column)[None] for name, column in columns.items()}
    sizes = [2, len(BACKGROUNDS), 2 * SLOPE + 1, 4, 2, len(COLOURS) * len(SHAPES), len(COLOURS), len(SHAPES)]
    assert [count.shape[1] for count in counts.values()] == sizes
    assert not {name: excess(count) for name, count in counts.items() if abs(excess(count)) > 3.5}


def test_attributes_are_independent_in_pairs_and_from_scene_to_scene():
    two = MANY.at(MANY.count == 2)
    columns = [
        two.background,
        two.relation,
        two.colour[:, 0],
        *two.shape.T,
        two.turn[:, 0] % 8,
        two.slope[:, 0] + SLOPE,
    ]
    pairs = [*combinations(columns, 2), (two.colour[:, 1], two.shape[:, 1]), (MANY.label[1:], MANY.label[:-1])]
    for a, b in pairs:
        table = np.zeros((a.max() + 1, b.max() + 1))
        np.add.at(table, (a, b), 1)
        assert abs(excess(table)) < 3.5


def test_two_objects_are_one_large_and_one_small_of_different_colours():
    two = MANY.at(MANY.count == 2)
    assert (two.size == [1, 0]).all() and (two.colour[:, 0] != two.colour[:, 1]).all()


def test_caption_and_label_can_be_read_off_the_picture():
    some = MANY.at(slice(300))
    for i, picture in enumerate(draw(some, 128).astype(int)):
        seen = masks(picture)
        things = [f"{colour} {form(mask)}" for colour, mask in seen]
        assert CLASS_NAMES[some.label[i]] == things[0]
        text = caption(some.at(i))
        assert all(thing in text for thing in things) and len(seen) == some.count[i]
        if len(seen) == 2:
            assert text.startswith(
                f"a large {things[0]} {relation(*(mask for _, mask in seen))} a small {things[1]} on"
            )


def relation(one, other):
    """Of the first mask to the second; to nobody's doubt."""
    down, right = np.argwhere(one).mean(0) - np.argwhere(other).mean(0)
    assert min(abs(right), abs(down)) < 0.45 * max(abs(right), abs(down))
    if abs(right) > abs(down):
        return RELATIONS[int(right > 0)]
    return RELATIONS[2 + int(down > 0)]


def test_a_caption_names_what_is_there():
    assert caption(MANY.at(1)) == "a small cyan circle on a slate background"
    assert caption(MANY.at(0)) == "a large pink cross on a brown background"
    assert caption(MANY.at(15)) == "a large purple triangle left of a small cyan triangle on a brown background"
    assert caption(MANY.at(7)) == "a large cyan circle right of a small orange square on a brown background"
    assert caption(MANY.at(2)) == "a large orange square above a small red circle on a grey background"
    assert caption(MANY.at(29)) == "a large orange cross below a small pink ring on a charcoal background"


def test_objects_stay_inside_the_frame_and_apart():
    seen = covered(MANY.at(slice(1000)), 128)
    assert seen[..., [0, -1], :].max() == seen[..., :, [0, -1]].max() == 0
    assert (seen[:, 0] * seen[:, 1]).max() == 0


def test_every_large_object_covers_more_than_any_small_one():
    some = MANY.at(slice(3000))
    area = covered(some, 32).mean((2, 3))
    small, large = (area[some.present & (some.size == size)] for size in range(len(SIZES)))
    assert small.min() > 0.03 and 1.2 * small.max() < large.min()


@pytest.mark.parametrize("size", [16, 32, 64])
def test_a_scene_is_the_same_at_every_size(size):
    some = MANY.at(slice(200))
    error = np.abs(halved(draw(some, 2 * size).astype(float)) - draw(some, size))
    assert error.mean() < 7 / size and np.quantile(error, 0.999) < 15 and error.max() < 60


def test_edges_are_anti_aliased():
    fine, coarse = (covered(MANY.at(slice(500)), size)[:, 0] for size in (128, 16))
    np.testing.assert_allclose(coarse.mean((1, 2)), fine.mean((1, 2)), rtol=0.08)
    assert (((coarse > 0.1) & (coarse < 0.9)).sum((1, 2)) >= 4).all()


def test_small_shapes_are_told_apart_at_16_pixels():
    some = MANY.at((MANY.count == 1) & (MANY.size[:, 0] == 0)).at(slice(3000))
    seen = np.pad(covered(some, 16)[:, 0], ((0, 0), (4, 4), (4, 4)))
    x, y = (some.centre[:, 0] * 16 >> 16).T
    crops = np.stack([image[j : j + 9, i : i + 9].ravel() for image, i, j in zip(seen, x, y, strict=True)])
    judge = KNeighborsClassifier(1).fit(crops[:2500], some.shape[:2500, 0])
    assert judge.score(crops[2500:], some.shape[2500:, 0]) > 0.97


def test_no_background_comes_near_an_object():
    tones = np.array([*BACKGROUNDS.values()])[:, None] + np.arange(-2 * SLOPE, 2 * SLOPE + 1)[:, None]
    assert tones.min() >= 0 and tones.max() <= 255
    assert np.linalg.norm(PALETTE - tones[:, :, None], axis=-1).min() > 80
    assert min(np.linalg.norm(a - b) for a, b in combinations(PALETTE, 2)) > 100


def test_backgrounds_have_a_gradient():
    corners = draw(MANY.at(slice(200)), 32)[:, :, [0, 0, -1, -1], [0, -1, 0, -1]].astype(int)
    assert (np.ptp(corners, axis=2) >= 2).mean() > 0.9 and np.ptp(corners, axis=2).max() <= 4 * SLOPE
