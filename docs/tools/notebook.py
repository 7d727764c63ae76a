"""Runs a notebook's cells in one process, without Jupyter: `python -m docs.tools.notebook` stores what they show.

A cell shows what it prints, then the value of its last line as text and, where it has them, as HTML or as a picture.
"""

import ast
import base64
import contextlib
import io
import json
import os
import re
from pathlib import Path
from typing import Any

NOTEBOOK = Path(__file__).parents[1] / "tutorial.ipynb"


def run(path: Path = NOTEBOOK) -> list[list[dict[str, Any]]]:
    """The outputs of each code cell, in order, run in the notebook's folder.

    Raises:
        Exception: whatever a cell raises.
    """
    names: dict[str, Any] = {"__name__": "__main__"}
    with contextlib.chdir(path.parent):
        return [_shown("".join(cell["source"]), names) for cell in _code(_read(path))]


def store(path: Path = NOTEBOOK) -> None:
    """Run the notebook and write its outputs into it."""
    content, shown = _read(path), run(path)
    for number, (cell, outputs) in enumerate(zip(_code(content), shown, strict=True), start=1):
        cell |= {"execution_count": number, "outputs": outputs}
        for output in outputs:
            if output["output_type"] == "execute_result":
                output["execution_count"] = number
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def page(path: Path = NOTEBOOK) -> str:
    """The notebook as it is stored, as Markdown."""
    parts = []
    for cell in _read(path)["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", []):
            data = output.get("data", {"text/plain": output.get("text", "")})
            if "image/png" in data:
                parts.append(f'<img alt="What the cell above draws" src="data:image/png;base64,{data["image/png"]}">')
            elif "text/html" in data:
                parts.append(f'<div style="overflow-x: auto">{"".join(data["text/html"])}</div>')
            else:
                parts.append(f"```text\n{''.join(data['text/plain']).rstrip()}\n```")
    return "\n\n".join(parts) + "\n"


def texts(outputs: list[list[dict[str, Any]]]) -> list[str]:
    """What cells show as text, one a cell; memory addresses left out."""
    shown = []
    for cell in outputs:
        parts = ["".join(o.get("text", o.get("data", {}).get("text/plain", ""))) for o in cell]
        shown.append(re.sub(r" at 0x[0-9a-f]+", "", "".join(parts)))
    return shown


def stored(path: Path = NOTEBOOK) -> list[list[dict[str, Any]]]:
    """The outputs of each code cell as the file has them."""
    return [cell["outputs"] for cell in _code(_read(path))]


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _code(content: dict[str, Any]) -> list[dict[str, Any]]:
    return [cell for cell in content["cells"] if cell["cell_type"] == "code"]


def _shown(source: str, names: dict[str, Any]) -> list[dict[str, Any]]:
    tree, printed, value = ast.parse(source), io.StringIO(), None
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, "cell", "exec"), names)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
    outputs: list[dict[str, Any]] = []
    if printed.getvalue():
        outputs.append({"output_type": "stream", "name": "stdout", "text": printed.getvalue().splitlines(True)})
    if value is not None and not source.rstrip().endswith(";"):
        outputs.append({"output_type": "execute_result", "metadata": {}, "data": _forms(value)})
    return outputs


def _forms(value: Any) -> dict[str, Any]:
    data: dict[str, Any] = {"text/plain": repr(value).splitlines(True)}
    if hasattr(value, "savefig"):
        picture = io.BytesIO()
        value.savefig(picture, format="png", dpi=90, metadata={"Software": None})
        data["image/png"] = base64.b64encode(picture.getvalue()).decode()
    elif html := getattr(value, "_repr_html_", lambda: None)():
        data["text/html"] = html.splitlines(True)
    return data


if __name__ == "__main__":
    os.environ.setdefault("COLUMNS", "120")
    store()
