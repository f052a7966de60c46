"""Training samples: what equals mmediting's pipeline, and what they must be in any case."""

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from matting.images import read_gray, read_image
from matting.trimaps import trimap_from_alpha, trimap_from_mask
from train.dataset import Foreground, as_tensor
from train.jpeg import jpeg
from train.predict import normalise
from train.synthesis import Samples, Synthesis, jitter, make_trimaps, sample_window, uniform

TRIMAPS = [(1, 1), (2, 3), (3, 28), (5, 5), (10, 4), (29, 29)]


def test_trimaps_are_mmeditings(oracle):
    """All six at once: each sample of a batch has kernels of its own."""
    alpha = as_tensor(read_gray(oracle / "trimaps/alpha.png")).expand(len(TRIMAPS), 1, -1, -1)
    inwards, outwards = zip(*TRIMAPS, strict=True)
    made = make_trimaps(alpha / 255, list(inwards), list(outwards))
    for trimap, (erode, dilate) in zip(made, TRIMAPS, strict=True):
        expected = read_gray(oracle / f"trimaps/gen_trimap_e{erode}_d{dilate}.png")
        assert torch.equal((trimap * 255).round().byte(), as_tensor(expected))


@pytest.mark.parametrize("radius", [1, 2, 7, 20])
def test_trimaps_are_the_clients(oracle, radius):
    """Training, composed test sets and `--mask` agree on what a band of a width is."""
    mask = np.where(read_gray(oracle / "trimaps/alpha.png") > 127, np.uint8(255), np.uint8(0))
    diameter = 2 * radius + 1
    trained = make_trimaps(as_tensor(mask)[None] / 255, [diameter], [diameter])
    composed = trimap_from_alpha(mask, diameter, diameter)
    assert np.array_equal((trained[0, 0] * 255).round().byte().numpy(), composed)
    # Discs are round; OpenCV's ellipses reach up to a pixel further.
    narrow, wide = (trimap_from_mask(mask, width, width) == 128 for width in (radius, radius + 1))
    unknown = composed == 128
    assert (unknown | ~narrow).all() and (wide | ~unknown).all()


def test_a_flipped_crop_is_mmeditings(oracle, batch):
    """The batch's second sample is a crop of this picture at 53, 26, flipped and not resized."""
    image = as_tensor(read_image(oracle / "infer/b_353x470_merged.png"))
    window = sample_window(image, (26 + 160, 53 + 160), 1.0, 0.0, True, 320, padding="border")
    assert (window - batch["composite"][1]).abs().max() < 1e-4  # 255 levels: 0.004 each


def test_a_crop_at_the_pictures_own_edge():
    picture = torch.randint(256, (3, 350, 400), dtype=torch.uint8)
    window = sample_window(picture, (160, 160), 1.0, 0.0, False, 320, padding="border")
    assert (window * 255 - picture[:, :320, :320]).abs().max() < 0.02


@pytest.mark.parametrize("crop", [480, 640])
def test_larger_crops_are_resized_as_by_opencv(crop):
    """mmediting's crops of 480 and 640 become 320 by bilinear `cv2.resize` of uint8.

    It rounds to whole levels, and at a crop's border it does not see the pixels beyond.
    """
    picture = np.random.default_rng(0).integers(0, 256, (700, 800, 3), np.uint8)
    top, left = 11, 40
    patch = picture[top : top + crop, left : left + crop]
    expected = as_tensor(cv2.resize(patch, (320, 320), interpolation=cv2.INTER_LINEAR))
    centre = (top + crop / 2, left + crop / 2)
    window = sample_window(
        as_tensor(picture), centre, crop / 320, 0.0, False, 320, padding="border"
    )
    difference = (window * 255 - expected).abs()[..., 1:-1, 1:-1]
    assert difference.max() < 1


def test_composites_and_trimaps_of_the_batch_follow_from_its_layers(batch):
    """mmediting cuts off what is behind the point and resizes the composite, not its layers."""
    made = batch["alpha"] * batch["foreground"] + (1 - batch["alpha"]) * batch["background"]
    resized, cut_off = (made - batch["composite"]) * 255
    assert cut_off.min() > -0.01
    assert cut_off.max() < 1.01
    assert resized.abs().max() < 6
    assert resized.abs().quantile(0.99) < 1.5
    assert torch.equal(make_trimaps(batch["alpha"], [25, 23], [9, 12]), batch["trimap"])


