"""Filters pick the rows that pandas would, run nothing, and refuse in one line whatever else they are given."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from analysis.errors import InputError
from analysis.filters import DEEPEST, FUNCTIONS, LONGEST, filtered
from analysis.table import load

FRAME = pd.DataFrame(
    {
        "N": [23_600, 82_900, 201_000, 664_000],
        "D": [4_000_000, 3_999_744, 2**40, 0],
        "loss": [2.5, np.nan, np.inf, -1.25],
        "P_post": [3.0, np.nan, 4.0, 3.0],
        "ptq": pd.Series(["rtn", None, "a & b", "gptq"], dtype=str),
        "mixed": ["7", None, "x", "rtn"],
        "diverged": [True, False, False, True],
        "clip": [True, None, False, True],
        "empty": [np.nan] * 4,
        "a b": [1, 2, 3, 4],
    }
)


def line_of(expression, frame=FRAME) -> str:
    with pytest.raises(InputError) as fault:
        filtered(frame, expression)
    line = str(fault.value)
    assert line.isprintable() and len(line) < 600, line
    assert line.startswith("filter "), line
    return line


@pytest.mark.parametrize(
    ("expression", "rows"),
    [
        ("N > 1e5 and ptq == 'gptq'", [3]),
        ("N > 1e5 & ptq == 'gptq' | N < 3e4", [0, 3]),
        ("(N > 1e5) & ~(ptq == 'gptq')", [2]),
        ("ptq == 'a & b'", [2]),
        ('ptq == "a & b" or `a b` == 1', [0, 2]),
        ("not diverged", [1, 2]),
        ("~diverged & True", [1, 2]),
        ("clip == True", [0, 3]),
        ("clip != True", [1, 2]),
        ("P_post in (3, 5)", [0, 3]),
        ("P_post not in [3, 5] and ptq in ['rtn', 'a & b']", [2]),
        ("P_post not in [-3]", [0, 1, 2, 3]),
        ("3e4 < N <= 201_000 != D", [1, 2]),
        ("loss < inf and loss > -inf", [0, 3]),
        ("isnull(loss)", [1]),
        ("notnull(ptq) and isnull(empty)", [0, 2, 3]),
        ("log2(D) == 40 and log10(D) > log(exp(1)) and sqrt(abs(-D)) == 2 ** 20", [2]),
        ("D * D * D > 1e30", [2]),  # whole numbers of 64 bits end before
        ("(diverged * 1) + (N > 1e5) * 1 == 2", [3]),
        ("-N // 2 % 7 < 6 / 2 and +N > 0", [0]),
        ("loss != loss", [1]),
        ("mixed == 7 or mixed == 'x'", [2]),
        ("N == (  \n 23600)", [0]),
    ],
)
def test_rows(expression, rows):
    assert filtered(FRAME, expression).index.tolist() == rows


def test_no_filter_is_every_row():
    assert filtered(FRAME, None) is FRAME
    assert filtered(FRAME, "") is FRAME


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("M > 3", "M: the table has no such column; it has N, D, loss"),
        ("p_post > 3", "p_post: the table has no such column; did you mean P_post?"),
        ("`c d` > 3", "c d: the table has no such column"),
        ("N >", "cannot be read (invalid syntax)"),
        ("N + 1", "true or false for each row"),
        ("3", "true or false for each row"),
        ("1 < 2", "true or false for each row"),
        ("[N]", "[N]: not part of a filter"),
        ("N < 0", "leaves none of 4 rows"),
        ("ptq > 3", "ptq > 3: these cannot be compared"),
        ("ptq + 'x' == 'rtnx'", "ptq: expected a number"),
        ("not N", "N: expected a condition"),
        ("clip", "true or false for each row"),
        ("clip and N > 0", "clip: expected a condition"),
        ("N and diverged", "N: expected a condition"),
        ("diverged + diverged == 2", "diverged + diverged: of two conditions"),
        ("N < 9**9**9", "9 ** 9 ** 9: is no finite number"),
        ("N < 1 / 0", "1 / 0: is no finite number"),
        ("N < (-8) ** 0.5", "(-8) ** 0.5: is no finite number"),
        ("N in P_post", "P_post"),
        ("3 in [3, 4]", "3 in [3, 4]"),
        ("N in [D]", "[D]: expected a list of values"),
        ("N == [1, 2]", "N == [1, 2]: a list stands behind `in`"),
        ("N is 3", "N is 3: not part of a filter"),
        ("ptq.isnull()", "ptq.isnull(): not part of a filter"),
        ("ptq.isnull()", "write isnull(ptq)"),
        ("ptq == None", "None: not part of a filter"),
        ("sin(N) > 0", "sin(N): not part of a filter"),
        ("log(N, 2) > 0", "log(N, 2): not part of a filter"),
        ("log(N, where=D) > 0", "not part of a filter"),
        ("log(*[N]) > 0", "*[N]: not part of a filter"),
        ("N if N > 3 else D", "not part of a filter"),
        ("N > 1j", "1j: not part of a filter"),
        ("ptq == b'rtn'", "b'rtn': not part of a filter"),
        ("ptq == f'{N}'", "not part of a filter"),
        ("(M := N) > 3", "not part of a filter"),
        ("[N for N in D]", "not part of a filter"),
        ("(lambda: N)() > 3", "not part of a filter"),
        ("N[0] > 3", "N[0]: not part of a filter"),
        ("@N > 3", "cannot be read"),
        ("N > 3; D > 3", "cannot be read"),
        ("import os", "cannot be read"),
        (3, "expected a condition on columns"),
        (["N > 3"], "expected a condition on columns"),
    ],
)
def test_everything_else_is_one_line(expression, reason):
    assert reason in line_of(expression)


def test_columns_of_one_name_are_refused():
    assert "several columns" in line_of("N > 3", pd.concat([FRAME, FRAME[["N"]]], axis=1))


HOSTILE = (
    "@pd.io.common.os.system('touch {0}')",
    "N.to_csv('{0}') != 1",
    "N.to_pickle('{0}') != 1",
    "__import__('os').system('touch {0}') == 0",
    "().__class__.__base__.__subclasses__()",
    "`N`.to_csv('{0}') != 1",
    'eval(\'open("{0}", "w")\') == 1',
    "log.__class__ == 3",
    "isnull(open('{0}', 'w'))",
    "N > 3 | N.to_csv('{0}')",
)


@pytest.mark.parametrize("expression", HOSTILE)
def test_nothing_runs(expression, tmp_path):
    line_of(expression.format(tmp_path / "X"))
    assert not list(tmp_path.iterdir())


def test_nothing_runs_on_the_command_line(tmp_path):
    FRAME.to_csv(tmp_path / "runs.csv", index=False)
    words = ["fit", "kumar_ptq", "runs.csv", "--out", "fits.json", "--filter", HOSTILE[0].format("X")]
    command, root = [sys.executable, "-m", "analysis", *words], {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=root)
    assert done.returncode == 1 and not (tmp_path / "X").exists()
    assert "fit: filter " in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "expression",
    [
        "(" * 100_000 + "N" + ")" * 100_000 + " > 1",
        "(" * 190 + "N" + ")" * 190 + " > 1",
        "(" * 3_000 + "N",
        "-" * (LONGEST - 5) + "N > 1",
        "~" * (LONGEST - 10) + "diverged",
        "not " * 2_000 + "diverged",
        "N" + ".a" * 4_000,
        "N" + "[0]" * 3_000,
        "log(" * 90 + "N" + ")" * 90 + " > 1",
        "N > " + "+".join("1" * 4_000),
        "N ** " * 3_000 + "N > 1",
        "9**9**9**9**9 > 1",
        "9" * 9_000 + " > N",
        "9" * 4_000 + " + 1 > N",
        "ptq == '" + "x" * LONGEST + "'",
        "N < " * 2_000 + "N or M",
        "x" * 9_000,
        "f'" + "{" * 2_000 + "'",
    ],
)
def test_large_filters_are_quick_lines(expression):
    began = time.monotonic()
    try:
        assert len(filtered(FRAME, expression))
    except InputError as fault:
        assert len(str(fault)) < 600
    assert time.monotonic() - began < 2


def test_depth_does_not_double_the_work():
    deep = "N"
    for _ in range(DEEPEST // 2 - 2):
        deep = f"(1 < {deep} < 2) * 1"
    began = time.monotonic()
    assert "leaves none" in line_of(f"{deep} > 5")
    assert time.monotonic() - began < 2


SIGNS = [
    *"+-*/%&|~()[],`'\"@.;:{}\\#=<>!\n\0 ",
    "**",
    "//",
    "==",
    "!=",
    "<=",
    "1e999",
    "0",
    "3",
    "\ud800",
    "é",
    "'rtn'",
]
WORDS = [
    f" {word} "
    for word in ["in", "not", "and", "or", "None", "True", "inf", "lambda", "__import__", "if", "else", "for", "is"]
]
PIECES = st.sampled_from([*FRAME.columns, *FUNCTIONS, *SIGNS, *WORDS])


@settings(max_examples=250, deadline=None)
@given(st.text(max_size=60) | st.lists(PIECES, max_size=12).map("".join))
@example("\ud800 > 1")
@example("\0")
@example("N in [" + "9" * 400 + "]")
@example("N == " + "9" * 400)
@example("abs(diverged)==1")
def test_random_text_is_rows_or_a_line(text):
    try:
        assert len(filtered(FRAME, text))
    except InputError as fault:
        assert str(fault).isprintable()


NUMBERS = st.recursive(
    st.sampled_from(["N", "D", "loss", "P_post", "empty", "`a b`", "3", "1e5", "0.5", "7"]),
    lambda one: (
        st.tuples(one, st.sampled_from(["+", "-", "*", "/", "**", "%"]), one).map(lambda t: f"({t[0]} {t[1]} {t[2]})")
        | one.map(lambda text: f"-{text}")
        | st.tuples(st.sampled_from(["abs", "exp", "sqrt"]), one).map(lambda t: f"{t[0]}({t[1]})")
    ),
    max_leaves=4,
)
TEXTS = st.tuples(st.sampled_from(["ptq", "mixed"]), st.sampled_from(["'rtn'", "'a & b'", "''"]))
# Pandas takes `not 3 < 4` for true, so that numbers are compared with columns alone.
COLUMNS = st.tuples(st.sampled_from(["N", "D", "loss", "P_post"]), st.sampled_from("+-*/"), NUMBERS).map(" ".join)
CONDITIONS = st.recursive(
    st.tuples(COLUMNS, st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), NUMBERS).map(" ".join)
    | st.tuples(COLUMNS, COLUMNS, NUMBERS).map(lambda t: f"{t[0]} < {t[1]} <= {t[2]}")
    | TEXTS.map(" == ".join)
    | TEXTS.map(lambda t: f"{t[1]} != {t[0]}")
    | st.sampled_from(["diverged", "diverged == True", "clip == True", "clip != False"])
    | st.sampled_from(["P_post in [3, 5]", "P_post not in (3, 4)", "ptq in ['rtn', 'x']", "ptq not in ['rtn']"]),
    lambda one: (
        st.tuples(one, st.sampled_from(["and", "or", "&", "|"]), one).map(lambda t: f"({t[0]} {t[1]} {t[2]})")
        | st.tuples(st.sampled_from(["not ", "~"]), one).map(lambda t: f"{t[0]}({t[1]})")
    ),
    max_leaves=4,
)


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=150, deadline=None)
@given(CONDITIONS)
def test_rows_are_those_of_pandas(text):
    """Computed by it in float64, as here: its whole numbers overflow in silence."""
    numbers = {name: FRAME[name].astype(float) for name in ("N", "D", "a b")}
    try:
        wanted = FRAME.assign(**numbers).eval(text, engine="python")
    except Exception:  # what pandas cannot do
        wanted = None
    try:
        found = filtered(FRAME, text).index.tolist()
    except InputError as fault:
        found = [] if "leaves none" in str(fault) else None
    if found is not None and isinstance(wanted, pd.Series) and wanted.dtype == bool:
        assert found == FRAME.index[wanted].tolist()


COMMITTED = (
    "N > 1e5 and ptq == 'rtn'",
    "schedule == 'cosine'",
    "N < 400000.0",
    "D < 10000000.0",
    "ptq == 'awq' and granularity_post == 'block16'",
    "(P_a >= 16 or granularity_a == 'tensor') and (P_kv >= 16 or granularity_kv == 'tensor')",
    "(P_w >= 16 or granularity_w == 'channel') and (P_w < 16) * 1 + (P_a < 16) * 1 + (P_kv < 16) * 1 <= 1",
)


@pytest.mark.parametrize("expression", COMMITTED)
def test_committed_filters_pick_the_rows_of_pandas(expression):
    results = Path(__file__).parents[2] / "results"
    for path in (results / "overtraining" / "runs.csv", results / "activations" / "runs.csv"):
        frame = load(path)
        mask = frame.eval(expression, engine="python")
        if mask.any():
            pd.testing.assert_frame_equal(filtered(frame, expression), frame[mask])
        else:
            assert "leaves none" in line_of(expression, frame)
