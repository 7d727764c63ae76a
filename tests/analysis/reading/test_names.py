"""Columns under other names: recognized and said, mapped by a user, or exported by W&B."""

import numpy as np
import pandas as pd
import pytest

from analysis import table
from analysis.errors import InputError
from analysis.reading import doubts
from analysis.reading.columns import parsed


def load(tmp_path, content, columns=None):
    path, said = tmp_path / "runs.csv", []
    path.write_text(content)
    return table.load(path, columns, say=said.append), said


@pytest.mark.parametrize(
    ("header", "row", "wanted"),
    [
        ("params,tokens,val_loss", "1e8,2e9,3.1", {"N": 1e8, "D": 2e9, "loss": 3.1}),
        ("Params (M),tokens_B,Val Loss", "124,2.5,3.1", {"N": 1.24e8, "D": 2.5e9, "loss": 3.1}),
        ("N (millions),D [billion tokens],loss", "124,2.5,3.1", {"N": 1.24e8, "D": 2.5e9, "loss": 3.1}),
        ("model size,training FLOP,loss", "1e8,6e17,3.1", {"N": 1e8, "C": 6e17, "D": 1e9, "loss": 3.1}),
        ("n,d,Loss", "1e8,2e9,3.1", {"N": 1e8, "D": 2e9, "loss": 3.1}),
        ("params,tokens,loss", "124M,2.5B,3.1", {"N": 1.24e8, "D": 2.5e9, "loss": 3.1}),
        ("N,D,loss,w_bits,a_bits,kv_bits", "1,2,3,4,8,16", {"P_w": 4, "P_a": 8, "P_kv": 16}),
        ("N,D,loss,bits", "1,2,3,4", {"P_w": 4}),
        ("N,D,loss,bits,delta_ptq", "1,2,3,4,.1", {"P_post": 4, "gap": 0.1}),
        ("params,non_embedding_params,D,loss", "2e8,1e8,2,3", {"N": 1e8}),
        ("N,D,train_loss,eval/loss", "1,2,3,4", {"loss": 4}),
    ],
)
def test_usual_names_are_known_and_said_in_one_line(header, row, wanted, tmp_path):
    found, said = load(tmp_path, f"{header}\n{row}\n")
    for name, value in wanted.items():
        assert found[name].tolist() == [pytest.approx(value)], name
        assert name in header.split(",") or f"{name} = " in said[0] or f"{name} from" in said[0]
    assert len(said) == 1 and "\n" not in said[0]
    assert set(header.split(",")) <= set(found.columns)  # filters may use them


def test_what_is_there_is_left_alone(tmp_path):
    found, said = load(tmp_path, "N,D,loss,val_loss,tokens,n,c\n1,2,3,4,5,6,7\n")
    assert said == [] and found[["N", "D", "loss"]].to_numpy().tolist() == [[1, 2, 3]]
    assert "C" not in found


def test_a_chart_of_wandb_becomes_rows(tmp_path):
    header = '"tokens","gpt-24M - val/loss","gpt-24M - val/loss__MIN","gpt-24M - val/loss__MAX","gpt-0.1B - val/loss"'
    found, said = load(tmp_path, f"{header}\n1e8,3.5,3.4,3.6,3.3\n2e8,3.2,3.2,3.2,\n")
    rows = found.sort_values(["N", "D"])[["N", "D", "loss", "run_id"]].to_numpy().tolist()
    small, large = "gpt-24M", "gpt-0.1B"
    assert rows == [[24e6, 1e8, 3.5, small], [24e6, 2e8, 3.2, small], [1e8, 1e8, 3.3, large]]
    assert "a chart of W&B: 2 runs" in said[0] and "N from the names of runs" in said[0]


def test_a_table_of_runs_from_wandb(tmp_path):
    found, _ = load(
        tmp_path, "Name,ID,State,params,tokens,val/loss\na,x1,finished,1e6,1e9,3.1\na,x2,finished,1e6,1e9,3\n"
    )
    assert found["run_id"].tolist() == ["x1", "x2"] and found["loss"].tolist() == [3.1, 3]


