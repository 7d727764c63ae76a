"""Writes the pages of docs/reference from the code: `python -m docs.tools.reference`. A test compares them with it."""

import ast
import importlib
import inspect
import itertools
import re
import textwrap
import types
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

DOCS = Path(__file__).parents[1]
REPOSITORY = DOCS.parent
FOLDER = DOCS / "reference"
HEAD = "<!-- Made by `python -m docs.tools.reference`; edit the code, not this page. -->\n"
ALTERNATIVES = {
    "data.corpus": {kind: (f"data={kind}",) for kind in ("python", "text", "hf", "synthetic")},
    "data.tokenizer": {kind: ("data=text", f"data/tokenizer={kind}") for kind in ("bytes", "bpe", "hf")},
}
"""Settings with several kinds, and what on the command line chooses each."""
EXAMPLES = {
    "parse_format": """
>>> from scaling import parse_format
>>> parse_format("e2m1").codebook()
tensor([-6.0000, -4.0000, -3.0000, -2.0000, -1.5000, -1.0000, -0.5000,  0.0000,
         0.5000,  1.0000,  1.5000,  2.0000,  3.0000,  4.0000,  6.0000])
>>> parse_format("mxfp4").bits, parse_format("mxfp4").block
(4, 32)
""",
    "fake_quantize": """
>>> import torch
>>> from scaling import fake_quantize
>>> fake_quantize(torch.tensor([0.1, -0.5, 0.7]), "int4", granularity="tensor")
tensor([ 0.1000, -0.5000,  0.7000])
>>> x = torch.tensor([[0.1, -0.5, 0.7]], requires_grad=True)
>>> fake_quantize(x, "int2").sum().backward()
>>> x.grad
tensor([[1., 1., 1.]])
""",
    "rtn": """
>>> import torch
>>> from scaling import rtn
>>> weight = torch.randn(8, 64, generator=torch.Generator().manual_seed(0))
>>> quantized = rtn(weight, "int4", "block16")
>>> [len(group.unique()) <= 15 for group in quantized.view(-1, 16)[:2]]
[True, True]
""",
    "gptq": """
>>> import torch
>>> from scaling import gptq, rtn
>>> draw = torch.Generator().manual_seed(0)
>>> weight, inputs = torch.randn(8, 64, generator=draw), torch.randn(256, 64, generator=draw)
>>> inputs[:, 1:] += inputs[:, :-1]  # inputs that are correlated, as those of layers are
>>> error = lambda quantized: ((weight - quantized) @ inputs.T).square().mean().item()
>>> error(gptq(weight, inputs, "int3")) < error(rtn(weight, "int3"))
True
""",
    "awq": """
>>> import torch
>>> from scaling import awq, rtn
>>> draw = torch.Generator().manual_seed(0)
>>> weight, inputs = torch.randn(8, 64, generator=draw), torch.randn(256, 64, generator=draw)
>>> inputs[:, :4] *= 20  # four channels with large inputs
>>> error = lambda quantized: ((weight - quantized) @ inputs.T).square().mean().item()
>>> error(awq(weight, inputs, "int3")) < error(rtn(weight, "int3"))
True
""",
    "law": """
>>> from analysis import law
>>> power = law("gap = A * D**gamma_D * exp(-P_post/gamma_post)", units={"gamma_post": "bits"})
>>> power.response, power.variables, [p.symbol for p in power.parameters]
('gap', ('D', 'P_post'), ['gamma_D', 'gamma_post', 'A'])
""",
}
"""Of functions whose docstring has none."""


def main() -> None:
    """Write all pages."""
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        print(f"docs/reference/{name}")


def pages() -> dict[str, str]:
    """File name -> its text."""
    made = {"settings": settings, "formats": formats, "columns": columns, "laws": laws, "python": python}
    return {f"{name}.md": f"{HEAD}{page().strip()}\n" for name, page in made.items()}


def _table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    # Backticks do not protect a bar from ending its cell.
    lines = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in [head, *rows]]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


# -- settings --------------------------------------------------------------------------------------------------------


