"""The commands that both sides run, in an output folder that holds a copy of the tables below results/.

A command may only use what is stable across refactors: documented commands, settings and files.
"""

import dataclasses
import shutil
from pathlib import Path

from bench.unchanged.compare import RENAMED_FILES

STUDIES = Path(__file__).parent  # Hydra finds sweeps/unchanged.yaml below it
SMALL = (
    *("study=unchanged", "tracking=off", "runtime.threads=1", "runtime.device=cpu", "runtime.memory_gb=8"),
    *("model=24k", "model.d_ff=64", "schedule.warmup_tokens=512", "ptq.formats=[int4]", "data.validation_documents=8"),
    *("data.eval_windows=16", "data.sequence_length=32", "data.batch_tokens=256", "data.tokens=5120"),
)
QUANTIZE = ("scaling.ptq", *SMALL[:4], "ptq.calibration_tokens=1024")
RULES = "absmax,mse,gaussian,percentile99.9,absmean,pow2_floor,pow2_ceil,pow2_nearest,e4m3"
TABLE = "results/{}/runs.csv"
PRINTED = {
    "laws": ("laws",),
    "predict": ("predict", "paper", "--N", "8e9", "--D", "15e12", "--post", "int4"),
    "plan": ("plan", "paper", "--flops", "1e21"),
    "compare-weights": ("compare", TABLE.format("weights"), "--holdout", "random"),
    "compare-demo": ("compare", TABLE.format("demo"), "--holdout", "D"),
    "slopes-demo": ("slopes", "kumar_ptq", TABLE.format("demo")),
    "profile-demo": ("profile", "kumar_ptq", TABLE.format("demo"), "--parameter", "gamma_D"),
}
"""Commands of the analysis whose output is compared as it is printed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """A chain of commands that run one after the other."""

    name: str
    commands: tuple[tuple[str, ...], ...]
    """Module and arguments of each, as for `python -m`."""
    printed: str | None = None
    """File for what the last one prints."""
    after: tuple[str, ...] = ()
    """Names of the tasks whose files it reads."""


def tasks(code: Path, out: Path) -> list[Task]:
    """What the code in `code` is to do in `out`, the longest first."""
    tables = sorted((out / "results").glob("*/runs.csv"), key=lambda path: -path.stat().st_size)
    figures = [
        Task(name=f"figures {path.parent.name}", commands=(("analysis", "figures", path.parent.name),))
        for path in tables
    ]
    report = Task(name="report", commands=(("analysis", "report"),), after=tuple(task.name for task in figures))
    plans = [_plan(path.stem) for path in sorted((code / "sweeps").glob("*.yaml"))]
    printed = [
        Task(name=f"analysis {name}", commands=(("analysis", *command),), printed=f"printed/{name}.txt")
        for name, command in PRINTED.items()
    ]
    return [*figures, _sweep(), report, *plans, *printed]


def _plan(study: str) -> Task:
    command = ("scaling.sweep", "plan", study, "--ids", "--out", f"cells/{study}.csv", "runtime.memory_gb=64")
    return Task(name=f"plan {study}", commands=(command,), printed=f"plans/{study}.txt")


def _sweep() -> Task:
    """Trains the small study, three runs with it that no grid can say, and quantizes again; all into one table."""
    text = ("data=text", "data.corpus.paths=[text]", "data.corpus.document=line")
    bpe = ("data/tokenizer=bpe", "data.tokenizer.vocab_size=300")
    synthetic = ("data=synthetic", "data.corpus.documents=400", "data.corpus.document_tokens=128")
    compiled = ("runtime.compile=on", "runtime.dtype=bfloat16", "precision=w4a4kv4")
    return Task(
        name="small sweep",
        commands=(
            ("scaling.train", "--multirun", "--config-dir", str(STUDIES), "sweeps=unchanged"),
            ("scaling.train", *SMALL, *text),
            ("scaling.train", *SMALL, *text, *bpe),
            ("scaling.train", *SMALL, *synthetic, *compiled),
            (
                *(*QUANTIZE, "ptq=all", "runs='*-w16a16kv16-s[0356]-*'", "ptq.granularities=[channel,tensor,block16]"),
                "ptq.formats=[int3,uint4,e2m1,nf4,binary,mxfp4,mxint8,nvfp4]",
            ),
            (
                *(*QUANTIZE, "ptq=gptq", "ptq.formats=[int4,int3-hadamard]", "ptq.act_order=true", "ptq.damping=0.1"),
                *("ptq.activations=[trained,int8]", "ptq.kv=[trained,int8]", "ptq.granularity_activations=token"),
                *("ptq.granularity_kv=token", "runs='*-s0-*'"),
            ),
            (*QUANTIZE, "ptq=awq", "ptq.formats=[int4]", "ptq.clip=false", "ptq.grid=5", "runs='*-s0-*'"),
            (*QUANTIZE, "ptq=rtn", "ptq.formats=[int4,e4m3]", f"ptq.scale_rules=[{RULES}]", "runs='*-s3-*'"),
            (*QUANTIZE, "ptq=rtn", "ptq.formats=[ternary,uint3,mxfp6,mxfp8]", "runs='*-s3-*'"),
            ("scaling.sweep", "collect", "unchanged", "--out", "table/runs.csv"),
        ),
    )


def prepare(code: Path, out: Path) -> None:
    """An output folder with what the commands read: the tables below results/, without what is made from them, and a
    text."""
    shutil.rmtree(out, ignore_errors=True)
    for name in ("runs.csv", "predictions.csv", *RENAMED_FILES):  # under the names that this side's code reads
        for path in (code / "results").glob(f"*/{name}"):
            copy = out / path.relative_to(code)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
    (out / "text").mkdir(parents=True)
    squares = (f"The square of {n} is {n * n}, and that of {n * n} is {n**4}." for n in range(1, 800))
    lines = (f"{line} It leaves {i % 7} of seven and {i % 11} of eleven.\n" for i, line in enumerate(squares))
    (out / "text" / "squares.txt").write_text("".join(lines), encoding="utf-8")
    for folder in ("cells", "table"):
        (out / folder).mkdir()