def test_a_map_comes_first(tmp_path):
    columns = parsed(["N=size,D==steps*524288", "loss=nll", "scheme=='bf16'", "P_w=round bits"])
    assert columns == {"N": "size", "D": "=steps*524288", "loss": "nll", "scheme": "='bf16'", "P_w": "round bits"}
    content = "size,steps,nll,params,round bits\n1e6,100,3,7,4\n2e6,200,2.9,7,8\n"
    found, said = load(tmp_path, content, columns)
    assert found["N"].tolist() == [1e6, 2e6] and found["D"].tolist() == [52428800, 104857600]
    assert found["scheme"].tolist() == ["bf16"] * 2 and found["P_w"].tolist() == [4, 8] and said == []
    swapped, _ = load(tmp_path, "N,D,loss\n1,2,3\n", {"N": "D", "D": "=N * 1e9"})
    assert swapped[["N", "D"]].to_numpy().tolist() == [[2, 1e9]]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("N", "columns='N': expected NAME=COLUMN or NAME==EXPRESSION"),
        ("N=,D=x", "columns='N=': expected"),
        ("N=a,N=b", "columns: N is given twice"),
        ("N=sise", "columns=N=sise: the table has no such column; did you mean size?"),
        ("N==size*stepz", "columns=N==size*stepz: stepz: the table has no such column"),
        ("N==size.sum()", "columns=N==size.sum(): "),
        ("N==__import__('os')", "columns=N==__import__('os'): "),
    ],
)
def test_bad_maps_are_one_line(text, line, tmp_path):
    with pytest.raises(InputError) as fault:
        load(tmp_path, "size,steps,loss\n1e6,100,3\n", parsed([text]))
    assert str(fault.value).startswith(line) and "\n" not in str(fault.value)


# ---- doubts ----


def doubts_of(frame, variables=("N", "D"), response="loss"):
    return doubts.lines(frame, "chinchilla", variables, response, [*table.TYPES, *variables, response])


def test_rows_that_repeat_are_said_with_their_number(tables):
    frame = tables.simulate(post=())
    assert doubts_of(frame) == []
    (line,) = doubts_of(pd.concat([frame, frame.head(5)]))
    assert line.startswith(f"5 of {len(frame) + 5} rows repeat others in all columns")


def test_checkpoints_without_names_of_runs_are_said():
    steps = np.arange(1, 101) * 1e8
    frame = pd.DataFrame(
        [(n, d, 3 - 0.1 * np.log(d * n)) for n in (1e7, 1e8) for d in steps], columns=["N", "D", "loss"]
    )
    (line,) = doubts_of(frame)
    assert line.startswith("200 rows are of 2 different N, and no column run_id or cluster says which")
    assert doubts_of(frame.assign(run_id=frame["N"])) == []


def test_units_are_asked_for(tables):
    frame = tables.simulate(post=())
    for change, what in (
        ({"loss": np.exp(frame["loss"]) * 20}, "loss is above 20 in all rows: is it a perplexity?"),
        ({"D": frame["D"] / 1e9}, "D is below 10000 in all rows: is it in millions or billions?"),
        ({"N": frame["N"] / 1e6}, "N is below 1000 in all rows"),
    ):
        (line,) = doubts_of(frame.assign(**change))
        assert line.startswith(what) and "--columns" in line


def test_weights_and_precisions_that_go_unused_are_said(tables):
    frame = tables.simulate(post=(), seeds=1)
    odd = np.arange(len(frame)) % 2
    assert doubts_of(frame.assign(weight=odd)) == ["the column weight is not used: --weights weight weighs rows by it"]
    (line,) = doubts_of(frame.assign(precision=np.where(odd, "int4", "bf16")))
    assert line == "rows differ in precision (bf16, int4), which chinchilla does not know; narrow with --filter"
    named = frame.assign(scheme=np.where(odd, "int4", "bf16"), quantizer=np.where(odd, "rtn", "none"))
    assert doubts_of(named, ("N", "D", "scheme")) == []  # what follows from the scheme is known