def settings() -> str:
    """What a run may say: groups and their choices, then every setting."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from scaling.config.compose import BEHAVIOUR, CONFIGS
    from scaling.config.run import Run

    def composed(overrides: Iterable[str]) -> dict[str, Any]:
        with initialize_config_dir(str(CONFIGS), **BEHAVIOUR):
            return OmegaConf.to_container(compose("train", list(overrides)), resolve=True)

    parts = [
        "# Settings",
        "What `python -m scaling.train` takes, as `group=choice` and `group.setting=value`. A run keeps all of them in "
        "its `config.yaml`. In brackets: what is accepted. Launchers are on [another page](../cluster.md#settings). "
        "Two settings are of no run: `seed` is the default of both seeds, and `optimized_metric` what a "
        "[search](../studies.md#a-search-in-place-of-a-grid) makes least.",
        "## Groups",
        _table(("group", "choices", "default"), _groups(CONFIGS)),
    ]
    for key, cls, values in _classes(Run, "", composed(())):
        if key in ALTERNATIVES:
            kinds = {_kind(option): option for option in cls}
            for kind, overrides in ALTERNATIVES[key].items():
                option, chosen = kinds[kind], " ".join(overrides)
                values = composed(overrides)
                for name in key.split("."):
                    values = values[name]
                parts += [
                    f"## {key}, {kind}",
                    f"`{chosen}`. {_paragraph(option)}",
                    _settings_table(key, option, values),
                ]
        else:
            parts += [f"## {key or 'A run'}", _paragraph(cls), _settings_table(key, cls, values)]
    return "\n\n".join(parts)


def _groups(configs: Path) -> Iterator[tuple[str, str, str]]:
    from scaling.config.compose import groups

    defaults = yaml.safe_load((configs / "train.yaml").read_text(encoding="utf-8"))["defaults"]
    chosen = {group: choice for entry in defaults if isinstance(entry, dict) for group, choice in entry.items()}
    for group, choices in groups("train").items():
        if group != "sweeps":
            default = chosen.get(group, "")
            yield f"`{group}`", " ".join(f"`{name}`" for name in choices), f"`{default}`" * bool(default)


def _classes(cls: type, key: str, values: Any) -> Iterator[tuple[str, Any, Any]]:
    """Every dataclass of settings below `cls` with its key; where there are several kinds, a tuple of them."""
    yield key, cls, values
    for name, hint in get_type_hints(cls).items():
        below = f"{key}.{name}".lstrip(".")
        if below in ALTERNATIVES:
            yield below, get_args(hint), values[name]
        elif hasattr(hint, "__dataclass_fields__"):
            yield from _classes(hint, below, values[name])


def _kind(cls: type) -> str:
    return get_args(get_type_hints(cls)["kind"])[0]


def _settings_table(key: str, cls: type, values: dict[str, Any]) -> str:
    hints, meanings, rows = get_type_hints(cls, include_extras=True), _field_docs(cls), []
    for name, hint in hints.items():
        nested = hasattr(hint, "__dataclass_fields__") or f"{key}.{name}" in ALTERNATIVES
        if not nested and name in values and name in cls.__dataclass_fields__:
            default = "required" if values[name] == "???" else f"`{_yaml(values[name])}`"
            rows.append(
                (f"`{key}.{name}`".replace("`.", "`"), default, f"{meanings.get(name, '')} ({_type(hint)})".strip())
            )
    return _table(("setting", "default", "meaning"), rows)


def _yaml(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_yaml, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return "null" if value is None else "''" if value == "" else "{}" if value == {} else str(value)


def _type(hint: Any) -> str:
    """A type in words, with its limits."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        limits = ", ".join(map(str, hint.__metadata__))
        return f"{_type(inner[0])}, {limits}"
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin in (Union, types.UnionType):
        return " or ".join("`null`" if part is type(None) else _type(part) for part in inner)
    if origin is tuple:
        return f"list: {_type(inner[0])}"
    if origin is dict:
        return f"map: {_type(inner[1])}"
    return {int: "whole number", float: "number", str: "text", bool: "true or false"}.get(hint, str(hint))


