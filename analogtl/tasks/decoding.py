"""Decode images of every format that Pillow decodes, within bounds."""

from __future__ import annotations

import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analogtl.errors import ExperimentError
from analogtl.files import check_regular

# Of one image. A decoder may need 16 bytes for each pixel: half a gigabyte (measured: WebP).
MAX_PIXELS = 1 << 25
MAX_BYTES = 1 << 28
# Formats that Pillow recognises and cannot decode by itself: for EPS it starts another program.
_NOT_DECODED = ("EPS", "MPEG", "WMF")


@lru_cache(maxsize=1)
def image_formats() -> dict[str, str]:
    """Ending of a file's name -> Pillow's format, of those that it decodes by itself."""
    from PIL import Image, ImageFile

    known = Image.registered_extensions()
    stubs = {  # they only name the format
        name
        for name, (opener, _) in Image.OPEN.items()
        if isinstance(opener, type) and issubclass(opener, ImageFile.StubImageFile)
    }
    # MPO, several JPEGs in one file, is opened by the opener of JPEG.
    decoded = {*Image.OPEN, "MPO"} - stubs - {*_NOT_DECODED}
    return {suffix: name for suffix, name in known.items() if name in decoded}


def read_image(path: Path, size: int) -> NDArray[np.uint8]:
    """Read one image, of several the first, as (3, size, size).

    It becomes RGB; what exceeds a square is cut off around its centre, and the rest resized.

    Raises:
        ExperimentError: its pixels are too many, or not whole numbers of 8 or 16 bits.
        Exception: damaged images fail in many ways.
    """
    from PIL import Image, ImageOps

    if check_regular(path) > MAX_BYTES:
        raise ExperimentError(f"more than {MAX_BYTES} bytes")
    formats = sorted({*image_formats().values()} & {*Image.OPEN})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a size that is judged here, and of odd metadata
        with Image.open(path, formats=formats) as image:
            # Lets a large JPEG be decoded at a lower scale.
            image.draft("RGB", (2 * size, 2 * size))
            if image.width * image.height > MAX_PIXELS:
                raise ExperimentError(
                    f"{image.width} x {image.height} pixels, more than {MAX_PIXELS}; scale it down"
                )
            ImageOps.exif_transpose(image, in_place=True)
            grey = image.mode.startswith(("I", "F"))
            whole = Image.fromarray(_eight_bits(np.asarray(image))) if grey else image
            rgb = whole if whole.mode == "RGB" else whole.convert("RGB")  # which would copy it
            square = ImageOps.fit(rgb, (size, size), Image.Resampling.BILINEAR)
            return np.asarray(square).transpose(2, 0, 1)


def _eight_bits(grey: NDArray[Any]) -> NDArray[np.uint8]:
    """Scale 16-bit grey, which Pillow would clip; what white is in wider types, nobody says."""
    if grey.dtype.kind == "f" or grey.min() < 0 or grey.max() > 65535:
        raise ExperimentError("pixels of 32 bits, or not whole; save it with 8 or 16 bits")
    return (grey // 257).astype(np.uint8)
