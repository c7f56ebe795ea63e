"""A process can train after a fork during which threads of its parent trained and compiled."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest
import rows

import nnbackend as nn

X, Y = np.eye(8), np.arange(8) % 2

# Forks while another thread holds the locks that it holds when it trains and compiles.
PROGRAM = """
import os, sys, threading, time, warnings
import numpy as np
import nnbackend as nn
from nnbackend_numpy import threads

warnings.simplefilter("ignore", DeprecationWarning)  # of the fork itself
device, is_holding = sys.argv[1], threading.Event()

def train(phi):
    net = nn.Network([8, nn.Dense(3, phi), nn.Dense(2, "softmax")], "cross_entropy", device=device)
    nn.train(net, np.eye(8), np.arange(8) % 2, epochs=1, batch_size=4)
    return net

def hold():
    with threads.one_each(), threads._lock, COMPILER:
        is_holding.set()
        time.sleep(0.5)

if device == "numba":
    from numba.core.compiler_lock import global_compiler_lock as COMPILER
else:
    COMPILER = threading.Lock()
train("relu")
threading.Thread(target=hold).start()
is_holding.wait()
child = os.fork()
if child == 0:
    assert threads._active == 0
    train("relu")
    train(nn.Activation("own", lambda z: z * z * 0.5, lambda z: z))  # must be compiled
    os._exit(0)
end = time.monotonic() + 60.0
while time.monotonic() < end:
    done, status = os.waitpid(child, os.WNOHANG)
    if done:
        sys.exit(os.waitstatus_to_exitcode(status))
    time.sleep(0.02)
os.kill(child, 9)
sys.exit("the child hangs")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.parametrize("device", ["numpy", "numba"])
def test_a_forked_child_does_not_wait_for_the_parents_threads(device: str) -> None:
    rows.make_or_skip(device)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, device], capture_output=True, text=True, check=False,
        timeout=300, env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_compiled_code_runs_without_the_compiler_lock() -> None:
    """Training, prediction and a new network of compiled formulas acquire no lock of numba."""
    lock: Any = pytest.importorskip("numba.core.compiler_lock").global_compiler_lock

    def train_and_predict() -> None:
        for loss in ("cross_entropy", "quadratic"):  # the latter runs kernel by kernel
            net = nn.Network([8, 5, nn.Dense(2, "softmax")], loss, device="numba")
            weight = None if loss == "cross_entropy" else np.ones(8)
            nn.train(net, X, Y, epochs=2, batch_size=4, sample_weight=weight)
            net.predict(X)

    train_and_predict()
    other = threading.Thread(target=train_and_predict, daemon=True)
    with lock:
        other.start()
        other.join(30.0)
        assert not other.is_alive(), "it waits for the compiler"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_during_a_recording() -> None:
    """The child's kernels work although a thread of the parent was recording."""
    numba_backend: Any = pytest.importorskip("nnbackend_numba.backend")
    from nnbackend_numba import recorder

    backend, array = numba_backend.NumbaBackend(), np.zeros(3)
    begun, may_end = threading.Event(), threading.Event()

    def step() -> None:
        begun.set()
        may_end.wait(30.0)

    other = threading.Thread(target=recorder.record, args=(backend, step))
    other.start()
    begun.wait()
    child = os.fork()
    if child == 0:
        signal.alarm(30)  # ends a child that hangs
        backend.fill(array, 2.0)
        calls = recorder.record(backend, lambda: backend.fill(array, 7.0))
        os._exit(0 if (array == 2.0).all() and len(calls) == 1 else 1)
    may_end.set()
    other.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
