"""Import rules between the packages, and the public names of nnbackend.

Imports are read from the source text, so the rules also apply inside functions and to modules that
cannot be imported here.
"""

from __future__ import annotations

import ast
import inspect
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Packages by layer, the lowest first. A package imports only from lower layers.
LAYERS = (
    {"errors"},
    {"suggestions", "machine"},
    {"options", "metrics"},
    {"named"},
    {"backend"},
    {"devices"},
    {"data"},
    {"validation"},
    {"config"},
    {"network"},
    {"distributed"},
    {"training"},
    {"persistence"},
    {"model"},
    {"estimators", "plots", "bench", "testing"},
    {"explain", "search", "serving"},
    {"live_page"},
    {"cli"},
    {"__main__"},
)
LAYER_OF = {package: layer for layer, packages in enumerate(LAYERS) for package in packages}

# Modules of the engine that compute on the host and may import NumPy: module -> reason.
HOST_SIDE: dict[str, str] = {
    "nnbackend.network.initializers": "initial weights are drawn on the host and copied",
    "nnbackend.network.evaluation.methods": "predictions are host arrays",
    "nnbackend.network.evaluation.passes": "the rows of a data set may be on the host",
    "nnbackend.network.network": "weights and predictions of a caller",
    "nnbackend.network.probing": "a custom formula is tested on a host array",
    "nnbackend.network.evaluation.sums": "long sums are on the host if the device has no float64",
    "nnbackend.training.batching": "the batch order is drawn on the host",
    "nnbackend.training.fingerprints": "hashes are of host arrays",
    "nnbackend.training.rate_finder": "the trial's rates and losses are host numbers",
    "nnbackend.training.schedules": "learning rates are host numbers",
    "nnbackend.training.preparation": "the rows of host data are split on the host",
    "nnbackend.training.state": "the saved state is host arrays",
    "nnbackend.training.streaming": "the batches of a stream are made on the host",
    "nnbackend.training.step_runner": "rates and clock of an epoch are computed on the host",
    "nnbackend.training.lbfgs_runner": "its error state covers host arrays",
}

# Array libraries that the engine must reach through its backend only.
ARRAY_LIBRARIES = {
    *("numpy", "scipy", "array_api_compat", "array_api_strict"),
    *("cupy", "cupyx", "cupy_backends", "numba", "torch", "jax", "tensorflow", "mlx"),
}
# The libraries of devices, which nnbackend/ must not import.
DEVICE_LIBRARIES = ARRAY_LIBRARIES - {"numpy", "scipy", "array_api_compat", "array_api_strict"}

# Backends that extend another one with faster kernels: same arrays, so the same six methods.
BUILT_ON = {"nnbackend_numba": "nnbackend_numpy"}

# The only module that may name a backend package.
REGISTRY = "nnbackend.devices.registry"
BACKEND_PACKAGE = re.compile(r"(nnbackend_[a-z0-9]\w*)([.:]\w+)*")


@dataclass(frozen=True)
class Import:
    """One import statement's target, as an absolute dotted name."""

    source: Path
    module: str  # the importing module
    target: str
    line: int
    for_types: bool  # under `if TYPE_CHECKING:`

    def __str__(self) -> str:
        return f"{self.source.relative_to(ROOT)}:{self.line} imports {self.target}"


def _python_files(folder: str) -> list[Path]:
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files, f"no Python file under {folder}/"
    return files


def _module_name(source: Path) -> str:
    parts = source.relative_to(ROOT).with_suffix("").parts
    parts = parts[1:] if parts[0] == "backends" else parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _is_type_checking(test: ast.expr) -> bool:
    return getattr(test, "id", getattr(test, "attr", "")) == "TYPE_CHECKING"


def _statements(node: ast.AST, for_types: bool = False) -> Iterator[tuple[ast.AST, bool]]:
    """Yield every node below, and True if only type checkers read it."""
    for child in ast.iter_child_nodes(node):
        yield child, for_types
        if isinstance(child, ast.If) and _is_type_checking(child.test):
            for statement in child.body:
                yield statement, True
                yield from _statements(statement, True)
            for statement in child.orelse:
                yield statement, for_types
                yield from _statements(statement, for_types)
        else:
            yield from _statements(child, for_types)


def _is_submodule(package: str, name: str) -> bool:
    base = ROOT / "backends" if package.startswith("nnbackend_") else ROOT
    path = base.joinpath(*package.split("."), name)
    return path.is_dir() or path.with_suffix(".py").is_file()


