"""Reading the image files that people have, as sRGB tensors, without losing precision silently."""

from __future__ import annotations

import os
import re
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from PIL import Image as PilImage

IMAGE_SUFFIXES = frozenset(
    (
        ".png",
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".webp",
        ".tif",
        ".tiff",
        ".bmp",
        ".gif",
        ".avif",
        ".jp2",
        ".j2k",
        ".ppm",
        ".pgm",
        ".pnm",
    )
)
"""Endings (lower case) of the files taken for images when a folder is searched."""

MATTE = 0.5
"""Grey level on which transparent images are composited: black and white both stay visible."""

_MISSING = (
    "reading image files needs Pillow, which is not installed: pip install 'relqa-loss[demo]'"
)
_BITS_PER_SAMPLE, _PHOTOMETRIC, _PLANAR = 258, 262, 284  # TIFF tags
_ORIENTATION = 0x0112  # EXIF tag
_WITHOUT_CONVERSION = ("I;16", "I;16L", "I;16B", "I;16N")
# Pillow keeps the high byte of 16-bit colour samples. Decoding the same data once more as if its
# bytes were in the other order yields the low byte.
_SWAPPED = {
    "RGB;16B": "RGB;16L",
    "RGB;16L": "RGB;16B",
    "RGB;16N": "RGB;16B",
    "RGBA;16B": "RGBA;16L",
    "RGBA;16L": "RGBA;16B",
    "RGBA;16N": "RGBA;16B",
}
_GREY_FACTORS = {"L;2": 85, "L;4": 17}

_Array = NDArray[Any]


class ImageReadError(ValueError):
    """A file that cannot be used as an image; the message names the file and says why."""

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        super().__init__(f"{os.fspath(path)}: {reason}")
        self.path = os.fspath(path)
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.reason)


class LoadedImage(NamedTuple):
    """An image and what had to be decided to read it."""

    pixels: Tensor
    """3×H×W float32 in [0, 1], sRGB."""
    notes: tuple[str, ...]
    """Sentences on what was done beyond decoding (compositing, conversion), mostly none."""


def read_image(path: str | os.PathLike[str]) -> Tensor:
    """The pixels of :func:`load_image`: 3×H×W float32 in [0, 1].

    Args:
        path: An image file.

    Raises:
        ImageReadError: As :func:`load_image`.
        ImportError: If Pillow is not installed.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from relqa_loss.imageio import read_image
        >>> path = Path(tempfile.mkdtemp()) / "grey.png"
        >>> Image.new("L", (4, 2), 51).save(path)
        >>> image = read_image(path)
        >>> image.shape, round(float(image[0, 0, 0]), 3)
        (torch.Size([3, 2, 4]), 0.2)
    """
    return load_image(path).pixels


def load_image(path: str | os.PathLike[str]) -> LoadedImage:
    """Read an image file as a person would expect to see it.

    * 8- and 16-bit PNG, TIFF (grey of 12 bits, too), PPM and PGM, JPEG, WebP, AVIF, JPEG 2000, BMP
      and whatever else Pillow reads; 16 bits per sample keep their precision, in colour too. AVIF
      and colour JPEG 2000 of more than 8 bits are reduced to 8, with a note.
    * Grey, bilevel and palette images become RGB; CMYK is converted.
    * The EXIF orientation is applied; damaged EXIF data are left out, with a note.
    * An embedded colour profile other than sRGB is converted to sRGB (8-bit colour images), with
      a note; 16-bit colour images with such a profile are refused.
    * Fully opaque alpha is dropped. Real transparency is composited on mid-grey (:data:`MATTE`),
      with a note: hidden colours do not count, and neither black nor white content vanishes.
    * Refused: animations and other files of several frames (a phone's MPO gives its main
      picture), floating-point and 32-bit samples, and every damaged file.

    Args:
        path: An image file.

    Returns:
        The pixels, 3×H×W float32 in [0, 1], and the notes.

    Raises:
        ImageReadError: If the file is missing, truncated, not an image, or refused.
        ImportError: If Pillow is not installed.
    """
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise ImportError(_MISSING) from error
    path = Path(path)
    if path.is_dir():
        raise ImageReadError(path, "is a folder, not an image file")
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ImageReadError(path, "no such file") from None
    except OSError as error:
        raise ImageReadError(path, f"cannot be opened: {error.strerror or error}") from error
    if not content:
        raise ImageReadError(path, "the file is empty")
    try:
        array, notes = _decode(path, content)
    except ImageReadError:
        raise
    except UnidentifiedImageError:
        reason = "not an image, or damaged at its start, or of a kind that Pillow cannot read"
        if content[:4] in (b"II*\0", b"MM\0*"):
            reason += " (TIFF with floating-point or 32-bit colour? save it with 16 bits)"
        raise ImageReadError(path, reason) from None
    except Image.DecompressionBombError as error:
        raise ImageReadError(path, f"too large: {error}") from error
    except MemoryError:
        raise
    except Exception as error:  # decoders raise OSError, SyntaxError, EOFError, struct.error, …
        raise ImageReadError(path, f"truncated or damaged ({error})") from error
    return LoadedImage(torch.from_numpy(array), notes)


