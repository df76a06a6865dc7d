"""Whether what was made of tensors still holds: the one place where packed inference notices that a buffer has changed.

Torch's own counter of writes misses numpy views, `.data` and inference mode. What is read by its address at every call has
to be the same tensor in the same place; of what was copied, the bytes have to be the same as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor

from binarize.kernels.buffers.digest import watched
from binarize.kernels.buffers.memory import place

__all__ = ["Origin"]


class Origin:
    """The tensors that something was made of; it holds copies of those `copied`, and reads the others where they lie.

    The tensors are kept, so that no other can come to have their identity.
    """

    __slots__ = ("_content", "_content_now", "_known")

    def __init__(self, tensors: Iterable[Tensor | None], copied: Sequence[Tensor] = ()) -> None:
        self._known = [(tensor, place(tensor)) for tensor in tensors]
        self._content_now = watched(*copied) if copied else None
        self._content = None if self._content_now is None else self._content_now()

    def still_holds(self, tensors: Iterable[object]) -> bool:
        """Whether these are the same tensors in the same order, and nothing has changed that was copied.

        Raises: UsageError, where the storage of a copied tensor was made shorter.
        """
        for tensor, (known, where) in zip(tensors, self._known):
            if tensor is not known or (known is not None and place(known) != where):
                return False
        return self._content_now is None or self._content_now() == self._content
