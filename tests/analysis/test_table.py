"""Bad tables: each fault is one line that names the value and what would be accepted."""

import numpy as np
import pandas as pd
import pytest

import analysis
from analysis import table
from analysis.errors import InputError


def fault_of(call, *arguments, **options):
    with pytest.raises(InputError) as fault:
        call(*arguments, **options)
    assert "\n" not in str(fault.value)
    return str(fault.value)


def test_files_that_are_no_tables(tmp_path):
    assert "no such table" in fault_of(table.load, tmp_path / "none.csv")
    assert "is a folder" in fault_of(table.load, tmp_path)
    for name, content in (("empty", b""), ("ragged", b"N,D\n1,2,3,4\n1\n1,2,3,4,5\n"), ("bytes", b"N,D\n\xff\xfe,1\n")):
        (tmp_path / name).write_bytes(content)
        assert "not a CSV table" in fault_of(table.load, tmp_path / name)
    (tmp_path / "header").write_text("N,D,loss\n")
    assert "no rows" in fault_of(table.load, tmp_path / "header")


def test_a_table_is_the_one_whose_checksum_lies_beside_it(tmp_path, tables):
    path, beside = tmp_path / "runs.csv", tmp_path / "runs.csv.sha256"
    tables.simulate(post=()).to_csv(path, index=False)
    whole = table.load(path)
    beside.write_text(f"{table.digest(path)}  runs.csv\n")
    assert table.load(path).equals(whole)
    for damaged, content in ((path, path.read_bytes()), (beside, beside.read_bytes())):
        for changed in (content[: len(content) // 2], content[:10] + bytes([content[10] ^ 1]) + content[11:], b""):
            damaged.write_bytes(changed)
            assert f"{path}: damaged, or edited since it was collected" in fault_of(table.load, path)
        damaged.write_bytes(content)
    assert table.load(path).equals(whole)


def test_bad_values_are_named_with_their_line(tmp_path, tables):
    frame = tables.simulate(post=())
    for column, value, wanted in (
        ("loss", -2.5, "loss: line 5 holds -2.5; expected a finite number above zero"),
        ("N", -1, "N: line 5 holds -1"),
        ("D", np.nan, "D: line 5 holds nan"),
        ("P_w", 0, "P_w: line 5 holds 0"),
    ):
        bad = frame.astype({column: float})
        bad.loc[bad.index[3], column] = value
        bad.to_csv(tmp_path / "runs.csv", index=False)
        assert fault_of(analysis.fit, "chinchilla", table.load(tmp_path / "runs.csv")).startswith(wanted)
    words = frame.astype({"loss": object})
    words.loc[words.index[0], "loss"] = "low"
    assert "loss: row 0 holds low" in fault_of(analysis.fit, "chinchilla", words)


def test_missing_columns_and_too_few_rows(tables):
    frame = tables.simulate()
    assert fault_of(analysis.fit, "chinchilla", frame.drop(columns="loss")).startswith(
        "loss: the table has no such column"
    )
    assert fault_of(analysis.fit, "kumar_ptq", frame.drop(columns="P_post")).startswith("P_post: the table has no such")
    runs = frame[frame["ptq"].isna()]
    assert "kumar_ptq: 0 usable rows for 4 parameters, needs at least 5" in fault_of(
        analysis.fit, "kumar_ptq", runs.assign(gap=np.nan, P_post=np.nan)
    )
    assert "chinchilla: 4 usable rows for 5 parameters, needs at least 6" in fault_of(
        analysis.fit, "chinchilla", runs.head(4)
    )
    assert "chinchilla: N has 1 different value, needs at least 3" in fault_of(
        analysis.fit, "chinchilla", runs[runs["N"] == 23_600]
    )
    assert "too few runs trained in low precision" in fault_of(analysis.fit, "kumar_neff", frame)


def test_flags_survive_the_csv(tmp_path):
    pd.DataFrame({"N": range(4), "diverged": [True, False, None, "True"]}).to_csv(tmp_path / "t.csv", index=False)
    assert table.flags(table.load(tmp_path / "t.csv"), "diverged").tolist() == [True, False, False, True]


def test_known_columns_have_their_types(tmp_path):
    """Whatever their values look like; and what is not a number, or not true or false, is named with its line."""
    path = tmp_path / "runs.csv"
    path.write_text("N,D,loss,commit,data_sha,own,clip\n1e6,2e7,3,123456789012,1e5,07,1\n2000000,3e7,inf,,2,x,\n")
    frame = table.load(path)
    assert frame["N"].tolist() == [1e6, 2e6] and frame["loss"].tolist() == [3, np.inf]
    assert frame["commit"].tolist()[0] == "123456789012" and frame["commit"].isna().tolist() == [False, True]
    assert frame["data_sha"].tolist() == ["1e5", "2"] and frame["own"].tolist() == ["07", "x"]
    assert table.flags(frame, "clip").tolist() == [True, False] and frame["clip"].isna().tolist() == [False, True]
    for name, bad, line in (
        ("loss", "low", "loss: line 3 holds low; expected a number"),
        ("D", "True", "D: line 3 holds True; expected a number"),
        ("diverged", "maybe", "diverged: line 3 holds maybe; expected true or false"),
    ):
        path.write_text(f"N,{name}\n1,\n1,{bad}\n")
        assert fault_of(table.load, path) == line


def test_switches_and_other_parts_are_settings_of_their_own(tables):
    frame = tables.simulate(noise=0)
    quantized = frame[frame["ptq"].notna()].iloc[:30]
    variants = [
        quantized.assign(format_post_a="int8", gap=quantized["gap"] * 2),
        quantized.assign(ptq="gptq", act_order=True, calib_tokens=4096.0, gap=quantized["gap"] / 2),
    ]
    found = analysis.fit("kumar_ptq", pd.concat([frame, *variants]), bootstrap=0)
    assert found.params == pytest.approx(tables.GAP, rel=1e-6)
    (said,) = [w for w in found.warnings if "alone, not on" in w]
    assert "gptq channel int act_order calib_tokens=4096" in said and "rtn channel int format_post_a=int8" in said
    for change, why in (({"P_emb": 4}, "P_emb below 16 bits"), ({"P_q": 4, "P_kv": 16}, "queries below 16 bits")):
        full = dict.fromkeys(change, 16)
        mixed = pd.concat([frame.assign(**full), frame.assign(**change, gap=frame["gap"] * 3)])
        found = analysis.fit("kumar_ptq", mixed, bootstrap=0)
        assert found.params == pytest.approx(tables.GAP, rel=1e-6)
        assert any(reason.startswith(why) for reason in found.left_out)


def test_a_law_in_the_error_of_formats_takes_all_of_them(tables):
    frame = tables.simulate(noise=0).assign(sigma2_post=lambda t: 4.0 ** -t["P_post"])
    frame["gap"] = 3e-3 * frame["D"] ** 0.5 / frame["N"] ** 0.2 * frame["sigma2_post"]
    blocks = frame[frame["ptq"].notna()].assign(granularity_post="block16")
    blocks[["sigma2_post", "gap"]] /= 2
    found = analysis.fit("gaussian", pd.concat([frame, blocks]), bootstrap=0, gap_below=1e3, bits=(3, 8))
    assert found.params == pytest.approx({"gamma_D": 0.5, "gamma_N": 0.2, "kappa": 1.0, "C_T": 3e-3}, rel=1e-5)
    assert "quantized in another way" not in found.left_out


def test_one_quantizer_is_chosen_and_said(tables):
    frame = tables.simulate(noise=0)
    other = frame[frame["P_post"] < 8].assign(granularity_post="block16")
    other["gap"] *= 0.5
    found = analysis.fit("kumar_ptq", pd.concat([frame, other]), bootstrap=0)
    assert found.params == pytest.approx(tables.GAP, rel=1e-6)
    assert found.left_out["quantized in another way"] == len(other.dropna(subset="ptq"))
    assert any("rtn channel int alone, not on rtn block16 int" in warning for warning in found.warnings)
    blocks = analysis.fit(
        "kumar_ptq", pd.concat([frame, other]), bootstrap=0, filter="granularity_post == 'block16'", gap_below=0.25
    )
    assert blocks.params["C_T"] == pytest.approx(tables.GAP["C_T"] / 2, rel=1e-6)


def test_rows_without_a_finite_loss_are_left_out(tables):
    frame = tables.simulate()
    bad = frame.assign(loss=frame["loss"].where(frame.index != frame.index[0], np.inf), diverged=False)
    bad.loc[frame.index[1], "diverged"] = True
    bad.loc[frame.index[2], ["loss", "gap"]] = np.nan
    bad.loc[frame.index[3], "loss"] = np.nan if pd.notna(frame.loc[frame.index[3], "gap"]) else -np.inf
    assert table.diverged(bad)[:3].all() and not table.diverged(bad)[4:].any()
    for law in ("chinchilla", "kumar_ptq"):
        made = analysis.fit(law, bad, bootstrap=0)
        assert made.left_out["diverged, or without a finite loss"] in (3, 4)
        clean = analysis.fit(law, bad[~table.diverged(bad)], bootstrap=0)
        assert (made.params, made.rows) == (clean.params, clean.rows)


def test_tokens_that_were_rounded_to_batches_are_one():
    def nominal(tokens, batches=None):
        frame = pd.DataFrame({"D": tokens} | ({} if batches is None else {"batch_tokens": batches}))
        return table.nominal_tokens(frame).tolist()

    four, two = [4_000_000 // b * b for b in (2048, 4096, 8192)], [2048, 4096, 8192]
    assert nominal(four, two) == nominal(four) == [min(four)] * 3
    assert nominal([*four, 8_000_000], [*two, 2048]) == [*[min(four)] * 3, 8_000_000]
    assert nominal([32_000_000, 32_499_712], [2048, 2048]) == [32_000_000, 32_499_712]
    assert nominal([3_997_696, 3_999_744, 4_001_792], [2048] * 3) == [3_997_696, 3_999_744, 4_001_792]
    assert nominal([1e6, 2e6, 4e6]) == [1e6, 2e6, 4e6]
    assert nominal([16_384, 20_480], [8192, 2048]) == [16_384, 20_480]
    assert isinstance(nominal([5, 7])[0], int)