def _decode(path: Path, content: bytes) -> tuple[_Array, tuple[str, ...]]:
    from PIL import Image

    with Image.open(BytesIO(content)) as image:
        frames = getattr(image, "n_frames", 1)
        if frames > 1 and image.format != "MPO":
            raise ImageReadError(
                path, f"has {frames} frames (an animation or several pages); give a single image"
            )
        if image.mode == "F":
            raise ImageReadError(
                path, "has floating-point samples, whose range is unknown; save it with 16 bits"
            )
        notes: list[str] = []
        samples = _decode_netpbm(image, content)
        if samples is not None:
            pixels, alpha = samples, None
        elif _sixteen_bit_colour(path, image):
            pixels, alpha = _decode_deep(path, content)
            image.load()
            if _foreign_profile(image) is not None:
                raise ImageReadError(
                    path,
                    "has 16 bits per sample and a colour profile other than sRGB, which cannot be "
                    "converted without loss here; convert it to sRGB first",
                )
        else:
            _scale_key(image)
            # Pillow unpacks the 12 bits of a TIFF and leaves them at the low end of its 16.
            white = 4095 if _raw_mode(image) == "I;12" else 65535
            image.load()
            pixels, alpha = _decode_shallow(image, white, notes)
            bits = _bits_of_codec(image, content)
            if bits > 8 and image.mode not in _WITHOUT_CONVERSION:
                notes.append(f"reduced from {bits} to 8 bits per sample by Pillow")
        # Read after loading: Pillow turns TIFFs by itself and then forgets the tag.
        orientation = _orientation(image, notes)
    if alpha is not None and bool((alpha < 1).any()):
        pixels = pixels * alpha + MATTE * (1 - alpha)
        share = float((alpha < 1).mean())
        notes.append(f"transparent in {share:.0%} of its pixels: composited on mid-grey")
    oriented = _orient(pixels, orientation)
    return np.ascontiguousarray(oriented.transpose(2, 0, 1), dtype=np.float32), tuple(notes)


def _bits_of_codec(image: PilImage.Image, content: bytes) -> int:
    """Bits per sample in JPEG 2000 and AVIF files, of which Pillow says nothing; 8 for others."""
    if image.format == "JPEG2000":
        # ISO/IEC 15444-1, A.5.1: the start of the codestream, its sizes, each component's depth.
        sizes = content[content.find(b"\xff\x4f\xff\x51") :]
        count = int.from_bytes(sizes[40:42], "big")
        return max(((depth & 0x7F) + 1 for depth in sizes[42 : 42 + 3 * count : 3]), default=8)
    if image.format == "AVIF":
        # AV1 in ISOBMFF, 2.3: the third byte after the box's name says high_bitdepth, twelve_bit.
        box = content.find(b"av1C")
        return 8 + 2 * (content[box + 6] >> 5 & 0b11).bit_count()
    return 8


