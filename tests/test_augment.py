"""Augmentations: what their texts mean, and that an image's pixels depend on it and its seed alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featx.augment import KERAS_TERMS, PRESETS, Augmentation, seed_of
from featx.errors import OptionError, UnknownNameError

WORDS = [
    "flip", "vflip", "rotate=30", "zoom=0.3", "shift=0.2/0.1", "shear=10", "crop=3", "randaugment", "trivialaugment",
    "brightness=0.5:1.5", "contrast=0.4", "saturation=0.4", "hue=0.2", "erase=1",
]  # fmt: skip
IMAGES = np.random.default_rng(0).integers(0, 256, (4, 24, 20, 3), dtype=np.uint8)
SEEDS = np.arange(4)


@pytest.mark.parametrize(
    ("spec", "canonical"),
    [
        ("", ""),
        ("zoom=.10, flip ,rotate=2.0", "flip,rotate=2,zoom=0.1"),
        ("rotation_range=2,horizontal_flip=True,zoom_range=0.1", "flip,rotate=2,zoom=0.1"),
        ("height_shift_range=0.2,width_shift_range=0.1,shear_range=5", "shift=0.1/0.2,shear=5"),
        ("width_shift_range=0.1", "shift=0.1/0"),
        ("shift=0.1/0.1", "shift=0.1"),
        ("brightness_range=0.8:1.2,vertical_flip", "vflip,brightness=0.8:1.2"),
        ("brightness=0.1", "brightness=0.9:1.1"),
        ("light,rotate=10", "flip,rotate=10,zoom=0.1"),
        ("erase=0.5,hue=0.05,crop=4", "crop=4,hue=0.05,erase=0.5"),
    ],
)
def test_texts_of_one_meaning_have_one_canonical_form(spec, canonical):
    assert str(Augmentation.parse(spec)) == canonical


@given(st.lists(st.sampled_from(WORDS), unique=True))
def test_the_canonical_form_is_read_back(words):
    augmentation = Augmentation.parse(",".join(words))

    assert Augmentation.parse(str(augmentation)) == augmentation


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("rotat=2", "Unknown augmentation 'rotat'. Did you mean 'rotate'"),
        ("zoom_rang=2", "Did you mean 'zoom_range'"),
        ("standart", "Did you mean 'standard'"),
    ],
)
def test_unknown_words_are_answered_with_the_nearest_one(spec, message):
    with pytest.raises(UnknownNameError, match=message.replace("?", r"\?")):
        Augmentation.parse(spec)


@pytest.mark.parametrize(
    "spec",
    [
        "rotate", "rotate=", "rotate=x", "rotate=-1", "rotate=181", "rotate=nan", "rotate=inf", "zoom=1", "zoom=0",
        "shift=1", "shift=0.1/0.1/0.1", "flip=0.3", "crop=1.5", "crop=0", "crop=513", "brightness=1.2:0.8", "brightness=1.5",
        "brightness=0.5:inf", "brightness=1:1", "hue=0.6", "erase=2", "flip,flip", "shift=0.1,width_shift_range=0.2",
        "width_shift_range=0.2,shift=0.1", "width_shift_range=2",
    ],
)  # fmt: skip
def test_values_that_cannot_be_are_refused(spec):
    with pytest.raises(OptionError, match="--augment"):
        Augmentation.parse(spec)


@pytest.mark.parametrize("word", WORDS)
def test_every_word_changes_images_and_keeps_their_form(word):
    changed = Augmentation.parse(word).apply(IMAGES, SEEDS)

    assert (changed.shape, changed.dtype) == (IMAGES.shape, np.uint8)
    assert (changed != IMAGES).any()


def test_nothing_changes_nothing():
    assert np.array_equal(Augmentation.parse("").apply(IMAGES, SEEDS), IMAGES)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.sampled_from(WORDS), unique=True, min_size=1),
    st.lists(st.integers(0, 3), min_size=1),
    st.integers(0, 2**62),
)
def test_pixels_depend_on_the_image_and_its_seed_alone(words, order, first):
    augmentation, seeds = Augmentation.parse(",".join(words)), first + SEEDS
    together = augmentation.apply(IMAGES, seeds)

    assert np.array_equal(augmentation.apply(IMAGES[order], seeds[order]), together[order])


def test_other_seeds_give_other_pixels():
    images = np.repeat(IMAGES[:1], 8, axis=0)
    changed = Augmentation.parse("standard").apply(images, np.arange(8))

    assert len(np.unique(changed.reshape(8, -1), axis=0)) == 8


def test_the_random_state_of_torch_is_left_as_it_was():
    import torch

    before = torch.random.get_rng_state()
    Augmentation.parse("strong").apply(IMAGES, SEEDS)

    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("word", ["rotate=180", "zoom=0.9", "shift=0.9", "shear=60", "crop=9", "rotate=45,zoom=0.5"])
def test_borders_are_repeated_and_never_black(word):
    grey = np.full((16, 20, 28, 3), 200, np.uint8)

    assert np.array_equal(Augmentation.parse(word).apply(grey, np.arange(16)), grey)


def test_a_shift_moves_by_no_more_than_its_share():
    stripe = np.zeros((64, 20, 20, 3), np.uint8)
    stripe[:, :, 10] = 255
    columns = Augmentation.parse("shift=0.2/0").apply(stripe, np.arange(64))[:, 10, :, 0].argmax(axis=1)

    assert set(columns) == set(range(6, 15))


def test_presets_grow_stronger():
    smooth = np.tile(np.linspace(0, 255, 32, dtype=np.uint8)[:, None, None], (64, 1, 32, 3))
    changes = [
        np.abs(Augmentation.parse(name).apply(smooth, np.arange(64)).astype(int) - smooth).mean() for name in PRESETS
    ]

    assert changes == sorted(changes)


def test_every_term_of_keras_has_a_word():
    for term in KERAS_TERMS:
        value = {"horizontal_flip": "", "vertical_flip": "", "brightness_range": "=0.8:1.2"}.get(term, "=0.1")

        assert str(Augmentation.parse(term + value))


def test_seeds_differ_by_image_view_and_run():
    seeds = {seed_of(item, view, run) for item in (b"a", b"b") for view in (1, 2, 12) for run in (0, 1, 2)}

    assert len(seeds) == 18
    assert all(0 <= seed < 2**63 for seed in seeds)
