"""What the code must never do, looked for in the code itself: unpickle, run text, write past the one file that may."""

import ast
import graphlib
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import pytest

import lifealign

SOURCE = Path(lifealign.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))
WRITERS = {
    "storage/files.py",  # the one file that writes
    "model/embedded.py",  # has transformers save its copy in the cache, under another name until it is whole
    "model/merge.py",  # has transformers save a merged model, into a folder that appears when it is whole
    "training/peak_memory.py",  # resets a counter of the kernel
}
UNPICKLERS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
CALLS = {
    "torch.load": "unpickles",
    "torch.save": "pickles",
    "np.load": "may unpickle",
    "numpy.load": "may unpickle",
    "yaml.load": "makes objects",
    "yaml.load_all": "makes objects",
    "yaml.full_load": "makes objects",
    "yaml.unsafe_load": "makes objects",
    "eval": "runs text",
    "exec": "runs text",
    "compile": "runs text",
    "__import__": "runs what text names",
    "os.system": "runs text",
}
WRITING_METHODS = {"write_text", "write_bytes", "touch", "save_pretrained"}
WRITES = {"os.replace", "os.rename", "shutil.move", "shutil.copy", "shutil.copytree", "json.dump", "yaml.dump"}


def dotted(node: ast.expr) -> str:
    """``os.path.join`` of the expression that says so; empty for anything else."""
    match node:
        case ast.Name(name):
            return name
        case ast.Attribute(value, name):
            return f"{before}.{name}" if (before := dotted(value)) else ""
    return ""


def is_trust(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value == "trust_remote_code"


def is_false(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is False


def faults(tree: ast.AST, writes_files: bool) -> Iterator[str]:
    """What is forbidden in a module, with its line."""
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        match node:
            case ast.Import(names):
                for alias in names:
                    if alias.name.split(".")[0] in UNPICKLERS:
                        yield f"{line}: imports {alias.name}"
            case ast.ImportFrom(module=str(module)) if module.split(".")[0] in UNPICKLERS:
                yield f"{line}: imports {module}"
            case ast.ImportFrom(module="torch" | "yaml", names=names):
                if found := {alias.name for alias in names} & {"load", "save", "load_all", "full_load", "unsafe_load"}:
                    yield f"{line}: imports {found}"
            case ast.Dict(keys, values) if any(is_trust(key) for key in keys if key is not None):
                if not all(is_false(value) for key, value in zip(keys, values, strict=True) if key and is_trust(key)):
                    yield f"{line}: trust_remote_code"
            case ast.keyword(arg="trust_remote_code", value=value) if not is_false(value):
                yield f"{line}: trust_remote_code"
            case ast.Subscript(slice=index) if is_trust(index):
                yield f"{line}: trust_remote_code"
            case ast.Name(id="trust_remote_code") | ast.Attribute(attr="trust_remote_code"):
                yield f"{line}: trust_remote_code"
            case ast.Call(ast.Attribute(ast.Name(kind), "from_pretrained"), keywords=keywords) if kind.startswith(
                "Auto"
            ):
                if not any(item.arg == "trust_remote_code" or dotted(item.value) == "_NO_CODE" for item in keywords):
                    yield f"{line}: {kind}.from_pretrained may ask whether to run code"
            case ast.Call(function, arguments, keywords):
                name = dotted(function)
                if name in CALLS:
                    yield f"{line}: {name} {CALLS[name]}"
                if writes_files:
                    continue
                if name in WRITES:
                    yield f"{line}: {name} writes past storage/files.py"
                method = function.attr if isinstance(function, ast.Attribute) else ""
                if method in WRITING_METHODS and name != method:
                    yield f"{line}: {method} writes past storage/files.py"
                if name in {"open", "io.open", "os.open"} or method == "open":
                    place = 1 if name in {"open", "io.open", "os.open"} else 0  # path.open(mode), open(path, mode)
                    modes = [*arguments[place : place + 1], *(item.value for item in keywords if item.arg == "mode")]
                    if any(isinstance(mode, ast.Constant) and set(str(mode.value)) & set("wax+") for mode in modes):
                        yield f"{line}: open for writing past storage/files.py"


@pytest.mark.parametrize("path", FILES, ids=[path.relative_to(SOURCE).as_posix() for path in FILES])
def test_a_module_does_nothing_that_is_forbidden(path: Path) -> None:
    writes_files = path.relative_to(SOURCE).as_posix() in WRITERS
    assert list(faults(ast.parse(path.read_text("utf-8")), writes_files)) == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "import a, pickle as p",
        "from joblib import load",
        "from torch import load",
        "torch.load('x')",
        "x = eval('1')",
        "exec(text)",
        "yaml.load(text, Loader=L)",
        "from_pretrained(x, trust_remote_code=True)",
        "from_pretrained(x, trust_remote_code=asked)",
        "{'trust_remote_code': True}",
        "AutoConfig.from_pretrained(x)",
        "AutoConfig.from_pretrained(x, **options)",
        "options['trust_remote_code'] = True",
        "open('x', 'w')",
        "open('x', mode='ab')",
        "Path('x').open('xb')",
        "Path('x').open(mode='a')",
        "Path('x').write_text('y')",
        "path.write_bytes(b'')",
        "model.save_pretrained('x')",
        "os.replace(a, b)",
        "json.dump(value, file)",
    ],
)
def test_what_is_forbidden_is_found(code: str) -> None:
    assert list(faults(ast.parse(code), writes_files=False))


