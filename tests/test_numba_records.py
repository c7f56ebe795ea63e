"""The records of numba's operations: mistakes are refused before an address is used."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba", reason="numba is not installed")

from nnbackend_numba import backend, dense, maxout, steps
from nnbackend_numba.assembly import Assembly
from nnbackend_numba.codegen import even_part, part_of_lines, source_of
from nnbackend_numba.compiling import operation as compiled_operation
from nnbackend_numba.recorder import Call, NotRecordable, record
from nnbackend_numba.records import ONE, OperandError, Record, Split, operation

Arrays = dict[str, Any]
ROWS = Split("rows", even="B")


def copy_piece(x: Any, W: Any, z: Any, which: Any) -> None:
    """Take the arguments of the records below."""


RECORD = Record(
    copy_piece,
    ROWS,
    {"x": "in B I", "W": "in I K*O", "z": "out B O", "which": "in B O int32"},
)


def good() -> Arrays:
    """Return the operands of a call that fits RECORD: B = 2, I = 3, O = 4, K = 2."""
    f = np.float32
    which = np.zeros((2, 4), np.int32)
    return {
        "x": np.ones((2, 3), f),
        "W": np.ones((3, 8), f),
        "z": np.ones((2, 4), f),
        "which": which,
    }


def test_a_call_that_fits_its_record() -> None:
    call = RECORD.check(good(), workers=2)
    assert call.sizes == {"workers": 2, "B": 2, "I": 3, "O": 4, "K": 2}
    assert call.kind == "float32"


def test_swapped_operands_of_a_record_are_refused() -> None:
    with pytest.raises(OperandError, match=r"\['W', 'x', 'z', 'which'\].*Received: \['x', 'W', "):
        operation(ROWS, W="in I K*O", x="in B I", z="out B O", which="in B O int32")(copy_piece)


def loop_of_row(x: Any, row: Any) -> None:
    """Take the first row of a worker's part."""


@pytest.mark.parametrize(
    ("loop", "split", "operands", "message"),
    [
        (
            copy_piece,
            ROWS,
            {"x": "in B I", "W": "in I O", "z": "out B O"},
            "must take the operands",
        ),
        (loop_of_row, ONE, {"x": "in B I"}, r"then any of \['worker'\]"),
        (loop_of_row, Split("rows", even="P"), {"x": "in B I"}, "split by {'P'}, which no operand"),
        (loop_of_row, ROWS, {"x": "input B I"}, "Received: 'input B I'"),
        (loop_of_row, ROWS, {"x": "in B I float31"}, "Received: 'in B I float31'"),
        (loop_of_row, ROWS, {"x": "in"}, "must be like 'out B O int32'"),
        (loop_of_row, ROWS, {"x": "in B I int32 int64"}, "must be like 'out B O int32'"),
    ],
)
def test_wrong_records_are_refused(
    loop: Any, split: Split, operands: dict[str, str], message: str
) -> None:
    with pytest.raises(OperandError, match=message):
        Record(loop, split, operands)


def read_only(array: Any) -> Any:
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"x": np.ones((2, 5), "f4")}, r"W must be .*'I': 5.*Received: \(3, 8\)"),
        ({"z": np.ones((3, 4), "f4")}, r"z must be .*'B': 2.*Received: \(3, 4\)"),
        ({"W": np.ones((3, 9), "f4")}, r"W must be .*'O': 4.*Received: \(3, 9\)"),
        ({"x": np.ones(2, "f4")}, r"x must be \('B', 'I'\). Received: \(2,\)"),
        ({"z": np.ones((2, 4))}, "z must be float32. Received: float64"),
        ({"which": np.zeros((2, 4), "i8")}, "which must be int32. Received: int64"),
        ({"x": np.ones((2, 3), "i4")}, "x must be float32 or float64. Received: int32"),
        ({"z": read_only(np.ones((2, 4), "f4"))}, "z must be writeable"),
        ({"y": np.ones(2)}, r"missing or surplus operands: \['y'\]"),
    ],
)
def test_wrong_operands_of_a_call_are_refused(changed: Arrays, message: str) -> None:
    with pytest.raises(OperandError, match=f"copy_piece: {message}"):
        RECORD.check(good() | changed, workers=1)


def test_swapped_and_missing_arrays_of_a_call_are_refused() -> None:
    arrays = good()
    swapped = {**arrays, "x": arrays["W"], "W": arrays["x"]}
    with pytest.raises(OperandError, match=r"copy_piece: W must be .*Received:"):
        RECORD.check(swapped, workers=1)
    del arrays["x"]
    with pytest.raises(OperandError, match=r"missing or surplus operands: \['x'\]"):
        RECORD.check(arrays, workers=1)