def _targets(node: ast.AST, package: str) -> Iterator[str]:
    """Yield the absolute names that a node imports; relative imports start at `package`."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*above, base] if base else above)
        for alias in node.names:
            # A constant or class counts as its module, except those of nnbackend itself.
            whole = base == "nnbackend" or _is_submodule(base, alias.name)
            yield f"{base}.{alias.name}" if whole else base
    elif isinstance(node, ast.Call) and node.args:
        name = getattr(node.func, "id", getattr(node.func, "attr", ""))
        first = node.args[0]
        if name in {"import_module", "__import__"} and isinstance(first, ast.Constant):
            yield str(first.value)


def _imports(source: Path) -> list[Import]:
    module = _module_name(source)
    package = module if source.name == "__init__.py" else module.rpartition(".")[0]
    return [
        Import(source, module, target, node.lineno, for_types)
        for node, for_types in _statements(ast.parse(source.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom | ast.Call)
        for target in _targets(node, package)
    ]


def _engine_imports() -> list[Import]:
    return [found for source in _python_files("nnbackend") for found in _imports(source)]


def _backend_imports() -> list[Import]:
    return [found for source in _python_files("backends") for found in _imports(source)]


def _root(name: str) -> str:
    return name.partition(".")[0]


def _package(name: str) -> str:
    """Return the package of `nnbackend.<package>...`, or "" for nnbackend itself."""
    return name.split(".")[1] if "." in name else ""


def _report(offences: list[Import]) -> str:
    return "\n".join(map(str, offences))


# --- layers ---------------------------------------------------------------------------------------


def test_every_package_has_a_layer() -> None:
    packages = {_package(_module_name(source)) for source in _python_files("nnbackend")} - {""}
    assert packages <= LAYER_OF.keys(), "add these packages to LAYERS"


def test_a_package_imports_only_from_lower_layers() -> None:
    offences = []
    for found in _engine_imports():
        here, there = _package(found.module), _package(found.target)
        if _root(found.target) != "nnbackend" or not here or here == there:
            continue
        if there == "__version__":
            continue
        if there not in LAYER_OF or LAYER_OF[there] >= LAYER_OF[here]:
            offences.append(found)
    assert not offences, _report(offences)


def test_only_the_command_bench_imports_the_benchmark() -> None:
    users = {found.module for found in _engine_imports() if _package(found.target) == "bench"}
    assert {m for m in users if _package(m) != "bench"} == {"nnbackend.cli.bench"}


def test_no_imports_form_a_circle() -> None:
    """Imports inside functions and for type checkers count too."""
    known = {_module_name(source) for folder in ("nnbackend", "backends")
             for source in _python_files(folder)}  # fmt: skip
    below: dict[str, set[str]] = {module: set() for module in known}
    for found in [*_engine_imports(), *_backend_imports()]:
        # `from package import name` of a package imports the module that defines the name.
        target = found.target if found.target in known else found.target.rpartition(".")[0]
        is_own_package = found.module.startswith(f"{target}.")
        if target in known and target != found.module and not is_own_package:
            below[found.module].add(target)
    while True:  # remove modules that import no other one, or that no other one imports
        targets = set().union(*below.values())
        outside = {module for module in below if not below[module] or module not in targets}
        if not outside:
            break
        below = {m: targets - outside for m, targets in below.items() if m not in outside}
    assert not below, "circles among:\n" + "\n".join(
        f"{module} -> {', '.join(sorted(targets))}" for module, targets in sorted(below.items())
    )


def test_backends_import_only_errors_and_the_backend_package() -> None:
    offences = []
    for found in _backend_imports():
        if _root(found.target) == "nnbackend":
            allowed = _package(found.target) in {"errors", "backend"}
        else:
            here, there = _root(found.module), _root(found.target)
            allowed = not there.startswith("nnbackend_") or there in (here, BUILT_ON.get(here))
        if not allowed:
            offences.append(found)
    assert not offences, _report(offences)


def test_backends_is_a_plain_folder() -> None:
    assert not (ROOT / "backends" / "__init__.py").exists()


# --- names of libraries and backends --------------------------------------------------------------


def test_network_and_training_import_no_array_library() -> None:
    offences = [
        found
        for found in _engine_imports()
        if _package(found.module) in {"network", "training"}
        and _root(found.target) in ARRAY_LIBRARIES
        and not (found.for_types and _root(found.target) == "numpy")
        and found.module not in HOST_SIDE
    ]
    assert not offences, _report(offences)


def test_no_device_library_is_imported_outside_the_backends() -> None:
    offences = [found for found in _engine_imports() if _root(found.target) in DEVICE_LIBRARIES]
    assert not offences, _report(offences)


def test_the_listed_exceptions_are_still_needed() -> None:
    imports = _engine_imports()
    named = {found.module for found in imports if _root(found.target) in ARRAY_LIBRARIES}
    assert HOST_SIDE.keys() <= named, "these modules need no exception: remove them from HOST_SIDE"


def _docstrings(tree: ast.AST) -> set[int]:
    """Return the ids of the constants that are docstrings."""
    return {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }


def test_only_the_registry_names_a_backend_package() -> None:
    offences = []
    for source in _python_files("nnbackend"):
        module = _module_name(source)
        if module == REGISTRY:
            continue
        offences += [str(f) for f in _imports(source) if _root(f.target).startswith("nnbackend_")]
        tree = ast.parse(source.read_text(encoding="utf-8"))
        docstrings = _docstrings(tree)
        offences += [
            f"{source.relative_to(ROOT)}:{node.lineno} names {node.value!r}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in docstrings
            and BACKEND_PACKAGE.fullmatch(node.value)
        ]
    assert not offences, "\n".join(offences)


def test_the_wheel_and_the_entry_points_contain_every_backend() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    folders = {path.parent.name for path in (ROOT / "backends").glob("*/__init__.py")}
    packages = config["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert {"nnbackend", *(f"backends/{name}" for name in folders)} == set(packages)
    entries = config["project"]["entry-points"]["nnbackend.backends"]
    assert set(entries.values()) == {f"{name}:SPEC" for name in folders}
    # A checkout that is not installed has no entry points: the registry's table replaces them.
    tree = ast.parse((ROOT / "nnbackend" / "devices" / "registry.py").read_text(encoding="utf-8"))
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    table = {m[1] for text in texts if (m := BACKEND_PACKAGE.fullmatch(str(text)))}
    assert table == folders


# --- public names ---------------------------------------------------------------------------------


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = ["numba", "cupy", "sklearn", "scipy", "matplotlib", "pyarrow", "pandas", "torch"]
    heavy += ["tqdm", "optuna"]
    code = (
        f"import json, sys, nnbackend; print(json.dumps([m for m in {heavy} if m in sys.modules]))"
    )
    path = os.pathsep.join([str(ROOT), str(ROOT / "backends")])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []


def _imported_names() -> set[str]:
    """Return the public names that __init__.py defines or imports from nnbackend."""
    source = ROOT / "nnbackend" / "__init__.py"
    names: set[str] = set()
    for node, _ in _statements(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (
            node.level or _root(node.module or "") == "nnbackend"
        ):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef) and node.col_offset == 0:
            names.add(node.name)
    return {name for name in names if not name.startswith("_")}


def test_all_is_sorted_complete_and_short() -> None:
    import nnbackend

    names = list(nnbackend.__all__)
    assert names == sorted(names)
    assert len(names) == len(set(names)) <= 45
    public = {name for name in names if not name.startswith("_")}
    assert public == _imported_names(), "__all__ and the imports of __init__.py differ"
    shown = {name for name in dir(nnbackend) if not name.startswith("_")}
    assert public <= shown, "dir(nnbackend) hides public names"
    accidental = {
        name
        for name in shown - public
        if getattr(getattr(nnbackend, name), "__name__", "") != f"nnbackend.{name}"
        and name != "annotations"
    }
    assert not accidental, "public by accident: add an underscore"


def test_every_public_name_has_a_docstring() -> None:
    import nnbackend

    missing = []
    for name in nnbackend.__all__:
        thing = getattr(nnbackend, name)
        if not (inspect.isclass(thing) or inspect.isroutine(thing)):
            continue
        # Python gives a dataclass without a docstring its signature as one.
        if not thing.__doc__ or thing.__doc__.startswith(f"{name}("):
            missing.append(name)
        if inspect.isclass(thing):
            missing += [
                f"{name}.{member}"
                for member, value in vars(thing).items()
                if not member.startswith("_")
                and (inspect.isroutine(value) or isinstance(value, property))
                and not inspect.getdoc(getattr(thing, member))
            ]
    assert not missing, missing


def test_an_unknown_name_is_refused() -> None:
    import nnbackend

    name = "no_such_name"
    with pytest.raises(AttributeError, match=name):
        getattr(nnbackend, name)