def test_a_window_turned_by_a_right_angle():
    picture = torch.randint(256, (3, 80, 90), dtype=torch.uint8)
    window = sample_window(picture, (40, 50), 1.0, 90.0, False, 64, padding="border")
    expected = torch.rot90(picture[:, 8:72, 18:82], 1, (1, 2))
    assert (window * 255 - expected).abs().max() < 0.02


def test_jitter_of_nothing_and_of_saturation_alone():
    generator = torch.Generator().manual_seed(0)
    colour = 0.3 + 0.4 * torch.rand(3, 8, 8, generator=generator)
    still = Synthesis(gamma=0.0, brightness=0.0, contrast=0.0, saturation=0.0)
    torch.testing.assert_close(jitter(colour, still, generator), colour)
    changed = jitter(colour, replace(still, saturation=0.3), generator)
    assert (changed - colour).abs().max() > 0.01
    torch.testing.assert_close(changed.mean(0), colour.mean(0))


def test_jitter_is_gamma_saturation_contrast_and_brightness_one_after_the_other():
    colour = 0.3 + 0.3 * torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    s, generator = Synthesis(), torch.Generator().manual_seed(1)
    expected = colour ** math.exp(uniform(-s.gamma, s.gamma, generator))
    ranges = (s.saturation, s.contrast, s.brightness)
    saturation, contrast, brightness = (1 + uniform(-r, r, generator) for r in ranges)
    grey = expected.mean(0)
    expected = grey + saturation * (expected - grey)
    expected = 0.5 + contrast * (expected - 0.5)
    generator.manual_seed(1)
    torch.testing.assert_close(jitter(colour, s, generator), brightness * expected)


STILL = dict.fromkeys(("gamma", "brightness", "contrast", "saturation", "noise", "jpeg"), 0.0)
ALONE = STILL | {"two_foregrounds": 0.0, "holes": 0.0}


@pytest.fixture
def samples():
    """A disc with a soft edge and a stripe with a soft side, on two noisy backgrounds."""
    generator = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.arange(90.0), torch.arange(120.0), indexing="ij")
    disc = (30 - torch.hypot(y - 45, x - 60)).clamp(-4, 4) * 32 + 128
    stripe = (x - 40) * 8
    foregrounds = [
        Foreground(
            torch.randint(256, (3, 90, 120), dtype=torch.uint8, generator=generator),
            alpha.clamp(0, 255).byte()[None],
        )
        for alpha in (disc, stripe)
    ]
    backgrounds = [
        torch.randint(256, (3, 150, 100), dtype=torch.uint8, generator=generator) for _ in range(2)
    ]

    def build(seed, start=0, step=1, **recipe):
        synthesis = Synthesis(crop=64, **recipe)
        return Samples(foregrounds, backgrounds, synthesis, 3, seed, start, step)

    return build


def test_batches_are_what_they_say(samples):
    batch = samples(seed=0).batch(5)
    shapes = {name: tuple(value.shape) for name, value in batch.items()}
    assert shapes == {
        **dict.fromkeys(("trimap", "unknown", "alpha"), (3, 1, 64, 64)),
        **dict.fromkeys(("image", "foreground", "background", "composite"), (3, 3, 64, 64)),
    }
    assert batch["unknown"].sum() > 0
    assert torch.equal(batch["unknown"], ((batch["trimap"] * 255).round() == 128).float())
    assert (batch["alpha"][batch["trimap"] == 0] == 0).all()
    assert (batch["alpha"][batch["trimap"] == 1] == 1).all()
    assert batch["unknown"].bool()[(batch["alpha"] > 0) & (batch["alpha"] < 1)].all()
    for name in ("foreground", "background", "composite", "alpha"):
        assert 0 <= batch[name].min() <= batch[name].max() <= 1
    made = batch["alpha"] * batch["foreground"] + (1 - batch["alpha"]) * batch["background"]
    torch.testing.assert_close(made, batch["composite"])


