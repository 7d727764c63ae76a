"""Names that people give to columns, and the ones that laws use: `params` is N, `val_loss` the loss.

Only what laws ask for is renamed, only where the table has no column of that name itself, and never without a word.
Exports of W&B are made into rows: a chart has a column a run, `RUN - METRIC`.
"""

import re
from collections.abc import Iterable

import pandas as pd

NAMES = {
    "gap": "delta_ptq ptq_gap quantization_gap ptq_degradation",
    "gap_qat": "penalty qat_gap qat_penalty quantization_penalty",
    "N": (
        "non_embedding_params non_embedding_parameters params_non_embedding params_no_embeddings "
        "n_params_non_embedding non_emb_params params parameters n_params num_params nparams n_parameters "
        "num_parameters param_count parameter_count model_params model_parameters total_params "
        "total_parameters model_size"
    ),
    "D": (
        "tokens n_tokens num_tokens ntokens token_count train_tokens training_tokens tokens_trained total_tokens "
        "training_tokens_seen data_tokens dataset_tokens"
    ),
    "C": "flops flop compute train_flops train_flop training_flops training_flop total_flops total_flop n_flops",
    "loss": (
        "val_loss validation_loss valid_loss eval_loss heldout_loss held_out_loss final_val_loss "
        "final_validation_loss final_eval_loss loss_val test_loss final_loss ce_loss cross_entropy c4_loss mean_loss "
        "train_loss training_loss loss_train final_train_loss"
    ),
    "P_w": "w_bits weight_bits weights_bits wbits bits_w n_bits_w bits_weights",
    "P_a": "a_bits activation_bits activations_bits act_bits abits bits_a n_bits_a bits_activations",
    "P_kv": "kv_bits kvbits bits_kv kv_cache_bits cache_bits",
    "P_post": "post_bits ptq_bits bits_post bits_ptq bits_after_training quantized_bits",
    "scheme": "quantization_scheme precision_scheme quant_scheme training_precision training_format",
    "unique_tokens": "n_unique_tokens tokens_unique num_unique_tokens",
    "run_id": "run_name run run_path",
}
"""What laws call it -> what others do, the preferred name first; compared in small letters, with `_` for all marks."""
BITS = ("bits", "n_bits", "nbits", "bit_width", "bitwidth", "precision_bits")
"""Of the weights: after training where the table has gaps, else in training."""
UNITS = {
    **dict.fromkeys(("k", "thousand", "thousands"), 1e3),
    **dict.fromkeys(("m", "mn", "million", "millions"), 1e6),
    **dict.fromkeys(("b", "bn", "g", "billion", "billions"), 1e9),
    **dict.fromkeys(("t", "tn", "trillion", "trillions"), 1e12),
}
COUNTED = ("N", "D", "unique_tokens")  # what may be given in millions
_WORD = "|".join(UNITS)
_UNIT = re.compile(rf"(.+?)(?:\s*[(\[]\s*({_WORD})\b[^)\]]*[)\]]|_(?:in_)?({_WORD}))", re.IGNORECASE)
_SIZED = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kKmMbBtT])\s*")  # 124M
WANDB_SPREAD = ("__MIN", "__MAX")  # of a group of runs, or between two points of a chart
WANDB_ID, WANDB_STATE = "ID", "State"  # columns of its table of runs
SIZE = re.compile(r"(?<![A-Za-z0-9.])[nN]?(\d+(?:\.\d+)?)([kKmMbB])(?![A-Za-z0-9])")


