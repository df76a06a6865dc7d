"""What an export of a planned model would refuse, before anything is trained."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from binarize.errors import CheckError, UsageError
from binarize.exporters.export import FORMATS, check_format, writer_of
from binarize.exporters.foreign import in_our_words

if TYPE_CHECKING:
    from torch import nn

__all__ = ["foresee"]


def foresee(model: nn.Module, format: str) -> tuple[str, ...]:
    """What could not be exported of a converted model, a sentence each with the layer and the way out; () where all can.

    For C every operation that has no code is named, for other formats the first that their library refuses. The numbers
    of the model do not matter: it is converted, not trained.

    Raises: UsageError, where there is no such format, or its packages are not installed.
    """
    check_format(format)
    writer = writer_of(format)
    from binarize.exporters.prepare import prepared

    try:
        with in_our_words(format):
            packed, example = prepared(model, None, None)
            if format == "c":
                return tuple(str(error) for error in writer.obstacles(packed, example))
            with tempfile.TemporaryDirectory(prefix="binarize-foresee-") as folder:
                writer.write(packed, example, Path(folder) / f"net{FORMATS[format]}")
    except (UsageError, CheckError) as error:
        return (str(error),)
    return ()
