"""What several parts cost if they multiply, against shares of N that are planted."""

import math

import pandas as pd
import pytest

from analysis.errors import InputError
from analysis.report.claims.product import logs, multiplied, together

N, A, ALPHA = 80_000, 300.0, 0.45
T = A * N**-ALPHA
SHARES = {"P_w": 0.6, "P_a": 0.3, "P_kv": 0.9}


def loss(share: float) -> float:
    return A * (N * share) ** -ALPHA + 1.2


def run(cluster="a", **bits) -> dict:
    widths = {part: bits.get(part, 16) for part in SHARES}
    share = math.prod(s for part, s in SHARES.items() if widths[part] < 16)
    return {"N": N, "D": 8e6, "cluster": cluster, **widths, "gap_qat": loss(share) - loss(1)}


def model(cluster="a", skip=()) -> list[dict]:
    low = [(), ("P_w",), ("P_a",), ("P_kv",), ("P_w", "P_a"), ("P_a", "P_kv"), ("P_w", "P_a", "P_kv")]
    return [run(cluster, **dict.fromkeys(parts, 4)) for parts in low if parts and parts not in skip]


def test_shares_that_multiply_are_predicted_whatever_alpha():
    several = together(pd.DataFrame(model()))
    assert [len(alone) for alone in several["alone"]] == [2, 2, 3]
    assert multiplied(several, [T] * 3) == pytest.approx(several["gap_qat"].to_numpy())
    # Two by hand: T (1 + c1/T)(1 + c2/T) - T = c1 + c2 + c1 c2 / T.
    one, two = several["alone"].iloc[0]
    assert several["gap_qat"].iloc[0] == pytest.approx(one + two + one * two / T)
    assert several["gap_qat"].iloc[0] > 1.15 * (one + two)  # so that their sum is another value


def test_only_models_with_all_their_parts_alone_count():
    several = together(pd.DataFrame([*model("a"), *model("b", skip=[("P_kv",)])]))
    assert several.groupby("cluster").size().to_dict() == {"a": 3, "b": 1}
    widths = {"P_w": 4, "P_a": 8}
    with pytest.raises(InputError, match="no model with two parts"):
        together(pd.DataFrame([run(P_w=4), run(P_a=4), run(**widths)]))


def test_the_ratio_is_of_sums_of_a_model_and_its_mean_one_of_logarithms():
    several = together(pd.DataFrame([*model("a"), *model("b"), *model("c")]))
    factors = several["cluster"].map({"a": 1.0, "b": 2.0, "c": 4.0})
    found = logs(several["gap_qat"] * factors, several)
    assert (found.value, found.units, found.freedom) == (pytest.approx(math.log(2)), 3, 2)
    half = 4.302653 * math.log(2) / math.sqrt(3)  # Student's t with two degrees of freedom
    assert found.high - found.value == pytest.approx(half, rel=1e-5)