def test_colour_alpha_and_trimap_lie_upon_each_other(samples):
    """Every channel of these colours is the alpha; trimaps are no wider than the soft edge."""
    stream = samples(seed=0, trimap_kernel=(1, 2), **ALONE)
    disc = stream.foregrounds[0].alpha
    stream = Samples(
        [Foreground(disc.expand(3, -1, -1), disc)], stream.backgrounds, stream.synthesis, 8, seed=0
    )
    batch = stream.batch(0)
    assert (batch["foreground"] - batch["alpha"]).abs().max() < 0.51 / 255
    soft = (batch["alpha"] > 0) & (batch["alpha"] < 1)
    assert torch.equal(batch["unknown"].bool(), soft)


def test_a_subject_ends_where_its_picture_ends(samples):
    """Its colours go on, so that its edge has no other colour."""
    glass = Foreground(*(torch.full((c, 40, 40), 200, dtype=torch.uint8) for c in (3, 1)))
    recipe = Synthesis(crop=64, foreground_zoom=(1.0, 1.0), **ALONE)
    batch = Samples([glass], samples(seed=0).backgrounds, recipe, 8, seed=0).batch(0)
    torch.testing.assert_close(batch["foreground"], torch.full((8, 3, 64, 64), 200 / 255))
    assert (batch["alpha"].amax((1, 2, 3)) * 255).round().tolist() == [200] * 8
    assert (batch["alpha"].amin((1, 2, 3)) == 0).all()


