"""Functions of weights that do not change any more."""

from __future__ import annotations

from torch import Tensor, nn


class Settling(nn.Module):
    """A module that computes with functions of its weights.

    While these learn, the functions are worked out in every call; :meth:`settle` does it once and
    for all. On small images calls are what a loss costs.
    """

    _settled = 0

    def functions(self) -> tuple[Tensor, ...]:
        """What the module needs of its weights."""
        raise NotImplementedError

    def settle(self) -> None:
        """Keep the functions as buffers, which follow ``.to()`` and are no part of the state."""
        values = self.functions()
        for index, value in enumerate(values):
            # A copy, in its own layout: some functions are views of the weights.
            self.register_buffer(f"_settled{index}", value.detach().clone(), persistent=False)
        self._settled = len(values)

    def settled(self) -> tuple[Tensor, ...]:
        """:meth:`functions`, as they are now."""
        if not self._settled:
            return self.functions()
        return tuple(getattr(self, f"_settled{index}") for index in range(self._settled))
