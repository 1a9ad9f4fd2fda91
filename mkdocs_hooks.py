"""Pages of the documentation that the code already knows, made when the site is built."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from click.testing import CliRunner
from mkdocs.structure.files import File

from p3d_regression.checks import docs
from p3d_regression.cli.main import main

ROOT = Path(__file__).parent
SOURCE = ROOT / "src" / "p3d_regression"


def on_files(files: Any, config: Any) -> Any:
    """Add the pages on rules, messages, commands and names."""
    pages = docs.pages() | {"commands.md": commands(), "names.md": names(), "messages.md": messages()}
    pages["compatibility.md"] = compatibility()
    for path, content in pages.items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """A link to a file of the repository that is no page leads to the repository."""
    up = "../" * (page.file.src_uri.count("/") + 1)
    return re.sub(
        rf"\]\({re.escape(up)}(?=\w)([^)#]*)", lambda link: f"]({config['repo_url']}/blob/main/{link[1]}", markdown
    )


def commands() -> str:
    """The help of each command."""
    context = click.Context(main)
    parts = ["# Commands", f"```text\n{main.get_help(context)}\n```"]
    for name in main.list_commands(context):
        parts.append(f"## {name}\n\n```text\n{_output(name, '--help')}\n```")
    return "\n\n".join(parts)


def names() -> str:
    """The lists of what a config may name."""
    parts = ["# Names in configs", "Names of this project first, then those of torch.nn and torchmetrics."]
    for name in ("activations", "losses", "metrics"):
        parts.append(f"## {name.capitalize()}\n\n```text\n{_output(name)}\n```")
    return "\n\n".join(parts)


def compatibility() -> str:
    """The versions that `tests/smoke.py` was run with, and what passed."""
    rows = json.loads((ROOT / "docs" / "compatibility.json").read_text())
    steps = list(rows[0]["steps"])
    head = ["pytorch-3dunet", "Python", "torch", "system", *steps]
    lines = [
        [row["pytorch3dunet"], row["python"], row["torch"], row["platform"], *row["steps"].values()] for row in rows
    ]
    table = "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *lines])
    return (
        "# Tested versions\n\nOne training with `final_activation` and `target_scaling`, its prediction, evaluation "
        "and export with the commands of each version; the table is written by the run (`python tests/smoke.py --add "
        f"docs/compatibility.json`). The whole test suite runs on pytorch-3dunet 1.9.6.\n\n{table}\n"
    )


def _output(*arguments: str) -> str:
    result = CliRunner().invoke(main, arguments, prog_name="p3d-regression", env={"COLUMNS": "110"})
    if result.exit_code:
        raise RuntimeError(f"p3d-regression {' '.join(arguments)}: {result.output}")
    return result.output.strip()


def messages() -> str:
    """Every message of an error or a finding, as it stands in the code, for the search."""
    parts = [
        "# All messages",
        "Each message of an error or a finding, by the part of the program that writes it. Where … stands, a message "
        "has your keys, values and files; most also say what to write. Search for some of the other words.",
    ]
    for room in sorted(path for path in SOURCE.iterdir() if not path.name.startswith("_")):
        files = sorted(room.rglob("*.py")) if room.is_dir() else [room]
        found = sorted({text for file in files for text in _messages_of(file)})
        if found:
            parts.append(f"## {room.stem}\n\n" + "\n".join(f"- {text}" for text in found))
    return "\n\n".join(parts)


def _messages_of(file: Path) -> Iterator[str]:
    for function in ast.walk(ast.parse(file.read_text())):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        rule = re.search(r"family\.rule\('(\w+)'", " ".join(map(ast.unparse, function.decorator_list)))
        code = f"[{rule[1]}](rules/{rule[1].lower()}.md) " if rule else ""
        assigned = {
            target.id: _text(node.value, {})
            for node in ast.walk(function)
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for call in ast.walk(function):
            if not isinstance(call, ast.Call):
                continue
            called = ast.unparse(call.func).rpartition(".")[2]
            if called == "Found" or called.endswith(("Error", "Exception")):
                message = max((_text(argument, assigned) for argument in call.args), key=len, default="")
                if message.count(" ") > 2:
                    yield code + _escaped(message)


def _text(node: ast.expr, assigned: dict[str, str]) -> str:
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=values):
            return "".join(_text(value, assigned) or "…" for value in values)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return (_text(left, assigned) or "…") + (_text(right, assigned) or "…")
        case ast.FormattedValue(value=ast.Name(id=name)) | ast.Name(id=name):
            return assigned.get(name, "")
    return ""


def _escaped(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>#|])", r"\\\1", " ".join(text.split()))