def maxout_call(**changed: Any) -> Call:
    z, a = np.arange(12.0).reshape(2, 6), np.empty((2, 3))
    return Call("maxout_forward", {"z": z, "a": a, "which": np.empty((2, 3), "i4")} | changed)


def test_a_recorded_call_is_checked_before_its_operation_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Assembly([maxout_call()], 1)
    monkeypatch.setattr("nnbackend_numba.assembly.operation", lambda *_: pytest.fail("made"))
    for changed in ({"z": np.ones((2, 7))}, {"which": np.empty((2, 3), "i8")}):
        with pytest.raises(OperandError):
            Assembly([maxout_call(**changed)], 1)


def test_arrays_that_are_not_contiguous_are_not_recorded() -> None:
    for z in (np.ones((6, 2)).T, np.ones((2, 6)).astype(">f8")):
        with pytest.raises(NotRecordable, match="not C-contiguous and native"):
            Assembly([maxout_call(z=z)], 1)


def test_a_direct_call_with_a_missing_or_surplus_operand_is_refused() -> None:
    step, call = steps.DirectStep(), SimpleNamespace(delta=np.ones((2, 3)))
    given = {"dz": np.ones((2, 6))}
    with pytest.raises(OperandError, match=r"missing or surplus operands: \['which'\]"):
        step.run(maxout.maxout_backward, call, **given)
    with pytest.raises(OperandError, match=r"missing or surplus operands: \['which', 'whihc'\]"):
        step.run(maxout.maxout_backward, call, **given, whihc=np.ones((2, 3)))


def test_a_kernel_must_be_one_of_the_backends() -> None:
    def copy(z: Any, a: Any) -> None:
        """Name arguments that Backend.copy does not have."""

    with pytest.raises(OperandError, match="'copy_piece'"):
        steps.kernel(RECORD)
    with pytest.raises(
        OperandError, match=r"copy must have the arguments of Backend's method: \['a', .*'z'\]"
    ):
        steps.kernel(operation(ROWS, z="in B O", a="out B O")(copy))
    assert "copy" not in steps.KERNELS


def test_every_record_that_is_a_kernel_takes_direct_calls() -> None:
    direct = steps.KERNELS.keys() - steps.RECORDED_ONLY
    methods = vars(backend._CompiledKernels)
    assert direct <= methods.keys()
    assert {"maxout_forward", "maxout_backward", "tick"} <= direct


@pytest.mark.parametrize("workers", [1, 2, 3, 4])
@pytest.mark.parametrize("n", [0, 1, 7, 16, 48, 100, 1024, 5000])
def test_parts_cover_everything_once(n: int, workers: int) -> None:
    for part in (even_part.py_func, part_of_lines.py_func):
        ends = [part(n, worker, workers) for worker in range(workers)]
        assert [0, *(hi for _, hi in ends)] == [*(lo for lo, _ in ends), n]
    sizes = {hi - lo for lo, hi in (even_part.py_func(n, w, workers) for w in range(workers))}
    assert max(sizes) - min(sizes) <= 1


def test_workers_own_what_the_split_says() -> None:
    delta, dx = np.zeros((6, 10, 16), "f4"), np.zeros((6, 64, 16), "f4")
    given, vectors = {"delta": delta, "W": np.zeros((64, 10), "f4"), "dx": dx}, np.zeros(96, "f4")
    code = source_of(dense.input_gradient, dense.input_gradient.check(given, 2))
    assert "lo_Q, hi_Q = even_part(n_Q, worker, workers)" in code
    assert "own_W = view(at_W + lo_I*n_O*4, ((hi_I - lo_I), n_O,), float32)" in code
    assert "own_dx = view(at_dx + lo_Q*n_I*n_L*4, ((hi_Q - lo_Q), n_I, n_L," in code
    squares = Record(lambda v: None, Split("vector", even="P"), {"v": "in P"})
    code = source_of(squares, squares.check({"v": vectors}, 2))
    assert "lo_P, hi_P = even_part(n_P, worker, workers)" in code


def test_an_operation_has_its_record_in_its_name() -> None:
    """The name is the key of the disk cache: a changed record is compiled again."""

    def loop(x: Any, z: Any) -> None:
        for i in range(z.size):
            z[i] = x[i]

    x, names = np.ones(4, "f4"), set()
    for split, text in ((ROWS, "in B"), (ROWS, "inout B"), (Split("rows", lines="B"), "in B")):
        changed = Record(loop, split, {"x": text, "z": "out B"})
        call = changed.check({"x": x, "z": np.empty(4, "f4")}, 1)
        names.add(compiled_operation(changed, call).native_name)
    assert len(names) == 2  # the second record makes the code of the first
    recorded = record(backend.NumbaBackend(), lambda: None)
    assert recorded == []
