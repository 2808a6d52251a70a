"""Pictures of samples as compact files: PNG where pixels are few, WebP where that is several times smaller."""

from __future__ import annotations

import base64
import functools
import io
import struct
import zlib
from typing import TYPE_CHECKING

from xaicli.report.charts import Image

if TYPE_CHECKING:
    from PIL.Image import Image as Pillow

LOSSLESS_PIXELS = 64 * 64
"""Up to this size pictures are kept exactly, and shown as the squares they are."""

_QUALITY = 80


def png_of(image: Image) -> bytes:
    """The picture as PNG, losslessly."""
    return _encoded(image, "PNG", optimize=True)


def data_uri(image: Image) -> str:
    """The picture as a `data:` address: PNG up to 64 x 64 pixels, WebP (quality 80) beyond.

    A 224 x 224 saliency map takes 45-52 KB as PNG, 11-18 KB as WebP.
    """
    if image.width * image.height <= LOSSLESS_PIXELS:
        return "data:image/png;base64," + base64.b64encode(png_of(image)).decode()
    encoded = _encoded(image, "WEBP", quality=_QUALITY, method=4)
    return "data:image/webp;base64," + base64.b64encode(encoded).decode()


_PNG_ROWS = 128


def png_bytes(picture: Pillow) -> bytes:
    """A large picture, RGB or RGBA, as PNG, compressed for time rather than for size.

    Each row is written as its difference from the one above (filter 2 of the PNG specification), which suits charts and
    sheets; looking for the best filter of each row, as Pillow does, takes three times as long.
    """
    import numpy as np

    packer, packed = zlib.compressobj(1), []
    above = np.zeros(picture.width * len(picture.getbands()), np.uint8)
    # Some rows at a time: a sheet has tens of megabytes of pixels.
    for top in range(0, picture.height, _PNG_ROWS):
        part = np.asarray(picture.crop((0, top, picture.width, min(top + _PNG_ROWS, picture.height))))
        pixels = part.reshape(len(part), -1)
        rows = np.empty((len(pixels), 1 + pixels.shape[1]), np.uint8)
        rows[:, 0] = 2
        np.subtract(pixels[0], above, out=rows[0, 1:])
        np.subtract(pixels[1:], pixels[:-1], out=rows[1:, 1:])
        packed.append(packer.compress(rows.data))
        above = pixels[-1]
    kind = {3: 2, 4: 6}[len(picture.getbands())]
    head = struct.pack(">IIBBBBB", picture.width, picture.height, 8, kind, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", b"".join((*packed, packer.flush()))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def rgb(image: Image) -> tuple[str, bytes]:
    """Pillow's name of the kind of pixels, and the pixels with the palette applied."""
    if not image.palette:
        return {1: "L", 3: "RGB", 4: "RGBA"}[image.channels], image.pixels
    red, green, blue = (image.pixels.translate(table) for table in _tables(image.palette))
    pixels = bytearray(3 * len(image.pixels))
    pixels[0::3], pixels[1::3], pixels[2::3] = red, green, blue
    return "RGB", bytes(pixels)


@functools.cache
def _tables(palette: str) -> tuple[bytes, bytes, bytes]:
    """The red, green and blue of each grey level."""
    from matplotlib import colormaps

    levels = [colormaps[palette](level / 255, bytes=True) for level in range(256)]
    red, green, blue = (bytes(int(level[channel]) for level in levels) for channel in range(3))
    return red, green, blue


def as_pillow(image: Image) -> Pillow:
    """The picture as Pillow has it."""
    from PIL import Image as Pillow

    mode, pixels = rgb(image)
    return Pillow.frombytes(mode, (image.width, image.height), pixels)


def _encoded(image: Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    as_pillow(image).save(out, kind, **options)
    return out.getvalue()
