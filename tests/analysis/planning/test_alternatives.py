"""Choices under budgets: against trying them all, and which ways to train and to serve there are."""

import dataclasses

import numpy as np
import pytest

from analysis.cli.planning.plan_command import report
from analysis.fitting import store as fits
from analysis.planning.plan import plan
from analysis.planning.predict import paper, predict

pytestmark = pytest.mark.usefixtures("few_starts")

BITS = ("P_w", "P_a", "P_kv")


def with_unified():
    """The paper's laws, and Eq. 9 with constants that it does not give."""
    unified = fits.published("kumar_unified")
    known = unified.params | {"C_w": 0.5, "C_a": 0.5, "C_kv": 0.5}
    return paper() | {"kumar_unified": dataclasses.replace(unified, params=known)}


def lowest_loss(fits, *, flops, bytes, tokens=np.inf, serve_tokens=0.0, group, formats, widths):
    """By trying: a grid of N and D for each width and format, from the laws' own predictions."""
    best, loss = np.inf, fits["kumar_neff_tied"]
    for width, bits in [(w, b) for w in widths for b in (w, *formats) if b < w or (b == w and w in {16, *formats})]:
        gap = None if bits == width else fits["kumar_ptq" if width == 16 else "kumar_unified"]
        scales = 16 / group if bits < 16 else 0
        largest = min(8 * bytes / (bits + scales), flops / 1e9)
        N, share = np.meshgrid(np.geomspace(largest / 1e3, largest, 300), np.geomspace(0.02, 1, 120))
        D = share * np.minimum(tokens, (flops - 2 * N * serve_tokens * bits / 16) * 16 / (6 * N * width))
        N, D = N[D > 1], D[D > 1]
        frame = {"N": N, "D": D, **dict.fromkeys(BITS, np.full(N.size, float(width)))}
        found = loss.predict(frame)
        if gap:
            found = found + gap.predict(frame | {"P_post": np.full(N.size, float(bits))})
        best = min(best, np.nanmin(found))
    return best


@pytest.mark.parametrize(
    "limits",
    [
        {"flops": 1e20, "bytes": 1e9, "group": 32},
        {"flops": 1e22, "bytes": 5e8, "group": 128, "tokens": 1e12},
        {"flops": 1e21, "bytes": 1e11, "group": 16, "serve_tokens": 1e12},
        {"flops": 1e23, "bytes": 2e9, "group": 64, "tokens": 3e12, "serve_tokens": 1e13},
    ],
)
def test_all_budgets_at_once_against_trying(limits):
    laws, widths, formats = with_unified(), (5, 8, 16), (4, 6)
    made = plan(laws, widths=widths, post=("int4", "int6", "bf16"), **limits)
    tried = lowest_loss(laws, widths=widths, formats=formats, **limits)
    assert made.best.loss.value <= tried + 1e-12
    assert made.best.loss.value == pytest.approx(tried, abs=1e-3)
    for choice in (made.best, *made.alternatives):
        N, D = choice.N.value, choice.D.value
        scales = 16 / limits["group"] if choice.served < 16 else 0
        assert choice.bytes.value == pytest.approx(N * (choice.served + scales) / 8)
        assert choice.bytes.value <= limits["bytes"] * (1 + 1e-9)
        cost = 6 * N * D * choice.trained / 16 + 2 * N * limits.get("serve_tokens", 0) * choice.served / 16
        assert choice.flops.value == pytest.approx(cost) and cost <= limits["flops"] * (1 + 1e-9)
        assert limits.get("tokens", np.inf) * (1 + 1e-9) >= D


@pytest.mark.parametrize("limits", [{"tokens": 1e12}, {"flops": 1e21}, {"flops": 1e22, "tokens": 1e11}])
def test_bytes_against_a_search_over_predictions(limits):
    made = plan(paper(), bytes=2e9, post=("int3", "int4", "int6", "bf16"), widths=(4, 8, 16), **limits)
    best = np.inf
    for bits in (3, 4, 6, 16):
        N, share = np.meshgrid(np.geomspace(2e8, 16e9 / bits, 200), np.geomspace(0.01, 1, 60))
        D = share * np.minimum(limits.get("tokens", np.inf), limits.get("flops", np.inf) / (6 * N))
        frame = {"N": N.ravel(), "D": D.ravel(), "P_post": np.full(N.size, float(bits))} | dict.fromkeys(
            BITS, np.full(N.size, 16.0)
        )
        losses = paper()["kumar_neff_tied"].predict(frame)
        best = min(best, np.min(losses + (paper()["kumar_ptq"].predict(frame) if bits < 16 else 0)))
    assert made.best.loss.value <= best + 1e-12
    assert made.best.loss.value == pytest.approx(best, abs=5e-4)
    assert made.best.bytes.value <= 2e9 * (1 + 1e-12)
    again = predict(paper(), N=made.best.N.value, D=made.best.D.value, widths={}, post=made.best.served)
    assert made.best.loss.value == pytest.approx(again.total.value)
    assert made.best.gap.value == pytest.approx(again.gap.value)
    # a width that the model may not be served in is not chosen, and 8-bit training without a format is none of them
    assert {c.served for c in (made.best, *made.alternatives)} <= {3, 4, 6, 16}


