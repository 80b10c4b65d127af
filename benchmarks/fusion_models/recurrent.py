"""Cells of recurrent networks, step by step, as graphs of operators.

`nn.GRU` and `nn.LSTM` are one call of a library each, which compilers leave alone; cells that
attention gates, as DIEN has them, are in no library.

    B batch   T position   D width of what comes in   H width of the state   G gates times H
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["AttentionalGRU", "BidirectionalLSTM"]


class AttentionalGRU(nn.Module):
    """A GRU whose update gate is scaled by a weight of each position; by 1 without weights.

    Source: Zhou et al. 2019, arXiv 1809.03672, equations 11 to 13 (AUGRU).
    """

    def __init__(self, width: int, state: int) -> None:
        super().__init__()
        self.into = nn.Linear(width, 3 * state)
        self.again = nn.Linear(state, 3 * state)

    def forward(self, x_BTD: Tensor, weight_BT: Tensor | None = None) -> Tensor:
        """All states [B,T,H]."""
        from_inputs = self.into(x_BTD)
        state_BH = x_BTD.new_zeros(x_BTD.shape[0], self.again.in_features)
        states: list[Tensor] = []
        for at in range(x_BTD.shape[1]):
            reset_x, update_x, new_x = from_inputs[:, at].chunk(3, dim=-1)
            reset_h, update_h, new_h = self.again(state_BH).chunk(3, dim=-1)
            update = torch.sigmoid(update_x + update_h)
            new = torch.tanh(new_x + torch.sigmoid(reset_x + reset_h) * new_h)
            if weight_BT is not None:
                update = update * weight_BT[:, at, None]
            state_BH = state_BH + update * (new - state_BH)
            states.append(state_BH)
        return torch.stack(states, 1)


class LSTM(nn.Module):
    """An LSTM in one direction.

    Source: Hochreiter and Schmidhuber 1997, with forget gates (Gers et al. 2000).
    """

    def __init__(self, width: int, state: int) -> None:
        super().__init__()
        self.into = nn.Linear(width, 4 * state)
        self.again = nn.Linear(state, 4 * state, bias=False)

    def forward(self, x_BTD: Tensor, is_backward: bool) -> Tensor:
        """All states [B,T,H]."""
        from_inputs_BTG = self.into(x_BTD)
        state_BH = x_BTD.new_zeros(x_BTD.shape[0], self.again.in_features)
        cell_BH = state_BH
        positions = range(x_BTD.shape[1])
        states: dict[int, Tensor] = {}
        for at in reversed(positions) if is_backward else positions:
            gates_BG = from_inputs_BTG[:, at] + self.again(state_BH)
            let_in, forget, new, let_out = gates_BG.chunk(4, dim=-1)
            cell_BH = forget.sigmoid() * cell_BH + let_in.sigmoid() * new.tanh()
            state_BH = let_out.sigmoid() * cell_BH.tanh()
            states[at] = state_BH
        return torch.stack([states[at] for at in positions], 1)


class BidirectionalLSTM(nn.Module):
    """Two LSTMs, one from the front and one from the back."""

    def __init__(self, width: int, state: int) -> None:
        super().__init__()
        self.ahead = LSTM(width, state)
        self.back = LSTM(width, state)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Both states of each position [B,T,2H]."""
        return torch.cat((self.ahead(x_BTD, False), self.back(x_BTD, True)), -1)
