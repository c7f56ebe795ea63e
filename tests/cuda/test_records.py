"""Records of kernels: what their heads declare, and mistakes that are refused before a launch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from emulator import LACKING, EmulationError, compile_on_host

from nnbackend_cupy import batches, layers, losses, sources, updates
from nnbackend_cupy.launch import Launcher
from nnbackend_cupy.records import Kernel
from nnbackend_cupy.tracing import Untraceable

needs_emulator = pytest.mark.skipif(LACKING is not None, reason=str(LACKING))
HEAD = "const T x[B O], const T b[O], T a[B O], double factor, long long n = B * O, int columns = O"
BODY = "for (Walk at(columns); at.i < n; at.next()) a[at.i] = x[at.i] * (T)factor + b[at.column];"
Install = Callable[..., Kernel]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Return a function that adds a kernel "made_up" to the files of `cuda/`."""
    whole = sources.file_text

    def add(head: str = HEAD, body: str = BODY, grid: str = "over_elements(256, 1)") -> Kernel:
        text = f"__global__ {grid} KERNEL(\n    {head}) {{\n  {body}\n}}\n"
        files = {"made_up.cu": text}
        monkeypatch.setattr(sources, "file_text", lambda name: files.get(name) or whole(name))
        return Kernel("made_up")

    return add


class Counting(Launcher):
    """A launcher that counts what it compiles and launches."""

    def __init__(self) -> None:
        self.compiled: list[str] = []
        self.launched: list[tuple[Any, ...]] = []

        def compile(text: str, name: str) -> Any:
            self.compiled.append(name)
            return lambda grid, block, arguments: self.launched.append((grid, block, arguments))

        super().__init__(compile, np.zeros)


def operands(dtype: str = "float32") -> dict[str, Any]:
    rng = np.random.default_rng(0)
    x, b = (rng.standard_normal(shape).astype(dtype) for shape in ((5, 3), (3,)))
    return {"x": x, "b": b, "a": np.full_like(x, np.nan), "factor": 2.0}


# ---- what is made from a record -----------------------------------------------------------------


@needs_emulator
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("names", ["x b a factor", "factor a b x"])
def test_operands_are_passed_by_name(install: Install, dtype: str, names: str) -> None:
    given = operands(dtype)
    launcher = Launcher(compile_on_host, np.zeros)
    launcher._run(install(), **{name: given[name] for name in names.split()})
    np.testing.assert_allclose(given["a"], 2 * given["x"] + given["b"], rtol=1e-6)


@needs_emulator
def test_the_order_in_the_record_is_that_of_the_function_and_the_launch(install: Install) -> None:
    other = (
        "double factor, T a[B O], const T b[O], const T x[B O], int columns = O, "
        "long long n = B * O"
    )
    given = operands()
    Launcher(compile_on_host, np.zeros)._run(install(other), **given)
    np.testing.assert_allclose(given["a"], 2 * given["x"] + given["b"], rtol=1e-6)


def test_the_head_of_the_function_and_the_numbers_of_a_launch(install: Install) -> None:
    kernel, counting, given = install(), Counting(), operands()
    head = (
        'extern "C" __global__ void __launch_bounds__(256, 1)\n    '
        "NAME(const float* x, const float* b, float* a, double factor, long long n, int columns) {"
    )
    source = kernel.source({"T": "float32"})
    declared = source.text.replace(source.name, "NAME").replace("const T", "const float")
    assert head in declared.replace("T* a", "float* a")
    assert "#define T float\n" in source.text
    counting._run(kernel, **given)
    ((grid, block, arguments),) = counting.launched
    assert (grid, block) == ((1,), (256,))
    assert [type(number) for number in arguments[3:]] == [np.float64, np.int64, np.int32]
    assert arguments[3:] == (2.0, 15, 3)


def test_scratch_memory_has_a_lane_and_the_size_of_the_record(install: Install) -> None:
    kernel = install("const T x[B O], scratch T partial[tiles O], int columns = O, int rows = B, "
                     "int width = grid", grid="over_columns(256, 1)")  # fmt: skip
    counting, x = Counting(), np.zeros((5, 3), "f")
    for lane in (0, 1, 1):
        counting._run(kernel, x=x, lane=lane)
    first, second, third = (arguments[1] for *_, arguments in counting.launched)
    assert first is not second
    assert second is third
    assert (first.shape, first.dtype) == ((3,), np.float32)
    assert len(counting.compiled) == 1


