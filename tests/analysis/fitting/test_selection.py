"""Laws that a caller or a table has changed: what was changed stays, and the rows are those that the law is about."""

import dataclasses
import functools

import numpy as np
import pandas as pd
import pytest

import analysis
from analysis.diagnostics.slopes import CURVATURE, curved
from analysis.errors import InputError
from analysis.fitting.selection import applicable_rows, rows_of, select
from analysis.laws.registry import LAWS

pytestmark = pytest.mark.usefixtures("few_starts")

SIZES = (23_600, 82_900, 201_000, 378_000)
TRAINED = ((16, 16, 16), (4, 16, 16), (3, 16, 16), (6, 16, 16))
BITS = (3, 6)


@pytest.fixture(scope="module")
def schemes(tables):
    """Runs of schemes that no registered law was made for."""
    frame = tables.simulate(noise=0, seeds=1, sizes=SIZES, post=(), trained=TRAINED)
    return frame.assign(scheme=frame["P_w"].map("w{}".format).replace("w16", "bf16"))


def held(law, symbol, value):
    """`law` with one parameter held."""
    changed = (dataclasses.replace(p, lower=value, upper=value) if p.symbol == symbol else p for p in law.parameters)
    return dataclasses.replace(law, parameters=tuple(changed))


# ---- changes of laws that are made for the schemes of a table ----


@pytest.mark.parametrize("name", ["quest", "quartet"])
def test_a_changed_parameter_stays_changed(name, schemes):
    found = analysis.fit(held(LAWS[name], "E", 0.5), schemes, bootstrap=0)
    assert found.params["E"] == 0.5
    assert found.law.categories == ("bf16", "w3", "w4", "w6")
    free = analysis.fit(name, schemes, bootstrap=0)
    assert free.params["E"] != 0.5 and free.law.symbols == found.law.symbols


def test_everything_else_that_was_changed_stays(schemes):
    law = LAWS["quest"]
    without = tuple(p for p in law.parameters if p.symbol != "E")
    changed = dataclasses.replace(law, name="quest_zero", parameters=without, distinct={"N": 2, "D": 2, "scheme": 2})
    made = select(changed, schemes, bits=BITS).law
    assert (made.name, made.distinct) == ("quest_zero", changed.distinct)
    assert set(made.symbols) == {"A", "B", "alpha", "beta", "eff[w3]", "eff[w4]", "eff[w6]"}
    of_table = law.for_schemes(("bf16", "w6", "w4", "w3"))
    narrowed = held(of_table, "eff[w4]", 0.7)
    assert select(narrowed, schemes, bits=BITS).law == narrowed  # it knows these schemes already
    kept = select(narrowed, schemes[schemes["scheme"] != "w6"], bits=BITS).law
    assert {p.symbol: p.upper for p in kept.parameters}["eff[w4]"] == 0.7
    assert "eff[w6]" not in kept.symbols


def test_changed_columns_are_kept_or_refused(schemes):
    of_table = LAWS["quest"].for_schemes(("bf16", "w3", "w4", "w6"))
    found = analysis.fit(curved(of_table, D_0=3e6), schemes, bootstrap=0)
    assert found.params[CURVATURE] == pytest.approx(0, abs=1e-6)
    plain = dataclasses.replace(curved(LAWS["quest"], D_0=3e6), for_schemes=LAWS["quest"].for_schemes)
    with pytest.raises(InputError, match="quest_curved: its columns were changed for the schemes 16, 1, 2") as fault:
        analysis.fit(plain, schemes, bootstrap=0)
    assert "\n" not in str(fault.value) and "the table has bf16, w3, w4, w6" in str(fault.value)
    whole = dataclasses.replace(plain, for_schemes=lambda names: curved(LAWS["quest"].for_schemes(names), D_0=3e6))
    found = analysis.fit(whole, schemes, bootstrap=0)
    assert found.params[CURVATURE] == pytest.approx(0, abs=1e-6)
    assert found.law.name == "quest_curved" and "eff[w3]" in found.params


def test_columns_made_by_a_partial_function_count_as_changed(schemes):
    def twice(theta, x, *, inner):
        return inner(theta, x)

    law = LAWS["quest"]
    changed = dataclasses.replace(law, columns=functools.partial(twice, inner=law.columns))
    with pytest.raises(InputError, match="quest: its columns were changed"):
        select(changed, schemes, bits=BITS)


# ---- rows of laws that a table has narrowed ----


def test_a_narrowed_law_leaves_out_what_its_fit_left_out(tables):
    """Two widths of activations are too few for f(P_a): the law loses it, and the rows with it."""
    frame = tables.simulate(noise=0, seeds=1, sizes=SIZES, post=(), trained=(*TRAINED, (16, 4, 16), (4, 4, 16)))
    found = analysis.fit("kumar_neff", frame, bootstrap=0)
    assert set(found.law.variables) == {"N", "D", "P_w"} and found.law.held == {"P_a": 16.0, "P_kv": 16.0}
    again = applicable_rows(found.law, frame)
    assert len(again.frame) == found.rows == (frame["P_a"] == 16).sum()
    assert again.left_out == {"P_a not at 16 bits": (frame["P_a"] == 4).sum()}
    np.testing.assert_allclose(found.predict(again.frame), again.frame["loss"], rtol=1e-6)
    assert select(found.law, frame, bits=BITS).frame.equals(again.frame)
    # rows of another table, too, which may vary more
    other = tables.simulate(noise=0, seeds=1, sizes=SIZES, post=(), trained=(*TRAINED, (16, 16, 4), (16, 6, 16)))
    assert (applicable_rows(found.law, other).frame[["P_a", "P_kv"]] == 16).all(axis=None)


def test_a_part_at_one_low_width_throughout_belongs_to_the_law(tables):
    trained = tuple((w, a, 8) for w, a, _ in TRAINED)
    frame = tables.simulate(noise=0, seeds=1, sizes=SIZES, post=(), trained=trained)
    found = analysis.fit("kumar_neff", frame, bootstrap=0)
    assert found.law.held == {"P_a": 16.0, "P_kv": 8.0}
    assert "P_kv is 8 bits in all rows: the law speaks of such models only" in found.warnings
    more = tables.simulate(noise=0, seeds=1, sizes=SIZES, post=(), trained=(*trained, *TRAINED))
    rows = applicable_rows(found.law, more)
    assert len(rows.frame) == found.rows and rows.left_out == {"P_kv not at 8 bits": len(more) - found.rows}


def test_a_fit_keeps_its_law_whatever_the_table_varies(tables):
    """Of a table without low-precision activations a fit with f(P_a) takes all rows, and the law stays as it is."""
    frame = tables.simulate(noise=0, seeds=1, sizes=SIZES, post=(), trained=tables.TRAINED)
    found = analysis.fit("kumar_neff", frame, bootstrap=0)
    few = tables.simulate(noise=0, seeds=1, sizes=SIZES, post=(), trained=((16, 16, 16), (16, 4, 16)))
    assert rows_of(found.law, found.filter, few).law is found.law
    assert len(rows_of(found.law, found.filter, few).frame) == len(few)
    assert len(rows_of(found.law, found.filter, few.drop(columns="P_a")).frame) == len(few)
    with pytest.raises(InputError, match="too few runs trained in low precision"):
        applicable_rows(found.law, few)


def test_a_fit_of_schemes_leaves_out_those_that_it_does_not_know(schemes):
    found = analysis.fit("quest", schemes[schemes["scheme"] != "w6"], bootstrap=0)
    rows = rows_of(found.law, found.filter, schemes)
    assert rows.law is found.law and set(rows.frame["scheme"]) == {"bf16", "w3", "w4"}
    assert rows.left_out == {"trained in a scheme that the fit does not know": (schemes["scheme"] == "w6").sum()}
    assert np.isfinite(found.predict(rows.frame)).all()


def test_rows_of_a_fit_pass_its_filter(tables):
    frame = tables.simulate(seeds=2, sizes=SIZES)
    found = analysis.fit("kumar_ptq", frame, bootstrap=0, filter="seed_init == 0")
    rows = rows_of(found.law, found.filter, frame).frame
    assert set(rows["seed_init"]) == {0}
    assert set(rows["P_post"]) == {2, 3, 4, 5, 6, 7, 8}  # all that the law speaks of, not only those it was fitted on


# ---- one way to be trained in few bits ----


def test_a_part_is_in_few_bits_in_one_way(schemes):
    """Runs with weights per tensor, or in a float format, have as many bits and lose another amount."""
    low = schemes["P_w"] < 16
    ints = schemes["P_w"].map("int{:.0f}".format).where(low, "bf16")
    usual = schemes.assign(format_w=ints, granularity_w=np.where(low, "channel", None))
    few = usual[low & (usual["N"] < 3e5)]
    tensor = few.assign(granularity_w="tensor", loss=few["loss"] + 1)
    floats = few[few["P_w"] == 4].assign(format_w="e2m1", loss=few["loss"] + 2)
    alone = analysis.fit("kumar_neff", usual, bootstrap=0)
    found = analysis.fit("kumar_neff", pd.concat([usual, tensor, floats]), bootstrap=0)
    assert found.params == pytest.approx(alone.params, rel=1e-6)
    assert found.left_out["P_w in training in another way"] == len(tensor) + len(floats)
    (said,) = [w for w in found.warnings if "alone, not on" in w]
    assert said.startswith("P_w in training: fitted on int channel alone, not on em channel, int tensor;")
    apart = analysis.fit("kumar_neff", pd.concat([usual, tensor]), bootstrap=0, filter="granularity_w != 'channel'")
    assert apart.params["gamma_w"] != pytest.approx(alone.params["gamma_w"], rel=0.05)