def recognized(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """`frame` with columns of the names that laws use beside its own, and what was done, such as `N = params`."""
    frame, said = _long(frame)
    for wanted, (given, factor) in _known(frame.columns).items():
        values, unit = frame[given], ""
        if factor != 1:
            values, unit = pd.to_numeric(values, errors="coerce") * factor, f" x {factor:g}"
        frame = frame.assign(**{wanted: values})
        said.append(f"{wanted} = {given}{unit}")
    for name in COUNTED:
        if name in frame and (numbers := _sized(frame[name])) is not None:
            said.append(f"{name} from texts such as {frame[name].dropna().iloc[0]}")
            frame = frame.assign(**{name: numbers})
    return _from_compute(frame, said)


def _sized(values: pd.Series) -> pd.Series | None:
    """Texts such as 124M as numbers; None where not all of them are such, or numbers."""
    if pd.api.types.is_numeric_dtype(values):
        return None
    parts = values.astype(str).str.extract(_SIZED.pattern + "$")
    plain = pd.to_numeric(values.where(parts[1].isna()), errors="coerce")
    if parts[1].isna().all() or (values.notna() & parts[1].isna() & plain.isna()).any():
        return None
    return plain.fillna(pd.to_numeric(parts[0]) * parts[1].str.lower().map(UNITS))


def plain(name: str) -> str:
    """A name in small letters, with `_` for everything that is neither letter nor digit."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def _known(columns: Iterable[str]) -> dict[str, tuple[str, float]]:
    """What laws call it -> the column that is it, and its unit."""
    columns = [str(column) for column in columns]
    there = set(columns)
    spelled: dict[str, tuple[str, float]] = {}
    for column in columns:
        spelled.setdefault(plain(column), (column, 1.0))
    for column in columns:  # after the others: `params` before `params_M`
        if match := _UNIT.fullmatch(column.strip()):
            spelled.setdefault(f"{plain(match[1])} *", (column, UNITS[(match[2] or match[3]).lower()]))
    chosen_of: dict[str, tuple[str, float]] = {}
    for wanted, names in NAMES.items():
        if wanted in there:
            continue
        others = names.split()
        if len(wanted) > 1 or (wanted in "ND" and {"n", "d"} <= there):  # one letter alone could be anything
            others.insert(0, wanted.lower())
        if wanted == ("P_post" if {"gap", "ptq"} & (there | set(chosen_of)) else "P_w"):
            others += BITS
        if wanted in COUNTED:
            others += [f"{name} *" for name in (wanted.lower(), *others)]
        taken = {given for given, _ in chosen_of.values()}
        options = [spelled[name] for name in others if name in spelled]
        chosen = next((pair for pair in options if pair[0] not in NAMES and pair[0] not in taken), None)
        if chosen:
            chosen_of[wanted] = chosen
    return chosen_of


def _from_compute(frame: pd.DataFrame, said: list[str]) -> tuple[pd.DataFrame, list[str]]:
    """With N or D from C = 6 N D, where one of them is missing."""
    for wanted, other in (("D", "N"), ("N", "D")):
        if wanted not in frame and {"C", other} <= set(frame):
            product, size = (pd.to_numeric(frame[name], errors="coerce") for name in ("C", other))
            frame = frame.assign(**{wanted: product / (6 * size)})
            said.append(f"{wanted} = C / 6{other}")
    return frame, said


# -- W&B --------------------------------------------------------------------------------------------------------------


def _long(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """A chart of W&B, a column a run and metric, as a row a run and point; other tables as they are."""
    if {"Name", WANDB_ID, WANDB_STATE} <= set(map(str, frame.columns)) and "run_id" not in frame:
        return frame.rename(columns={WANDB_ID: "run_id"}), [f"run_id = {WANDB_ID} (a table of runs from W&B)"]
    columns = [str(column) for column in frame.columns]
    pairs = [(c, *c.rsplit(" - ", 1)) for c in columns if " - " in c and not c.endswith(WANDB_SPREAD)]
    # A chart has what is on its axis, and nothing else.
    axis = [c for c in columns if " - " not in c]
    if not pairs or len(axis) != 1:
        return frame, []
    rows = [
        pd.DataFrame({axis[0]: frame[axis[0]], "run_id": run, "metric": metric, "value": frame[column]})
        for column, run, metric in pairs
    ]
    tall = pd.concat(rows).dropna(subset="value")
    made = tall.pivot_table(index=[axis[0], "run_id"], columns="metric", values="value", sort=False).reset_index()
    made = made.rename_axis(columns=None)
    said = [f"a chart of W&B: {made['run_id'].nunique()} runs, {axis[0]} and {', '.join(made.columns[2:])}"]
    sizes = {run: SIZE.findall(run) for run in made["run_id"].unique()}
    if "N" not in made and all(len(sizes_of) == 1 for sizes_of in sizes.values()):
        number = {run: float(value) * UNITS[unit.lower()] for run, [(value, unit)] in sizes.items()}
        made["N"] = made["run_id"].map(number)
        said.append("N from the names of runs")
    return made, said