def _decode_netpbm(image: PilImage.Image, content: bytes) -> _Array | None:
    """PPM and PGM as H×W×3, float32 in [0, 1]; None for what Pillow reads exactly, and other files.

    Pillow rounds samples whose largest value is not 255: those of colour to 8 bits.
    """
    if image.format != "PPM" or image.mode not in ("L", "I", "RGB"):
        return None
    decoder, _, offset, arguments = image.tile[0]  # type: ignore[attr-defined]
    if decoder.startswith("ppm"):
        largest = int(arguments[1])
    else:
        largest = 65535 if _raw_mode(image) == "I;16B" else 255
    if largest == 255:
        return None
    bands = 3 if image.mode == "RGB" else 1
    count = image.height * image.width * bands
    samples: _Array
    if decoder == "ppm_plain":
        words = re.sub(rb"#[^\r\n]*", b"", content[offset:]).split()
        samples = np.array([int(word) for word in words[:count]])
    else:
        samples = np.frombuffer(content, ">u2" if largest > 255 else "u1", count, offset)
    if samples.min() < 0 or samples.max() > largest:
        raise ValueError(f"samples from {samples.min()} to {samples.max()}, not to {largest}")
    grid = samples.reshape(image.height, image.width, bands).astype(np.float32) / largest
    return np.repeat(grid, 3 // bands, axis=2)


def _sixteen_bit_colour(path: Path, image: PilImage.Image) -> bool:
    """Whether Pillow would silently reduce 16-bit colour samples to 8 bits."""
    raw = _raw_mode(image)
    tags = getattr(image, "tag_v2", {})
    bits = tuple(tags.get(_BITS_PER_SAMPLE, ()))
    planes = len(bits) > 1 and tags.get(_PLANAR) == 2
    inverted = image.mode in _WITHOUT_CONVERSION and tags.get(_PHOTOMETRIC) == 0
    if (raw in _SWAPPED and not planes) or raw == "LA;16B":
        return True
    if image.mode == "I":
        raise ImageReadError(path, "has 32-bit or signed samples; save it with 16 bits")
    deep = any(b > 8 for b in bits)
    if inverted or (deep and image.mode not in _WITHOUT_CONVERSION):
        raise ImageReadError(
            path,
            f"has more than 8 bits per sample in a layout ({raw or image.mode}"
            f"{', planar' if planes else ''}{', white is zero' if inverted else ''}) that Pillow "
            "does not read in full; save it as an ordinary 16-bit PNG",
        )
    return False


def _raw_mode(image: PilImage.Image) -> str:
    tiles = getattr(image, "tile", None)
    if not tiles:
        return ""
    arguments = tiles[0][3]
    if isinstance(arguments, tuple):
        arguments = arguments[0] if arguments else ""
    return arguments if isinstance(arguments, str) else ""


def _decode_deep(path: Path, content: bytes) -> tuple[_Array, _Array | None]:
    """16-bit colour as H×W×3 and alpha as H×W×1, float32 in [0, 1]."""
    from PIL import Image

    with Image.open(BytesIO(content)) as image:
        raw = _raw_mode(image)
        key = image.info.get("transparency")
        if raw == "LA;16B":
            # Four bytes per pixel: grey and alpha, high and low.
            four = _decode_as(image, "RGBA").astype(np.uint16)
            samples = four[..., 0::2] << 8 | four[..., 1::2]
            samples = samples[..., [0, 0, 0, 1]]
        else:
            high = np.asarray(image).astype(np.uint16)
            with Image.open(BytesIO(content)) as again:
                low = _decode_as(again, _SWAPPED[raw])
            samples = high << 8 | low
    colour = samples[..., :3].astype(np.float32) / 65535
    if samples.shape[-1] == 4:
        return colour, samples[..., 3:].astype(np.float32) / 65535
    if isinstance(key, tuple):
        return colour, (samples != np.array(key)).any(-1, keepdims=True).astype(np.float32)
    return colour, None


def _decode_as(image: PilImage.Image, raw: str) -> NDArray[np.uint8]:
    """Decode with the tiles' data read as if it were laid out as ``raw``."""
    tiles: list[Any] = list(image.tile)  # type: ignore[attr-defined]
    image.tile = [  # type: ignore[attr-defined]
        tile._replace(args=raw if isinstance(tile.args, str) else (raw, *tile.args[1:]))
        for tile in tiles
    ]
    return np.asarray(image)


def _scale_key(image: PilImage.Image) -> None:
    """Scale the transparent grey of 2- and 4-bit PNGs to 8 bits: Pillow scales only the pixels."""
    factor = _GREY_FACTORS.get(_raw_mode(image))
    key = image.info.get("transparency")
    if factor is not None and isinstance(key, int):
        image.info["transparency"] = factor * key


def _decode_shallow(
    image: PilImage.Image, white: int, notes: list[str]
) -> tuple[_Array, _Array | None]:
    """8-bit images and deeper grey as H×W×3 and alpha as H×W×1, float32 in [0, 1].

    ``white`` is the largest sample of deeper grey.
    """
    key = image.info.get("transparency")
    if image.mode in _WITHOUT_CONVERSION:
        grey = np.asarray(image).astype(np.float32)[..., None]
        alpha = (grey != key).astype(np.float32) if isinstance(key, int) else None
        return np.repeat(grey / white, 3, axis=2), alpha
    transparent = image.mode in ("LA", "PA", "RGBA") or key is not None
    alpha = None
    if transparent:
        image = image.convert("RGBA")
        alpha = np.asarray(image)[..., 3:].astype(np.float32) / 255
    colour = _to_srgb(image, notes)
    return np.asarray(colour).astype(np.float32) / 255, alpha


def _to_srgb(image: PilImage.Image, notes: list[str]) -> PilImage.Image:
    if image.mode == "P":
        image = image.convert("RGB")  # its colours are what a profile speaks of
    profile = _foreign_profile(image) if image.mode in ("RGB", "RGBA", "CMYK") else None
    if profile is not None:
        from PIL import ImageCms

        try:
            source = image.convert("RGB") if image.mode == "RGBA" else image
            converted = ImageCms.profileToProfile(
                source,
                ImageCms.ImageCmsProfile(BytesIO(image.info["icc_profile"])),
                ImageCms.createProfile("sRGB"),
                outputMode="RGB",
            )
        except (ImageCms.PyCMSError, OSError) as error:
            notes.append(f"colour profile {profile!r} ignored: {error}")
        else:
            notes.append(f"converted from the colour profile {profile!r} to sRGB")
            assert converted is not None  # not in place
            return converted
    return image.convert("RGB")


def _foreign_profile(image: PilImage.Image) -> str | None:
    """Name of the embedded colour profile if there is one and it is not sRGB."""
    content = image.info.get("icc_profile")
    if not content:
        return None
    from PIL import Image, ImageCms

    try:
        profile = ImageCms.ImageCmsProfile(BytesIO(content))
        name = ImageCms.getProfileDescription(profile).strip()
        if "srgb" not in name.lower():
            return name
        # So is linear light called, "Linear sRGB", whose mid-grey is another one.
        grey = Image.new("RGB", (1, 1), (128, 128, 128))
        seen = ImageCms.profileToProfile(grey, profile, ImageCms.createProfile("sRGB"))
    except (ImageCms.PyCMSError, OSError):
        return None
    return name if np.abs(np.asarray(seen).astype(int) - 128).max() > 16 else None


def _orientation(image: PilImage.Image, notes: list[str]) -> int:
    """The EXIF orientation, 1 for an upright image."""
    try:
        orientation: int = image.getexif().get(_ORIENTATION, 1)
    except Exception as error:  # SyntaxError, struct.error and what else a damaged header brings
        # The pixels have been decoded: what is said about them must not cost them.
        notes.append(f"EXIF data are damaged ({error}), so its orientation is not known")
        return 1
    return orientation


def _orient(pixels: _Array, orientation: int) -> _Array:
    """Apply EXIF orientation 1–8 to H×W×3 pixels."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels
