"""Colours of figures can be distinguished: by all people, and in print.

Colour blindness as in Machado, Oliveira and Fernandes 2009 (severity 1, on linear RGB), differences as CIEDE2000
(Sharma, Wu and Dalal 2005), print as CIELAB's lightness.
"""

import itertools
import math

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from analysis import palettes

SIGHT = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
WHITE = XYZ.sum(axis=1)
APART = 18  # CIEDE2000; 2 is just noticeable side by side
STEP = 6.5  # of lightness, 0 to 100
WIDTHS = (2, 3, 4, 5, 6, 7, 8)
BLACK = "black"  # what 16 bits are drawn in


def lab(colour, sight="normal"):
    """CIELAB of a colour as seen so."""
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    ratio = XYZ @ np.clip(np.array(SIGHT[sight]) @ linear, 0, 1) / WHITE
    f = np.where(ratio > 216 / 24389, np.cbrt(ratio), (24389 / 27 * ratio + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def difference(one, two):
    """CIEDE2000 of two colours in CIELAB."""
    (L1, a1, b1), (L2, a2, b2) = one, two
    mean = (math.hypot(a1, b1) + math.hypot(a2, b2)) / 2
    g = 1 + 0.5 * (1 - math.sqrt(mean**7 / (mean**7 + 25**7)))
    C1, C2 = math.hypot(g * a1, b1), math.hypot(g * a2, b2)
    h1, h2 = (math.degrees(math.atan2(b, g * a)) % 360 for a, b in ((a1, b1), (a2, b2)))
    grey = C1 * C2 == 0
    turn = 0.0 if grey else (h2 - h1 + 180) % 360 - 180
    C, L, H = (C1 + C2) / 2, (L1 + L2) / 2, h1 + h2
    if not grey:
        H = H / 2 if abs(h1 - h2) <= 180 else (H + 360) / 2 if H < 360 else (H - 360) / 2
    cosines = ((-0.17, 1, -30), (0.24, 2, 0), (0.32, 3, 6), (-0.20, 4, -63))
    T = 1 + sum(k * math.cos(math.radians(n * H + shift)) for k, n, shift in cosines)
    S_L = 1 + 0.015 * (L - 50) ** 2 / math.sqrt(20 + (L - 50) ** 2)
    lightness, chroma = (L2 - L1) / S_L, (C2 - C1) / (1 + 0.045 * C)
    hue = 2 * math.sqrt(C1 * C2) * math.sin(math.radians(turn / 2)) / (1 + 0.015 * C * T)
    around = math.radians(60 * math.exp(-(((H - 275) / 25) ** 2)))
    mixed = -math.sin(around) * 2 * math.sqrt(C**7 / (C**7 + 25**7)) * chroma * hue
    return math.sqrt(lightness**2 + chroma**2 + hue**2 + mixed)


def least(colours):
    """The least difference between any two, and how and between which."""
    return min(
        (difference(lab(one, sight), lab(two, sight)), sight, one, two)
        for one, two in itertools.combinations(colours, 2)
        for sight in SIGHT
    )


@pytest.mark.parametrize(
    ("one", "two", "expected"),
    [
        ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
        ((50, 2.5, 0), (73, 25, -18), 27.1492),
        ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
        ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
    ],
)
def test_the_difference_is_that_of_its_authors(one, two, expected):
    assert difference(one, two) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("count", range(1, len(palettes.ORDERED) + 1))
def test_colours_in_order_are_told_apart_by_all_and_from_16_bits(count):
    colours = palettes.shades(count)
    assert len(set(colours)) == count
    assert least([*colours, BLACK])[0] > APART
    lightness = [lab(c)[0] for c in (BLACK, *colours)]
    assert min(np.diff(lightness)) > STEP  # dark to light, also without colour


def test_2_and_3_bits_differ_most_of_all_neighbours_in_print():
    looks = palettes.looks(WIDTHS)
    lightness = [lab(colour)[0] for colour, _ in looks.values()]
    assert lightness[1] - lightness[0] == max(np.diff(lightness)) > 15
    (one, marker), (two, other) = looks[2], looks[3]
    assert least([one, two])[0] > 40 and marker != other


@pytest.mark.parametrize("look", [palettes.looks, palettes.categories])
@pytest.mark.parametrize("count", [2, 7, 8, 20, 49])
def test_no_two_values_look_the_same(look, count):
    looks = look(range(count))
    assert len(set(looks.values())) == count
    assert len({marker for _, marker in list(looks.values())[:7]}) == min(count, 7)


def test_colours_without_an_order_are_told_apart_by_all():
    assert least(palettes.CATEGORIES)[0] > 9  # their markers are the second cue