def _field_docs(cls: type) -> dict[str, str]:
    """Field -> the docstring under it, of a dataclass and its bases."""
    texts: dict[str, str] = {}
    for base in reversed([c for c in cls.__mro__ if c.__module__.startswith(("scaling.", "analysis."))]):
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0].body
        for field, text in itertools.pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                texts[field.target.id] = " ".join(str(text.value.value).split())
    return texts


def _paragraph(thing: Any) -> str:
    """The first paragraph of a docstring."""
    return " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split())


# -- formats, columns, laws ------------------------------------------------------------------------------------------


def formats() -> str:
    """Every format by its name."""
    from scaling.quantization.formats import GRAMMAR, known_names, parse

    rows = []
    for name in known_names():
        fmt = parse(name)
        if fmt.quantizes and not (re.fullmatch(r"e\d+m\d+", name) and fmt.bits > 8):
            values = fmt.codebook()
            step = values[values > 0].min().item()
            own = f"blocks of {fmt.block}, " if fmt.block else ""
            count = f"{len(values):,}"
            rows.append(
                (f"`{name}`", fmt.bits, count, f"{step:.5g}", f"{fmt.max_value:,.5g}", f"{own}{fmt.scale_rule}")
            )
    return "\n\n".join(
        (
            "# Formats",
            f"Names that `precision.*`, `ptq.formats` and `fake_quantize` take: {GRAMMAR}. How values are rounded, "
            "scale rules and granularities are in [Numerics](../numerics.md).",
            "`P` counts the bits of an element with its sign; `values` are distinct ones, with zero. Floats above 8 "
            "bits are left out here. Values are those before scaling; of `uint` formats they are the codes, from which "
            "each group subtracts a zero point of its own.",
            _table(("name", "P", "values", "smallest above 0", "largest", "scales of its own"), rows),
        )
    )


def columns() -> str:
    """The columns of runs.csv."""
    from scaling.records.columns import COLUMNS

    rows = [(f"`{c.name}`", c.type, c.unit, c.rows, c.meaning) for c in COLUMNS]
    return "\n\n".join(
        (
            "# Columns",
            "Of `results/STUDY/runs.csv`, one row an evaluated model. What a row is, and what other programs may rely "
            "on, is in [Contracts](../contracts.md#tidy-table).",
            "`of` says which rows fill a column: `run`, the same in all rows of a run; `evaluation`, a model at one "
            "token count; `ptq`, a quantization of it after training (a line of `ptq.jsonl` is these); `collected`, "
            "worked out from the others.",
            _table(("column", "type", "unit", "of", "meaning"), rows),
        )
    )


def laws() -> str:
    """Every law: equation, source, parameters."""
    from analysis.laws.registry import LAWS

    parts = [
        "# Laws",
        "What `python -m analysis fit LAW TABLE.csv` fits, besides equations of your own "
        '(`"L = A*N**-alpha + B*D**-beta + E"`). A law of `loss` predicts it in nats a token, one of `gap` what '
        "quantization after training adds, one of `gap_qat` what training in low precision adds. "
        "[How to fit](../laws.md) shows the commands.",
        _table(
            ("law", "of", "equation"),
            [(f"[`{law.name}`](#{law.name})", f"`{law.response}`", f"`{law.equation}`") for law in LAWS.values()],
        ),
    ]
    for law in LAWS.values():
        rows = [
            (f"`{p.symbol}`", p.unit, f"{p.lower:g} to {p.upper:g}", "" if p.published is None else f"{p.published:g}")
            for p in law.ordered
        ]
        fixed = ", ".join(f"`{name}` = {value:g}" for name, value in law.constants.items())
        parts += [
            f"## {law.name}",
            f"`{law.equation}`",
            f"{law.source}. Columns: {', '.join(f'`{v}`' for v in law.variables)}." + f" Fixed: {fixed}." * bool(fixed),
            _table(("parameter", "unit", "bounds", "published"), rows),
        ]
    return "\n\n".join(parts)