@pytest.mark.parametrize(
    "code",
    [
        "model.eval()",
        "re.compile('x')",
        "open('x')",
        "Path('x').open('rb')",
        "Life.open(path)",
        "write_text(path, text)",
        "write_bytes(path, b'')",
        "'trust_remote_code does not exist here'",
        "{'trust_remote_code': False}",
        "AutoConfig.from_pretrained(x, **_NO_CODE, **options)",
        "AutoConfig.from_pretrained(x, trust_remote_code=False)",
        "yaml.safe_load(text)",
    ],
)
def test_what_is_allowed_is_let_be(code: str) -> None:
    assert not list(faults(ast.parse(code), writes_files=False))


def test_there_is_code_to_look_at() -> None:
    names = {path.relative_to(SOURCE).as_posix() for path in FILES}
    assert names > WRITERS and len(names) > 30


# -- one house: who may import whom ------------------------------------------------------------------------------------

STOREYS = (
    ("errors",),
    ("storage",),
    ("settings",),
    ("data", "memory"),
    ("model",),
    ("training",),
    ("methods", "evaluation"),
    ("life",),
    ("experiments",),
    ("report",),
    ("service",),
    ("cli",),
)
"""Rooms from the ground up; a file imports only from its own room and from those below. Two of a storey: neither."""
STOREY = {room: number for number, rooms in enumerate(STOREYS) for room in rooms}
DOOR = {"lifealign", "lifealign.__main__"}


def module_of(path: Path) -> str:
    parts = ("lifealign", *path.relative_to(SOURCE).with_suffix("").parts)
    return ".".join(part for part in parts if part != "__init__")


def imported(tree: ast.AST, modules: Collection[str]) -> set[str]:
    """Modules of ours that one imports: at the top, in a function, or for types only."""
    found = set()
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(module=str(module), names=names, level=0):
                for alias in names:
                    full = f"{module}.{alias.name}"
                    found.add(full if full in modules else module)
            case ast.ImportFrom():
                raise AssertionError("a relative import: say the whole name")
            case ast.Import(names):
                found |= {alias.name for alias in names}
    return {module for module in found if module in modules}


def house() -> dict[str, set[str]]:
    modules = {module_of(path): path for path in FILES}
    return {name: imported(ast.parse(path.read_text("utf-8")), modules) - {name} for name, path in modules.items()}


def upward(house: Mapping[str, set[str]]) -> list[str]:
    """Imports that go up or across."""
    return [
        f"{name} imports {other}"
        for name, others in sorted(house.items())
        for other in sorted(others)
        if name not in DOOR and not goes_down(name, other)
    ]


def goes_down(name: str, other: str) -> bool:
    here, there = name.split(".")[1], [*other.split("."), ""][1]
    return here == there or (there in STOREY and STOREY[there] < STOREY[here])


def test_every_file_is_in_a_room() -> None:
    assert {name.split(".")[1] for name in house() if name not in DOOR} == set(STOREY)


def test_imports_go_down_only() -> None:
    assert upward(house()) == []


def test_no_file_is_in_a_circle_of_imports() -> None:
    tuple(graphlib.TopologicalSorter(house()).static_order())  # raises and names the circle


@pytest.mark.parametrize(
    "code",
    [
        "from lifealign.life.life import Life",
        "def lazily():\n    from lifealign.life import life",
        "if TYPE_CHECKING:\n    import lifealign.life.life",
        "from lifealign.evaluation.metrics import METRICS",
        "from lifealign import Life",
    ],
)
def test_an_import_that_goes_up_or_across_is_found(code: str) -> None:
    modules = house()
    found = imported(ast.parse(code), modules)
    assert found and upward({"lifealign.methods.er": found})


@pytest.mark.parametrize(("page", "fewest"), [("docs/track_record.md", 40), ("SECURITY.md", 13)])
def test_every_test_that_a_page_names_exists(page: str, fewest: int) -> None:
    tests = SOURCE.parents[1] / "tests"
    record = (SOURCE.parents[1] / page).read_text("utf-8")
    file, found = "", 0
    for named, name in re.findall(r"`([\w/]+\.py)?::(\w+)", record):
        file = named or file
        assert f"def {name}(" in (tests / file).read_text("utf-8"), f"{file}::{name}"
        found += 1
    assert found >= fewest