def test_serving_counts_against_the_budget():
    alone = plan(paper(), flops=1e21, widths=(16,))
    served = plan(paper(), flops=1e21, serve_tokens=1e12, widths=(16,), post=("int4", "int6", "bf16"))
    assert alone.P_star is None and alone.best.post is None
    assert served.best.post == "int6"
    assert served.best.N.value < alone.best.N.value
    for choice in (served.best, *served.alternatives):
        n, d = choice.N.value, choice.D.value
        assert 6 * n * d + 2 * n * 1e12 * choice.served / 16 == pytest.approx(choice.flops.value)
        assert choice.flops.value <= 1e21 * (1 + 1e-9)


def test_scales_and_what_is_never_quantized_take_bytes():
    limits = {"bytes": 1e9, "tokens": 1e11, "fixed_bytes": 1e8, "widths": (16,)}
    made = plan(paper(), post=("int4", "mxfp4"), group=32, **limits)
    sizes = {c.post: c.N.value for c in (made.best, *made.alternatives)}
    assert sizes["int4"] == pytest.approx(0.9e9 * 8 / 4.5)
    assert sizes["mxfp4"] == pytest.approx(0.9e9 * 8 / 4.25)
    assert made.best.bytes.value == pytest.approx(1e9)


def test_what_is_served_as_trained_has_scales_too():
    made = plan(paper(), bytes=1e9, tokens=1e11, widths=(8,), group=32)
    assert made.best.N.value == pytest.approx(8e9 / 8.5)
    made = plan(paper(), bytes=1e9, tokens=1e11, widths=(8,), post=("mxfp8", "int8"), group=32)
    assert made.best.N.value == pytest.approx(8e9 / 8.25)


def test_activations_bound_what_may_follow():
    """Eq. 9 speaks of models that had more bits in training than after it, in each part; else its gap is zero."""
    laws = with_unified()
    alone = {name: dataclasses.replace(fit, law=fit.law.without({"P_w", "P_kv"})) for name, fit in laws.items()}
    made = plan(alone, bytes=1e9, tokens=1e11, widths=(6, 16), post=("int4", "int8", "bf16"))
    assert {(c.trained, c.post) for c in (made.best, *made.alternatives)} == {
        (6, None), (6, "int4"), (16, None), (16, "int4"), (16, "int8")
    }  # fmt: skip


def test_quantized_after_training_in_low_precision():
    """With the unified law, every training width meets every format below it."""
    laws = with_unified()
    unified, known = laws["kumar_unified"], laws["kumar_unified"].params
    made = plan(laws, bytes=2e9, tokens=1e12, widths=(6, 8, 16), post=("int4", "int5", "int6"))
    ways = {(c.trained, c.post): c for c in (made.best, *made.alternatives)}
    assert set(ways) == {(6, None)} | {(p, f"int{b}") for p in (6, 8, 16) for b in (4, 5, 6) if b < p}
    choice = ways[8, "int5"]
    frame = {"N": [choice.N.value], "D": [choice.D.value], **{p: [8.0] for p in BITS}, "P_post": [5.0]}
    frame = {name: np.array(column) for name, column in frame.items()}
    assert choice.gap.value == pytest.approx(float(unified.law.predict(known, frame)[0]))
    without = plan(paper(), bytes=2e9, tokens=1e12, widths=(6, 8, 16), post=("int4", "int5", "int6"))
    assert {(c.trained, c.post) for c in (without.best, *without.alternatives)} == {
        (6, None), (16, "int4"), (16, "int5"), (16, "int6")
    }  # fmt: skip
    assert without.left_out == {
        "quantization after training below 16 bits": "kumar_ptq holds for models trained in 16 bits, and there is no "
        "kumar_unified among kumar_neff_tied, kumar_ptq"
    }


def test_of_many_ways_one_row_a_format_is_shown():
    made = plan(with_unified(), bytes=1e9, tokens=1e11)
    lines = report(made)
    table = lines[1 : [line.startswith("laws: ") for line in lines].index(True)]
    rows = [line.split()[1] for line in table]
    served = [name for name in rows if name.startswith("int")]
    assert len(served) == len(set(served)) > 1
    assert any(line.startswith("not shown: ") for line in lines)
