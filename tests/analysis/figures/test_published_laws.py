"""Gaps of models that others trained, beside the published laws."""

import numpy as np
import pandas as pd
import pytest

from analysis.errors import InputError
from analysis.figures.registry import FIGURES
from analysis.figures.rows import most_frequent
from analysis.fitting.store import published


def table(bytes_per_token=(4.0, 4.0)):
    rows = []
    for (size, tokens), each in zip(((1e8, 1e12), (2e8, 4e12)), bytes_per_token, strict=True):
        shared = {"N": size, "D": tokens, "loss": 3.0, "source": f"a/b@{size:g}", "bytes_per_token": each}
        rows.append(shared)
        for bits, sigma2 in ((3.0, 0.05), (4.0, 0.01)):
            quantized = {"ptq": "rtn", "P_post": bits, "format_post": f"int{bits:g}", "granularity_post": "channel"}
            rows.append({**shared, **quantized, "gap": 1 / bits, "gap_se": 0.01, "sigma2_post": sigma2})
    return pd.DataFrame(rows)


def test_gaps_and_laws_in_nats_a_token():
    drawn = FIGURES["published_laws"](table(), {})
    points = drawn.numbers[drawn.numbers["kind"] == "point"]
    assert sorted(points["value"]) == [1 / 4, 1 / 4, 1 / 3, 1 / 3]
    line = drawn.numbers[drawn.numbers["law"] == "kumar_ptq"]
    np.testing.assert_allclose(line["value"], published("kumar_ptq").predict(line))
    assert set(drawn.numbers["law"].dropna()) == {"kumar_ptq", "ouyang", "gaussian"}
    assert "per token" in drawn.figure.axes[0].get_ylabel()


def test_in_nats_a_byte_where_tokenizers_differ():
    drawn = FIGURES["published_laws"](table((4.0, 5.0)), {})
    numbers = drawn.numbers
    point = numbers[(numbers["kind"] == "point") & (numbers["N"] == 2e8) & (numbers["P_post"] == 4)]
    assert point["value"].item() == pytest.approx(1 / 4 / 5)
    line = numbers[(numbers["law"] == "ouyang") & (numbers["N"] == 1e8)]
    np.testing.assert_allclose(line["value"], published("ouyang").predict(line) / 4)
    assert "per byte" in drawn.figure.axes[0].get_ylabel()


@pytest.mark.parametrize("change", [{"source": np.nan}, {"D": np.nan}])
def test_only_models_of_others_whose_tokens_are_known(change):
    with pytest.raises(InputError, match="no row is of a model that others trained"):
        FIGURES["published_laws"](table().assign(**change), {})


def test_nothing_is_the_most_frequent_of_what_nobody_knows():
    assert np.isnan(most_frequent(pd.Series([np.nan, np.nan])))
    assert most_frequent(pd.Series([2.0, np.nan, 2.0, 1.0])) == 2.0
