"""From a file to the array a network takes, with Pillow and numpy alone.

Resize so that the shorter side fits (bilinear), crop the centre, scale to [0, 1]: the same pixels, bit for bit, as timm's
evaluation transform for our configurations.
"""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import Damaged

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 2**27  # 134 million: more is taken for a decompression bomb
MAX_BYTES = 2**29  # of a file; MAX_PIXELS in RGB have less
HEIC = (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftyphevc")  # how the pictures of telephones begin, after four bytes
MAX_RESIZED = 2**25  # pixels of a whole picture, resized before its centre is cut out


class ImageError(Damaged):
    """A file that is no readable image; the message names it and says why."""


def open_image(source: str | Path | bytes, name: str | None = None, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """An upright RGB image from anything Pillow reads: transparency over white, 16 bits scaled to 8, first frame.

    Args:
        source: a path, or the file's bytes.
        name: what to call it in errors.
        max_pixels: more are not decoded.
    Raises:
        ImageError: missing, unreadable, empty, not an image, truncated, or absurdly large.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    name = name or ("the picture" if isinstance(source, bytes) else str(source))
    try:
        data = source if isinstance(source, bytes) else _read(Path(source))
    except OSError as error:
        raise ImageError(f"{name}: {reason(error)}") from error
    except ValueError as error:  # no file can have that name
        raise ImageError(f"{name!r}: {error}") from error
    if not data:
        raise ImageError(f"{name}: the file is empty")
    check_bytes(name, len(data), MAX_BYTES)
    limit = f"the {max_pixels // 10**6} million that are safe to decode: save it smaller"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data)) as image:
                if image.format == "EPS":  # Pillow would have Ghostscript run it
                    raise ImageError("a PostScript program: save it as a picture, PNG say")
                if image.width * image.height > max_pixels:
                    raise ImageError(f"{image.width} x {image.height} pixels are more than {limit}")
                image.load()
                return to_rgb(ImageOps.exif_transpose(image))
    except UnidentifiedImageError as error:
        if data[4:12] in HEIC:
            raise ImageError(f"{name}: a HEIC picture, which is not read here: save it as JPEG or PNG") from error
        raise ImageError(f"{name}: not an image") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name}: more pixels than {limit}") from error
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from error
    except Exception as error:  # Pillow's decoders raise all kinds on damaged data
        raise ImageError(f"{name}: damaged image ({' '.join(str(error).split()) or type(error).__name__})") from error


def _read(path: Path) -> bytes:
    """Raises OSError, ValueError; ImageError of a file that is too large to be a picture."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size  # 0 of a pipe
        check_bytes(str(path), size, MAX_BYTES)
        return file.read() if size else file.read(MAX_BYTES + 1)


def check_bytes(name: str, size: int, most: int) -> None:
    """Raises ImageError where that is more than a picture has."""
    if size > most:
        raise ImageError(f"{name}: larger than the {most // 2**20} MB that a picture can have")


def reason(error: OSError) -> str:
    """Why a file cannot be read, in words."""
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, IsADirectoryError):
        return "is a folder"
    return (error.strerror or str(error)).lower()


def to_rgb(image: Image.Image) -> Image.Image:
    """Any of Pillow's modes as RGB. Raises ImageError for numbers without a known white."""
    from PIL import Image

    if image.mode.startswith(("I", "F")):
        values = np.asarray(image, np.float32)
        least, most, limit = values.min(initial=0), values.max(initial=0), 255 if image.mode == "F" else 65535
        if not (least >= -0.1 * most and most <= limit):  # a little below 0 are the edges of what was resized; NaN is neither
            raise ImageError(f"values from {least:.4g} up to {most:.4g}, where {limit} is white: save it with 8 or 16 bits")
        if image.mode == "F":
            scale = 255.0 if most <= 2 else 1.0  # from 0 to 1, some overexposed, or from 0 to 255
        else:  # 16 bits; 32 hold 8 or 16
            scale = 1 if image.mode == "I" and most <= 255 else 1 / 257
        image = Image.fromarray(np.clip(np.round(values * scale), 0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def preprocess(image: Image.Image, input_size: tuple[int, int, int], name: str = "the picture") -> np.ndarray:
    """float32 ``[C, H, W]`` in [0, 1].

    Args:
        input_size: (channels, side, side); 1 channel is luminance.
        name: what to call it in errors.
    Raises:
        ImageError: so long and thin that it would not fit into memory, or for a network of other channels.
    """
    from PIL import Image

    channels, side, _ = input_size
    if channels not in (1, 3):
        raise ImageError(f"{name}: a picture has 1 or 3 channels, the network takes {channels}")
    if channels == 1:
        image = image.convert("L")
    w, h = image.size
    if min(w, h) != side:
        # The longer side is truncated, not rounded: torchvision's rule, which timm's transform follows.
        size = (side, int(side * h / w)) if w <= h else (int(side * w / h), side)
        if size[0] * size[1] > MAX_RESIZED:
            raise ImageError(f"{name}: {w} x {h} pixels are too long and thin to be resized: cut a part out of it")
        image = image.resize(size, Image.Resampling.BILINEAR)
    left, top = (round((length - side) / 2) for length in image.size)
    pixels = np.asarray(image.crop((left, top, left + side, top + side)), np.float32) / np.float32(255)
    return pixels[None] if channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def resize(x: np.ndarray, size: int) -> np.ndarray:
    """Bilinear and antialiased, ``[..., H, W]`` to ``[..., size, size]``."""
    rows, columns = (_resize_weights(n, size) for n in x.shape[-2:])
    return rows @ x @ columns.T


def _resize_weights(n: int, size: int) -> np.ndarray:
    """Row i holds the weights of the n input pixels in output pixel i, float32 ``[size, n]``."""
    scale = n / size
    middle = (np.arange(size)[:, None] + 0.5) * scale
    weights = np.clip(1 - np.abs((np.arange(n) + 0.5 - middle) / max(scale, 1)), 0, None)
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)
