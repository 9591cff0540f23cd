"""Errors of the Phoenix room that are nobody else's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from infertool.errors import InfertoolError

if TYPE_CHECKING:
    from infertool.phoenix.push import Push


class DeliveryClosedError(InfertoolError):
    """The delivery takes no more pushes. `unpushed` are those it did not take, for the caller to hand back."""

    def __init__(self, unpushed: Sequence[Push]) -> None:
        super().__init__(f"the delivery is closed; {len(unpushed)} pushes were not taken")
        self.unpushed = tuple(unpushed)
