"""Recording a training step on a CUDA GPU, to launch it whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

# What is run before recording, as PyTorch asks for, so that libraries have set themselves up.
_WARM_UP_STEPS = 3


class RecordedStep:
    """A training step that is recorded at its first call as a CUDA graph, and replayed from then on.

    The kernels of a small batch take less time than Python takes to launch them one by one. Batches may be smaller
    than the first one: the rows that they lack are filled with earlier ones, which do not count.

    Args:
        step: takes a batch's inputs and targets, and the weight in the loss of each row, on the device. It must not
            wait for the device.
        changed: returns every tensor that a step changes, so that warming up changes nothing.
    """

    def __init__(
        self,
        step: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], None],
        changed: Callable[[], Sequence[torch.Tensor]],
    ) -> None:
        self._step, self._changed = step, changed
        self._graph: torch.cuda.CUDAGraph | None = None
        self._places: tuple[torch.Tensor, ...] = ()

    def __call__(self, inputs: torch.Tensor, target: torch.Tensor, counts: torch.Tensor) -> None:
        """Take the step on a batch."""
        if self._graph is None:
            self._graph = self._recorded(inputs, target, counts)
        self._places[2].zero_()
        for place, values in zip(self._places, (inputs, target, counts), strict=True):
            place[: len(values)].copy_(values)
        self._graph.replay()

    def _recorded(self, *batch: torch.Tensor) -> torch.cuda.CUDAGraph:
        self._places = tuple(values.clone() for values in batch)
        changed = self._changed()
        # Detached: what autograd knew of a parameter on this stream would have no place in a recording.
        before = [value.detach().clone() for value in changed]
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        graph = torch.cuda.CUDAGraph()
        with torch.random.fork_rng(devices=[batch[0].device]):
            with torch.cuda.stream(side):
                for _ in range(_WARM_UP_STEPS):
                    self._step(*self._places)
            torch.cuda.current_stream().wait_stream(side)
            with torch.cuda.graph(graph):
                self._step(*self._places)
        with torch.no_grad():
            for value, kept in zip(changed, before, strict=True):
                value.copy_(kept)
        return graph