def test_crops_lie_around_soft_pixels(samples):
    """A picture whose one soft pixel is marked by its colour, and whose rest is opaque."""
    alpha, mark = torch.full((1, 150, 300), 255, dtype=torch.uint8), (60, 220)
    colour = torch.zeros(3, 150, 300, dtype=torch.uint8)
    alpha[0][mark], colour[(slice(None), *mark)] = 128, 255
    zoom = {"foreground_zoom": (1.0, 1.0), "rotation_degrees": 0.0}
    recipe = Synthesis(crop=64, **ALONE | zoom)
    stream = Samples([Foreground(colour, alpha)], samples(seed=0).backgrounds, recipe, 400, seed=0)
    found = stream.batch(0)["foreground"][:, 0].flatten(1).argmax(1)
    places = torch.stack([found // 64, found % 64]) / 64
    assert places.min() > 0.17 and places.max() < 0.83
    assert (places.mean(1) - 0.5).abs().max() < 0.03  # three standard deviations
    assert places.std(1).min() > 0.15  # of a uniform draw that wide it is 0.17


def test_ranges_are_drawn_from_as_stated(samples, monkeypatch):
    """Zooms log-uniformly; backgrounds never beyond their edges; kernels of both ends' sizes."""
    windows, kernels = {"zeros": [], "border": [], "reflection": []}, []

    def window(source, *where, padding):
        windows[padding].append((source.shape[-2:], *where))
        return sample_window(source, *where, padding=padding)

    def trimaps(alpha, *diameters):
        kernels.append(diameters)
        return make_trimaps(alpha, *diameters)

    monkeypatch.setattr("train.synthesis.sample_window", window)
    monkeypatch.setattr("train.synthesis.make_trimaps", trimaps)
    stream = samples(seed=0, trimap_kernel=(1, 9), **ALONE)
    for number in range(100):
        stream.batch(number)
    assert windows["zeros"] == windows["border"]
    _, _, zooms, degrees, flips, _ = (
        np.array(x, object) for x in zip(*windows["zeros"], strict=True)
    )
    low, high = stream.synthesis.foreground_zoom
    assert low <= zooms.min() and zooms.max() <= high
    assert 0.45 < np.mean(zooms < math.sqrt(low * high)) < 0.55 and 0.4 < flips.mean() < 0.6
    assert 25 < degrees.max() <= 30 and -30 <= degrees.min() < -25
    for (height, width), (y, x), zoom, *_ in windows["reflection"]:
        reach = zoom * 64 / 2 - 1e-6
        assert reach <= y <= height - reach and reach <= x <= width - reach
    assert {diameter for pair in kernels for side in pair for diameter in side} == {*range(1, 9)}
    assert sum(len({*inwards}) == 1 for inwards, _ in kernels) < 10  # 1.6 of 100 by chance


def test_so_many_samples_have_a_second_foreground_or_a_hole(samples, monkeypatch):
    stream, drawn = samples(seed=0), []
    draw = stream.foreground
    monkeypatch.setattr(stream, "foreground", lambda generator: drawn.append(1) or draw(generator))
    for number in range(200):
        stream.batch(number)
    assert len(drawn) / 600 == pytest.approx(1 + 0.3 + 0.2, abs=0.08)  # three standard deviations


def test_two_foregrounds_are_laid_one_over_the_other(samples):
    both = samples(seed=0, **STILL | {"two_foregrounds": 1.0, "holes": 0.0})
    generator = torch.Generator().manual_seed(5)
    front, front_alpha = both.foreground(generator)
    uniform(0, 1, generator)  # two foregrounds?
    behind, behind_alpha = both.foreground(generator)
    generator.manual_seed(5)
    colour, background, alpha = both.sample(generator)
    expected = torch.lerp(torch.lerp(background, behind, behind_alpha), front, front_alpha)
    assert ((front_alpha > 0) & (front_alpha < 1) & (behind_alpha > 0)).any()
    torch.testing.assert_close(torch.lerp(background, colour, alpha), expected, rtol=0, atol=0.005)


@pytest.mark.parametrize("softness", [0.0, 0.5, 1.0])
def test_foregrounds_are_picked_by_their_soft_pixels(samples, softness):
    stream = samples(seed=0, softness=softness)
    disc, stripe = (((f.alpha > 0) & (f.alpha < 255)).sum().item() for f in stream.foregrounds)
    expected = stripe**softness / (disc**softness + stripe**softness)
    generator = torch.Generator().manual_seed(0)
    picked = sum(stream.pick(generator) for _ in range(4000)) / 4000
    assert abs(picked - expected) < 0.025  # three standard deviations


def test_holes_have_the_shape_of_another_foreground(samples):
    whole, pierced = (samples(seed=0, two_foregrounds=0.0, holes=share) for share in (0.0, 1.0))
    generator = torch.Generator().manual_seed(3)
    alpha = whole.sample(generator)[2]
    generator.manual_seed(3)
    whole.foreground(generator)
    for _ in ("two foregrounds?", "holes?"):
        uniform(0, 1, generator)
    hole = whole.foreground(generator)[1]
    assert 0.1 < hole.mean() < 0.9
    generator.manual_seed(3)
    expected = alpha * (1 - hole)
    torch.testing.assert_close(pierced.sample(generator)[2], expected, rtol=0, atol=1.01 / 255)


def test_only_the_networks_image_has_noise(samples):
    noisy, clean = (samples(seed=0, jpeg=0.0, noise=noise) for noise in (0.1, 0.0))
    strengths = []
    for number in range(5):
        first, second = noisy.batch(number), clean.batch(number)
        strengths.append((first.pop("image") - second["image"]).std() * 0.225)  # as in 0..1
        assert all(torch.equal(second[name], value) for name, value in first.items())
    assert min(strengths) > 0 and 0.05 < max(strengths) < 0.1


def test_batches_depend_on_seed_and_number_alone(samples):
    stream = iter(samples(seed=1, start=4, step=2))
    first, second = next(stream), next(stream)
    for batch, number in ((first, 4), (second, 6)):
        again = samples(seed=1).batch(number)
        assert all(torch.equal(batch[name], again[name]) for name in batch)
    assert not torch.equal(first["alpha"], second["alpha"])
    assert not torch.equal(first["alpha"], samples(seed=2).batch(4)["alpha"])


@pytest.mark.parametrize(
    ("seed", "number"), [(2, 0), (2, 1_000_002), (9, 1_000_003), (1 + 2**32, 1_000_003)]
)
def test_long_runs_do_not_meet(samples, seed, number):
    """A batch is no other seed's first or next, and more than 32 bits of a seed count."""
    first, second = samples(seed=1).batch(1_000_003), samples(seed=seed).batch(number)
    assert not torch.equal(first["alpha"], second["alpha"])


def test_only_the_networks_image_goes_through_jpeg(samples):
    batches = {}
    for share in (0.0, 1.0):
        stream = samples(seed=0, noise=0.0, jpeg=share, jpeg_quality=(50, 50))
        batches[share] = stream.batch(3)
    clean, composite = batches[0.0], batches[0.0]["composite"]
    assert torch.equal(clean["image"], normalise(composite))
    compressed = batches[1.0].pop("image")
    assert torch.equal(compressed, normalise(jpeg(composite, torch.full((3,), 50))))
    assert all(torch.equal(clean[name], value) for name, value in batches[1.0].items())