def test_variants_and_repeated_parameters(install: Install) -> None:
    install("T s#[P], const T g[P], const T w[P] if IS_WEIGHTED, double v if not IS_WEIGHTED")
    for n, flag, names in ((2, 1, ["s0", "s1", "g", "w"]), (0, 0, ["g", "v"])):
        kernel = Kernel("made_up", macros={"IS_WEIGHTED": flag}, n=n)
        assert [parameter.name for parameter in kernel.declared] == names
        each = "DO(0) DO(1)" if n else ""
        assert f"#define EACH(DO) {each}\n" in kernel.source({"T": "float32"}).text


def test_every_kernel_of_the_table_is_well_formed() -> None:
    names = {
        kernel.name
        for module in (layers, losses, updates, batches)
        for kernel in vars(module).values()
        if isinstance(kernel, Kernel) and kernel.declared
    }
    assert {"activation", "tick", "average", "weight_total"} <= names
    # The others are variants: losses, scores, output layers, thin gradients, updates, batches.
    files = {path.stem for path in sources.FOLDER.glob("*.cu")} - {"common"}
    assert files - names == {
        *("row_activation", "row_slope", "loss", "score", "output", "thin_gradient", "update"),
        *("begin", "narrow"),
    }


# ---- what is refused before a launch ------------------------------------------------------------

MISTAKES = {
    "a size before an operand": "long long n = B * O, const T x[B O], const T b[O], T a[B O]",
    "scratch before an operand": "scratch T partial[4], const T x[B O], T a[B O], long long n = B",
    "a name twice": "const T x[B O], T x[B O], long long n = B * O",
    "an unknown type": "const T x[B O], uint8 k, long long n = B * O",
    "a type without an array": "const double x[B O], T factor, long long n = B * O",
    "no name": "const T x[B O], double, long long n = B * O",
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_malformed_record_is_refused_when_its_kernel_is_built(
    install: Install, case: str
) -> None:
    kernel, counting = install(MISTAKES[case]), Counting()
    with pytest.raises(ValueError, match=r"expected|unknown"):
        counting._run(kernel, x=np.zeros((2, 3), "f"))
    assert not counting.compiled


def test_a_file_without_a_head_is_refused(install: Install) -> None:
    kernel = install(grid="over_elements")
    with pytest.raises(ValueError, match="no head"):
        Counting()._run(kernel, x=np.zeros((2, 3), "f"))


def test_what_is_filled_in_twice_is_refused(install: Install) -> None:
    install()
    kernel = Kernel("made_up", lambda dtype: {"FEW": ["lines"]}, macros={"FEW": 3})
    with pytest.raises(ValueError, match=r"\['FEW'\] are filled in twice"):
        kernel.source({"T": "float32"})


def wrong(**changes: Any) -> dict[str, Any]:
    return {k: v for k, v in {**operands(), **changes}.items() if v is not None}


REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "an array is missing": (wrong(b=None), TypeError, r"expected operands .*'b'"),
    "a number is missing": (wrong(factor=None), TypeError, r"expected operands .*'factor'"),
    "one too many": (wrong(c=1.0), TypeError, r"Received: .*'c'"),
    "another dtype": (wrong(b=np.zeros(3)), Untraceable, "b: expected float32. Received: float64"),
    "no float": (wrong(x=np.zeros((5, 3), int)), Untraceable, "x: expected float32, float64"),
    "another size": (wrong(b=np.zeros(4, "f")), Untraceable, r"b: expected shape \['O'\]"),
    "swapped arrays": (wrong(x=np.zeros(3, "f"), b=np.zeros((5, 3), "f")), Untraceable, "x: exp"),
    "other rows": (wrong(a=np.zeros((6, 3), "f")), Untraceable, "a: expected shape"),
    "not contiguous": (wrong(x=np.zeros((3, 5), "f").T), Untraceable, "x is not contiguous"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_operands_are_refused_before_the_kernel_is_compiled(
    install: Install, case: str
) -> None:
    given, error, message = REFUSED[case]
    kernel, counting = install(), Counting()
    for _ in range(2):  # the second time from the cache
        with pytest.raises(error, match=message):
            counting._run(kernel, **given)
    assert not counting.compiled
    counting._run(kernel, **operands())
    assert len(counting.launched) == 1


@needs_emulator
def test_an_operand_that_only_the_source_has_is_refused_by_the_compiler(install: Install) -> None:
    kernel, given = install(HEAD.replace("const T b[O], ", "")), wrong(b=None)
    with pytest.raises(EmulationError, match="was not declared"):
        Launcher(compile_on_host, np.zeros)._run(kernel, **given)
    assert np.isnan(given["a"]).all()


def test_a_launch_of_nothing_is_no_launch(install: Install) -> None:
    kernel, counting = install(), Counting()
    counting._run(kernel, x=np.zeros((0, 3)), b=np.zeros(3), a=np.zeros((0, 3)), factor=1.0)
    assert not counting.launched
