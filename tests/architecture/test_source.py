"""What the package's syntax trees may not hold, and how long its parts may be."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import fedcondense

ROOT = Path(fedcondense.__file__).parent
SOURCES = sorted(ROOT.rglob("*.py"))
LONGEST_MODULE = 330  # lines
LONGEST_FUNCTION = 60  # lines
# Modules whose readers run code, or that are one import away from it.
CODE_RUNNERS = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "yaml"}
CODE_CALLS = {"eval", "exec", "compile", "__import__"}
BANNED = {"torch.load", "torch.save", "torch.hub", "os.system", "os.popen"}
NUMPY = {"np", "numpy"}


def ways_to_run_code(source: str) -> list[int]:
    """Lines through which bytes from a file or a peer could become code."""
    return sorted({node.lineno for node in ast.walk(ast.parse(source)) if _runs_code(node)})


def _runs_code(node: ast.AST) -> bool:
    match node:
        case ast.Import(names=names):
            return any(_top(name.name) in CODE_RUNNERS for name in names)
        case ast.ImportFrom(module=module, names=names):
            banned = {f"{module}.{name.name}" for name in names} & BANNED
            return _top(module or "") in CODE_RUNNERS or bool(banned)
        case ast.Call(func=ast.Name(id=name)) if name in CODE_CALLS:
            return True
        case ast.Attribute():
            return ast.unparse(node) in BANNED
        case ast.keyword(arg="allow_pickle" | "shell", value=value):
            return not (isinstance(value, ast.Constant) and value.value is False)
    return False


def _top(module: str) -> str:
    return module.partition(".")[0]


def numpy_loads(source: str) -> list[int]:
    """Lines that read an npy or npz with NumPy's own reader."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Attribute(value=ast.Name(id=module), attr="load") if module in NUMPY:
                lines.append(node.lineno)
            case ast.ImportFrom(module="numpy", names=names) if "load" in {n.name for n in names}:
                lines.append(node.lineno)
    return lines


def long_functions(source: str) -> list[str]:
    return [
        node.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno >= LONGEST_FUNCTION
    ]


def public_without_docstring(source: str) -> Iterator[str]:
    """Modules, and public functions, classes and methods in public places."""
    tree = ast.parse(source)
    if ast.get_docstring(tree) is None:
        yield "module"
    waiting: list[ast.AST] = [tree]
    while waiting:
        for node in ast.iter_child_nodes(waiting.pop()):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                continue
            if node.name.startswith("_"):
                continue
            if ast.get_docstring(node) is None:
                yield node.name
            if isinstance(node, ast.ClassDef):
                waiting.append(node)


every_module = pytest.mark.parametrize(
    "path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix()
)


@every_module
def test_no_bytes_become_code(path):
    assert ways_to_run_code(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import pickle as p",
        "from pickle import loads",
        "import yaml",
        "import torch\ntorch.load('a')",
        "from torch import load",
        "import torch\nread = torch.load",
        "np.load('a', allow_pickle=True)",
        "np.load('a', allow_pickle=some)",
        "eval('1')",
        "exec('1')",
        "compile('1', '', 'exec')",
        "__import__('os')",
        "os.system('ls')",
        "subprocess.run('ls', shell=True)",
    ],
)
def test_each_way_to_run_code_would_be_noticed(source):
    assert ways_to_run_code(source)


@pytest.mark.parametrize(
    "source", ["network.eval()", "np.load(file, allow_pickle=False)", "re.compile('a')"]
)
def test_what_only_looks_like_running_code_is_allowed(source):
    assert ways_to_run_code(source) == []


@every_module
def test_only_the_data_wing_reads_npz(path):
    assert path.parent.name == "data" or numpy_loads(path.read_text(encoding="utf-8")) == []


def test_reading_an_npz_would_be_noticed():
    assert numpy_loads("np.load('a')") == [1]
    assert numpy_loads("from numpy import load") == [1]


@every_module
def test_a_module_is_read_in_one_sitting(path):
    source = path.read_text(encoding="utf-8")

    assert len(source.splitlines()) <= LONGEST_MODULE
    assert long_functions(source) == []


def test_a_long_function_would_be_noticed():
    body = "    a = 1\n" * (LONGEST_FUNCTION - 1)

    assert long_functions(f"def fits():\n{body}") == []
    assert long_functions(f"def long():\n{body}    a = 1\n") == ["long"]


@every_module
def test_what_is_public_says_what_it_is(path):
    assert list(public_without_docstring(path.read_text(encoding="utf-8"))) == []


def test_a_missing_docstring_would_be_noticed():
    source = "class A:\n    def b(self): pass\n    def _c(self): pass\ndef d():\n    'Said.'\n"

    assert set(public_without_docstring(source)) == {"module", "A", "b"}


@pytest.mark.parametrize(
    "path",
    [path for path in SOURCES if path.name == "__init__.py" and path.parent != ROOT],
    ids=lambda path: path.parent.name,
)
def test_a_wings_init_holds_a_docstring_and_nothing_else(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))

    assert len(tree.body) == 1
    assert ast.get_docstring(tree)
