from bench.report import tables
from bench.timing import Row, Spread


def spread(middle):
    return Spread(median=middle, low=middle * 0.9, high=middle * 1.1)


def row(**fields):
    return Row(**{"group": "g", "seconds": spread(0.02), "repeats": 3, "steps": 5, **fields})


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_times_and_ratios():
    rows = [
        row(variant="a", against="b", ratio=spread(0.5), goal="<= 1", met=True),
        row(variant="a", against="c"),
        row(variant="b", note="why"),
        row(variant="c", seconds=None, note="skipped: no compiler"),
    ]
    (text,) = tables(rows)
    title, _, header, _, *lines = text.splitlines()
    assert title == "## g"
    assert cells(header) == ["variant", "time", "quartiles", "against", "ratio", "quartiles", "goal", "met"]
    assert cells(lines[0]) == ["a", "20 ms", "[18, 22]", "b", "0.5", "[0.45, 0.55]", "<= 1", "yes"]
    assert cells(lines[1])[:4] == ["", "", "", "c"]
    assert cells(lines[3])[1] == "-"
    assert "- c: skipped: no compiler" in lines and len({len(line) for line in lines[:4]}) == 1


def test_throughput():
    rows = [
        row(variant="peak", model_flops=2.5e11),
        row(
            variant="ours",
            tokens_per_second=204800.0,
            model_flops=1.25e11,
            peak_share=spread(0.5),
            peak_memory_mb=1234.5,
            against="16 x theirs",
            ratio=spread(0.4),
            speed_up=spread(2.5),
            goal=">= 2x",
            met=True,
        ),
    ]
    (text,) = tables(rows)
    header, _, first, second = text.splitlines()[2:6]
    assert cells(header)[3:9] == ["tokens/s", "GFLOP/s", "of peak", "memory", "against", "speed-up"]
    assert cells(first)[3:7] == ["", "250", "", ""]
    assert cells(second)[3:] == [
        "204,800",
        "125",
        "50%",
        "1,234 MB",
        "16 x theirs",
        "2.5",
        "[2.25, 2.75]",
        ">= 2x",
        "yes",
    ]


def test_columns_that_hold_nothing_are_left_out():
    (text,) = tables([row(variant="v", tokens_per_second=9.5)])
    assert cells(text.splitlines()[2]) == ["variant", "time", "quartiles", "tokens/s"]