# -- Python ----------------------------------------------------------------------------------------------------------


def python() -> str:
    """What both packages offer at their top, with the methods of what it returns."""
    from analysis.diagnostics.compare import Comparison
    from analysis.fitting.fit import Fit
    from analysis.fitting.summary import Summary
    from analysis.planning.predict import Prediction
    from scaling.model.module import Transformer
    from scaling.records.loaded_run import LoadedRun

    returned = {
        "load_run": (LoadedRun, Transformer),
        "fit": (Fit, Summary),
        "predict": (Prediction,),
        "compare": (Comparison,),
    }
    parts = [
        "# Python",
        "What `scaling` and `analysis` offer. Nothing heavy is imported before a name is used. Faults of input are an "
        "`InputError` of one line. In a notebook, fits, summaries, predictions, comparisons and runs show themselves "
        "as tables. The examples run in a clone of the repository; the tests run them. "
        "[The notebook](../tutorial.ipynb) goes through them in order.",
    ]
    names = {"scaling": ["load_run", "parse_format", "fake_quantize", "rtn", "gptq", "awq"]}
    names["analysis"] = ["read_table", "fit", "read_fits", "predict", "compare", "law"]
    for package, listed in names.items():
        module = importlib.import_module(package)
        parts.append(f"## {package}")
        for name in listed:
            parts += [f"### {name}", _documented(getattr(module, name), name)]
            for cls in returned.get(name, ()):
                parts += [f"**{cls.__name__}**: {_paragraph(cls)}", _members(cls)]
    parts += ["`analysis.LAWS` has [every law](laws.md) by its name, `analysis.laws` is their folder."]
    return "\n\n".join(parts)


def _documented(function: Callable, name: str) -> str:
    text, example, rest = (inspect.getdoc(function) or "").partition(">>>")
    shown = textwrap.dedent(example + rest).strip() or EXAMPLES[name].strip()
    return f"```python\n{_signature(function, name)}\n```\n\n{_markdown(text)}\n\n```pycon\n{shown}\n\n```"


def _signature(function: Callable, name: str) -> str:
    """As in the source: values of defaults are not printed alike by all versions of Python."""
    node = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    arguments = ast.unparse(node.args)
    if len(arguments) > 80:
        split = re.split(r", (?=\w+:|\*)", arguments)
        arguments = "\n    " + ",\n    ".join(split) + ",\n"
    return f"{name}({arguments}) -> {ast.unparse(node.returns)}"


def _markdown(text: str) -> str:
    """A docstring whose sections are lists."""
    made = []
    for line in inspect.cleandoc(text).splitlines():
        if re.fullmatch(r"(Args|Raises|Returns):", line):
            made += [f"**{line[:-1]}**", ""]
        elif re.match(r"    \S", line):
            name, colon, meaning = line.strip().partition(": ")
            made.append(f"- `{name}`: {meaning}" if colon and re.fullmatch(r"[\w, ]+", name) else f"- {line.strip()}")
        else:
            made.append(f"  {line.strip()}" if line.startswith("     ") else line)
    return "\n".join(made).strip()


def _members(cls: type) -> str:
    """Public fields, properties and methods with the first paragraph of what is said of them."""
    rows = [(f"`{name}`", text) for name, text in _field_docs(cls).items() if name != "fitted"]
    for name, member in vars(cls).items():
        if name.startswith("_") or not (text := _paragraph(member)) or name in getattr(cls, "__dataclass_fields__", {}):
            continue
        shown = name if not inspect.isfunction(member) else f"{name}({_arguments(member)})"
        rows.append((f"`{shown}`", text))
    return _table(("", ""), rows) if rows else ""


def _arguments(method: Callable) -> str:
    names = [p for p in inspect.signature(method).parameters.values() if p.name != "self"]
    return ", ".join(("**" if p.kind is p.VAR_KEYWORD else "") + p.name for p in names)


if __name__ == "__main__":
    main()
