"""What training changes in a network, by name."""

from __future__ import annotations

import torch
from torch import nn

from headstart.network.cut import set_trainable

State = dict[str, torch.Tensor]


def interpolated(start: State, end: State, share: float) -> State:
    """Return `(1 - share) * start + share * end`, tensor by tensor (WiSE-FT, Wortsman et al., 2022)."""
    return {name: torch.lerp(start[name], end[name], share) for name in end}


def trained_state(suffix: nn.Module, train_batch_norm: bool = False) -> State:
    """Copy what training changes in a suffix, to float32 on the CPU."""
    return copied(set_trainable(suffix, train_batch_norm))


def load_state(suffix: nn.Module, state: State) -> None:
    """Put a state back into a suffix."""
    places = {**dict(suffix.named_parameters()), **dict(suffix.named_buffers())}
    with torch.no_grad():
        for name, tensor in state.items():
            places[name].copy_(tensor)


def copied(state: State) -> State:
    """Copy a state to float32 on the CPU."""
    return {name: value.detach().float().cpu().clone() for name, value in state.items()}
