"""Images of a folder: one whose size its file does not explain is not read."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from binarize.training.data.kinds.folders import FolderImages


@pytest.mark.parametrize(
    ("size", "is_read"), [((40, 40_000), True), ((1, 1001), False), ((9500, 9500), False)]
)
def test_an_image_that_takes_more_memory_than_its_file_explains_is_refused(
    size: tuple[int, int], is_read: bool, tmp_path: Path
) -> None:
    (tmp_path / "cat").mkdir()
    Image.new("1", size).save(tmp_path / "cat" / "1.png")
    images = FolderImages(tmp_path, "L")
    if is_read:
        assert images[0][0].size == size
        return
    with pytest.raises(ValueError, match=f"is of {size[0]:,} x {size[1]:,} pixels"):
        images[0]
