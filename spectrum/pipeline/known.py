"""What diffusers has, read from the text of its modules: to import them takes seconds.

Nothing here is the last word. What can't be found, as in a version that is built otherwise, is None
or empty, and is told by diffusers itself later.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from importlib.util import find_spec
from inspect import Parameter
from pathlib import Path

Parameters = dict[str, Parameter]
UNREADABLE = ...  # the default of a parameter that is no literal


@cache
def pipeline_parameters(name: str) -> Parameters | None:
    """What the call of a pipeline class takes, without `self`."""
    found = _method(_pipeline_tree(name), name, "__call__")
    return _parameters(found.args) if found else None


@cache
def sets_sigmas(name: str) -> bool:
    """Whether a pipeline always gives its scheduler the noise levels, which not all can take."""
    call = _method(_pipeline_tree(name), name, "__call__")
    values = [
        node.value
        for node in ast.walk(call or ast.Module([], []))
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "sigmas"
    ]
    return any("linspace" in ast.unparse(value) for value in values)


@cache
def makes_sound(name: str) -> bool:
    """Whether a pipeline makes sound and nothing else, by the output that its module imports."""
    imports = [
        node for node in ast.walk(_pipeline_tree(name) or ast.Module([], []))
        if isinstance(node, ast.ImportFrom)
    ]  # fmt: skip
    return any(alias.name == "AudioPipelineOutput" for node in imports for alias in node.names)


@cache
def takes_sigmas(scheduler: str) -> bool:
    """Whether a scheduler class can be given noise levels, or finds those of a flow by itself; also
    where that isn't known."""
    tree = _with_class("schedulers", scheduler)
    found = [_method(tree, scheduler, name) for name in ("__init__", "set_timesteps")]
    taken = [name for one in found if one for name in _parameters(one.args)]
    return not all(found) or "sigmas" in taken or "use_flow_sigmas" in taken


@cache
def scheduler_names() -> frozenset[str]:
    """The classes of schedulers."""
    return frozenset(re.findall(r'"(\w+Scheduler)"', _text("schedulers/__init__.py")))


@cache
def attention_backends() -> tuple[str, ...]:
    """The names that attention backends are asked for by."""
    text = _text("models/attention_dispatch.py")
    body = re.search(r"^class AttentionBackendName\(.*?\n(?=\S)", text, re.S | re.M)
    return tuple(re.findall(r'^ {4}\w+ = "(\w+)"', body[0], re.M)) if body else ()


@cache
def image_to_image(name: str) -> str | None:
    """The pipeline class for the same weights that takes an image, by diffusers' own table."""
    text = _text("pipelines/auto_pipeline.py")

    def table(kind: str) -> dict[str, str]:
        mapping = f"AUTO_{kind}_PIPELINES_MAPPING"
        whole = re.search(rf"^{mapping} = .*?^\)", text, re.S | re.M)
        listed = re.findall(r'"([\w-]+)", (\w+)\)', whole[0]) if whole else []
        return dict(listed + re.findall(rf'{mapping}\["([\w-]+)"\] = (\w+)', text))

    from_image = table("IMAGE2IMAGE")
    kinds = (kind for kind, cls in table("TEXT2IMAGE").items() if cls == name)
    return next((from_image.get(kind) for kind in kinds), None)


# -- its files -----------------------------------------------------------------------------------


@cache
def _root() -> Path | None:
    found = find_spec("diffusers")
    return Path(found.origin).parent if found and found.origin else None


def _text(file: str) -> str:
    path = (_root() or Path()) / file
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _pipeline_tree(name: str) -> ast.Module | None:
    """Of the module that a pipeline class is in."""
    listed = re.findall(
        r'_import_structure\["(\w+)"\](?: = |\.extend\()\s*\[(.*?)\]',
        _text("pipelines/__init__.py"), re.S,
    )  # fmt: skip
    for package, names in listed:
        if f'"{name}"' in names:
            return _with_class(f"pipelines/{package}", name)
    return None


@cache
def _with_class(folder: str, name: str) -> ast.Module | None:
    """The first module below the folder with a class of that name."""
    for path in sorted(((_root() or Path()) / folder).rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if re.search(rf"^class {re.escape(name)}\b", text, re.M):
            return ast.parse(text)
    return None


def _method(tree: ast.Module | None, name: str, method: str) -> ast.FunctionDef | None:
    """Of a class, or of one of its bases in the same module."""
    classes = {
        node.name: node for node in (tree.body if tree else []) if isinstance(node, ast.ClassDef)
    }
    if name not in classes:
        return None
    for node in classes[name].body:
        if isinstance(node, ast.FunctionDef) and node.name == method:
            return node
    bases = (_method(tree, ast.unparse(base), method) for base in classes[name].bases)
    return next(filter(None, bases), None)


def _parameters(arguments: ast.arguments) -> Parameters:
    names = [*arguments.posonlyargs, *arguments.args][1:]
    usual = [*[None] * len(names), *arguments.defaults][-len(names) :] if names else []
    pairs = [
        *zip(names, usual, strict=True),
        *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True),
    ]
    found = {
        one.arg: Parameter(one.arg, Parameter.KEYWORD_ONLY, default=_value(default))
        for one, default in pairs
    }
    if arguments.kwarg:
        name = arguments.kwarg.arg
        found[name] = Parameter(name, Parameter.VAR_KEYWORD)
    return found


def _value(default: ast.expr | None) -> object:
    if default is None:
        return Parameter.empty
    try:
        return ast.literal_eval(default)
    except ValueError:
        return UNREADABLE
