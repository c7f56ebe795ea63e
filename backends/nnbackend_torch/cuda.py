"""PyTorch on a CUDA or ROCm GPU: steps are captured into graphs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from nnbackend_torch.backend import TorchBackend

LOG = logging.getLogger("nnbackend.torch")


class TorchCUDA(TorchBackend):
    """One GPU; not yet run by us."""

    capabilities = frozenset({"capture"})

    def __init__(self, index: int) -> None:
        super().__init__("cuda", index)

    @contextmanager
    def _inside(self, multiplications: int | None) -> Iterator[None]:
        with torch.cuda.device(self._device), super()._inside(multiplications):
            yield

    def capture(self, step: Callable[[], None]) -> Callable[[int], None]:
        """Return a function that replays a graph of the step, or calls a step without one.

        The first step is called, on the stream of the capture: it compiles and allocates.
        Source: https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
        """
        graph: Any = None
        called = super().capture(step)
        has_run = False

        def run(n: int) -> None:
            nonlocal graph, has_run
            with self._inside(None):
                if not has_run and n:
                    side = torch.cuda.Stream()
                    side.wait_stream(torch.cuda.current_stream())
                    with torch.cuda.stream(side):
                        step()
                    torch.cuda.current_stream().wait_stream(side)
                    has_run, n = True, n - 1
                    graph = self._graph_of(step)
                if graph is None:
                    called(n)
                    return
                for _ in range(n):
                    graph.replay()

        return run

    def _graph_of(self, step: Callable[[], None]) -> Any:
        """Return the graph of a step, or None for one that cannot be captured."""
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                step()
        except RuntimeError as error:
            LOG.warning("steps are called one by one, not replayed: %s", str(error).split("\n")[0])
            torch.cuda.synchronize()
            return None
        return graph
