"""Reading real files of every kind that people have."""

from __future__ import annotations

import base64
import pickle
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from relqa_loss.imageio import MATTE, ImageReadError, load_image, read_image

Image = pytest.importorskip("PIL.Image")
tifffile = pytest.importorskip("tifffile")

Array = NDArray[np.integer]


def png16(samples: Array, colour_type: int, extra: bytes = b"") -> bytes:
    """A 16-bit PNG; Pillow itself cannot write colour ones."""
    height, width = samples.shape[:2]
    rows = b"".join(b"\0" + samples[y].astype(">u2").tobytes() for y in range(height))
    return png(width, height, 16, colour_type, rows, extra)


def png(
    width: int, height: int, bits: int, colour_type: int, rows: bytes, extra: bytes = b""
) -> bytes:
    """A PNG of any depth; each row begins with a zero, for no filter."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra
    return start + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def trns(*values: int) -> bytes:
    data = b"tRNS" + struct.pack(f">{len(values)}H", *values)
    return struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))


@pytest.fixture
def samples() -> Array:
    return np.random.default_rng(0).integers(0, 65536, (9, 7, 4)).astype(np.uint16)


def expected(samples: Array) -> torch.Tensor:
    array = samples.astype(np.float32) / np.iinfo(samples.dtype).max
    if array.ndim == 2:
        array = np.repeat(array[..., None], 3, 2)
    return torch.from_numpy(array.transpose(2, 0, 1).copy())


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_8_bit_rgb_is_exact_and_float32(tmp_path: Path, samples: Array) -> None:
    pixels = (samples[..., :3] >> 8).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.dtype == torch.float32
    assert image.is_contiguous()
    assert torch.equal(image, expected(pixels))


def test_16_bit_grey_png_keeps_all_16_bits(tmp_path: Path, samples: Array) -> None:
    grey = samples[..., 0]
    path = write(tmp_path / "a.png", png16(grey, 0))
    assert torch.equal(read_image(path), expected(grey))


def test_16_bit_rgb_png_keeps_all_16_bits(tmp_path: Path, samples: Array) -> None:
    path = write(tmp_path / "a.png", png16(samples[..., :3], 2))
    assert torch.equal(read_image(path), expected(samples[..., :3]))


def test_16_bit_rgba_png_keeps_all_16_bits(tmp_path: Path, samples: Array) -> None:
    samples[..., 3] = 65535
    path = write(tmp_path / "a.png", png16(samples, 6))
    loaded = load_image(path)
    assert torch.equal(loaded.pixels, expected(samples[..., :3]))
    assert loaded.notes == ()
    samples[0, 0, 3] = 65534  # nearly opaque is not opaque
    assert "transparent" in load_image(write(tmp_path / "b.png", png16(samples, 6))).notes[0]


def test_16_bit_grey_alpha_png(tmp_path: Path, samples: Array) -> None:
    grey = samples[..., :2].copy()
    grey[..., 1] = 65535
    path = write(tmp_path / "a.png", png16(grey, 4))
    assert torch.equal(read_image(path), expected(grey[..., 0]))


def test_16_bit_colour_key(tmp_path: Path, samples: Array) -> None:
    key = tuple(int(v) for v in samples[2, 3, :3])
    path = write(tmp_path / "a.png", png16(samples[..., :3], 2, trns(*key)))
    image = read_image(path)
    assert image[:, 2, 3].tolist() == [MATTE] * 3
    assert torch.equal(image[:, 0], expected(samples[..., :3])[:, 0])


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_grey_key_of_any_depth(tmp_path: Path, bits: int) -> None:
    grey = np.arange(8) % 2**bits
    text = "".join(f"{value:0{bits}b}" for value in grey)
    row = b"\0" + int(text, 2).to_bytes(bits, "big")
    path = write(tmp_path / "a.png", png(8, 1, bits, 0, row, trns(1)))
    shown = np.where(grey == 1, MATTE, grey / (2**bits - 1))
    assert read_image(path)[0, 0].tolist() == pytest.approx(shown.tolist())


@pytest.mark.parametrize("colour_type", [0, 2])
def test_a_pixel_like_the_key_in_part_is_opaque(
    tmp_path: Path, samples: Array, colour_type: int
) -> None:
    values = samples[..., 0] if colour_type == 0 else samples[..., :3].copy()
    if colour_type == 2:
        values[1, 0] = *values[0, 0, :2], values[0, 0, 2] ^ 1
    key = [int(value) for value in np.atleast_1d(values[0, 0])]
    loaded = load_image(write(tmp_path / "a.png", png16(values, colour_type, trns(*key))))
    shown = expected(values)
    shown[:, 0, 0] = MATTE
    assert torch.equal(loaded.pixels, shown)
    assert "transparent in 2%" in loaded.notes[0]


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize(
    "options", [{}, {"compression": "zlib"}, {"compression": "zlib", "predictor": True}]
)
def test_16_bit_tiff(tmp_path: Path, samples: Array, byteorder: str, options: dict) -> None:
    path = tmp_path / "a.tif"
    colour = samples[..., :3]
    tifffile.imwrite(path, colour, photometric="rgb", byteorder=byteorder, **options)
    assert torch.equal(read_image(path), expected(colour))
    tifffile.imwrite(path, samples[..., 0], byteorder=byteorder, **options)
    assert torch.equal(read_image(path), expected(samples[..., 0]))


def tiff_of_12_bits(samples: Array, *, deflated: bool) -> bytes:
    """Grey samples, two in three bytes, as microscopes and scanners write them."""
    assert samples.shape[1] % 2 == 0
    bits = np.unpackbits(samples.astype(">u2").view(np.uint8).reshape(-1, 2), axis=1)[:, 4:]
    data = np.packbits(bits).tobytes()
    data = zlib.compress(data) if deflated else data
    data += b"\0" * (len(data) % 2)
    height, width = samples.shape
    tags = {256: width, 257: height, 258: 12, 259: 8 if deflated else 1, 262: 1}
    tags |= {273: 8, 277: 1, 278: height, 279: len(data)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory


@pytest.mark.parametrize("deflated", [False, True])
def test_12_bit_tiff_reaches_white(tmp_path: Path, samples: Array, deflated: bool) -> None:
    grey = samples[..., 0] >> 4
    grey = grey[:, : grey.shape[1] // 2 * 2].copy()
    grey[0, :2] = 0, 4095
    path = write(tmp_path / "a.tif", tiff_of_12_bits(grey, deflated=deflated))
    assert torch.equal(read_image(path)[0], torch.from_numpy(grey.astype(np.float32) / 4095))
    assert read_image(path).aminmax() == (0.0, 1.0)


def netpbm(samples: Array, largest: int, plain: bool) -> bytes:
    kind = (5 if samples.ndim == 2 else 6) - 3 * plain
    head = f"P{kind}\n# of a camera\n{samples.shape[1]} {samples.shape[0]}\n{largest}\n".encode()
    if plain:
        return head + b"# samples\n" + "\n".join(map(str, samples.ravel())).encode() + b"\n"
    return head + samples.astype(">u2" if largest > 255 else "u1").tobytes()


@pytest.mark.parametrize("largest", [65535, 4095, 1023, 256, 255, 100])
@pytest.mark.parametrize("colour", [True, False])
@pytest.mark.parametrize("plain", [True, False])
def test_ppm_and_pgm_of_any_depth_are_exact(
    tmp_path: Path, samples: Array, largest: int, colour: bool, plain: bool
) -> None:
    values = samples[..., :3] if colour else samples[..., 0]
    values = (values.astype(np.int64) % (largest + 1)).astype(np.uint16)
    image = read_image(write(tmp_path / "a.ppm", netpbm(values, largest, plain)))
    exact = values.astype(np.float32) / largest
    exact = exact if colour else np.repeat(exact[..., None], 3, 2)
    assert torch.equal(image, torch.from_numpy(exact.transpose(2, 0, 1)))


@pytest.mark.parametrize("plain", [True, False])
def test_damaged_ppm(tmp_path: Path, samples: Array, plain: bool) -> None:
    content = netpbm(samples[..., :3] >> 4, 4095, plain)
    with pytest.raises(ImageReadError, match=r"a\.ppm: truncated or damaged"):
        read_image(write(tmp_path / "a.ppm", content[: len(content) // 2]))
    wrong = netpbm(samples[..., :3], 4095, plain)
    with pytest.raises(ImageReadError, match=r"damaged \(samples from .*, not to 4095"):
        read_image(write(tmp_path / "b.ppm", wrong))
    with pytest.raises(ImageReadError, match=r"damaged \(samples from -1 to"):
        read_image(write(tmp_path / "c.ppm", b"P3\n1 1\n4095\n1 -1 3\n"))


def test_8_bit_tiff(tmp_path: Path, samples: Array) -> None:
    pixels = (samples[..., :3] >> 8).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb")
    assert torch.equal(read_image(tmp_path / "a.tif"), expected(pixels))


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_16_bit_tiff_in_odd_layouts_is_refused_not_misread(
    tmp_path: Path, samples: Array, compression: str | None
) -> None:
    path = tmp_path / "a.tif"
    planes = np.ascontiguousarray(samples[..., :3].transpose(2, 0, 1))
    tifffile.imwrite(
        path, planes, photometric="rgb", planarconfig="separate", compression=compression
    )
    with pytest.raises(ImageReadError, match="planar"):
        read_image(path)
    tifffile.imwrite(path, samples[..., 0], photometric="miniswhite", compression=compression)
    with pytest.raises(ImageReadError, match="white is zero"):
        read_image(path)


def test_8_bit_planar_tiff(tmp_path: Path, samples: Array) -> None:
    pixels = (samples[..., :3] >> 8).astype(np.uint8)
    planes = np.ascontiguousarray(pixels.transpose(2, 0, 1))
    tifffile.imwrite(tmp_path / "a.tif", planes, photometric="rgb", planarconfig="separate")
    assert torch.equal(read_image(tmp_path / "a.tif"), expected(pixels))


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("dtype", ["f4", "f2", "u4", "i4", "i2"])
@pytest.mark.parametrize("channels", [1, 3])
def test_float_and_32_bit_tiff_are_refused(
    tmp_path: Path, dtype: str, channels: int, byteorder: str
) -> None:
    path = tmp_path / "a.tif"
    shape = (9, 7) if channels == 1 else (9, 7, 3)
    photometric = "minisblack" if channels == 1 else "rgb"
    tifffile.imwrite(path, np.ones(shape, dtype), photometric=photometric, byteorder=byteorder)
    with pytest.raises(ImageReadError, match=r"a\.tif: .*(16 bits|16-bit)") as caught:
        read_image(path)
    if channels == 1 and dtype != "f2" and byteorder == "<":
        kind = "floating-point" if dtype == "f4" else "32-bit or signed"
        assert f"has {kind} samples" in str(caught.value)


def test_palette_with_and_without_transparency(tmp_path: Path) -> None:
    image = Image.new("P", (4, 2), 1)
    image.putpalette([0, 0, 0, 255, 0, 51])
    image.putpixel((0, 0), 0)
    image.save(tmp_path / "a.png")
    pixels = read_image(tmp_path / "a.png")
    assert pixels[:, 1, 1].tolist() == pytest.approx([1, 0, 0.2])
    assert pixels[:, 0, 0].tolist() == [0, 0, 0]
    image.save(tmp_path / "b.png", transparency=0)
    loaded = load_image(tmp_path / "b.png")
    assert loaded.pixels[:, 0, 0].tolist() == [MATTE] * 3
    assert loaded.pixels[:, 1, 1].tolist() == pytest.approx([1, 0, 0.2])
    assert loaded.notes == ("transparent in 12% of its pixels: composited on mid-grey",)


@pytest.mark.parametrize("mode", ["1", "L"])
def test_grey_and_bilevel(tmp_path: Path, mode: str) -> None:
    image = Image.new(mode, (4, 2), 0)
    image.putpixel((1, 0), 255)
    image.save(tmp_path / "a.png")
    pixels = read_image(tmp_path / "a.png")
    assert pixels.shape == (3, 2, 4)
    assert pixels[:, 0, 1].tolist() == [1, 1, 1]
    assert float(pixels.sum()) == 3


def test_opaque_alpha_is_dropped_and_hidden_colours_do_not_count(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 2), (51, 102, 153, 255)).save(tmp_path / "opaque.png")
    opaque = load_image(tmp_path / "opaque.png")
    assert opaque.pixels[:, 0, 0].tolist() == pytest.approx([0.2, 0.4, 0.6])
    assert opaque.notes == ()
    for name, hidden in (("red", (255, 0, 0, 0)), ("blue", (0, 0, 255, 0))):
        Image.new("RGBA", (4, 2), hidden).save(tmp_path / f"{name}.png")
    red, blue = (read_image(tmp_path / f"{name}.png") for name in ("red", "blue"))
    assert torch.equal(red, blue)
    Image.new("LA", (4, 2), (255, 128)).save(tmp_path / "half.png")
    half, (note,) = load_image(tmp_path / "half.png")
    assert "transparent in 100% of its pixels" in note
    assert float(half[0, 0, 0]) == pytest.approx(128 / 255 + MATTE * 127 / 255, abs=1e-6)


def test_cmyk_jpeg(tmp_path: Path) -> None:
    Image.new("CMYK", (32, 32), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=95)
    red, green, blue = read_image(tmp_path / "a.jpg").mean((1, 2)).tolist()
    assert red > 0.95
    assert green < 0.05
    assert blue < 0.05


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "png16", "tif16"])
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, suffix: str) -> None:
    upright = np.zeros((32, 48, 3), np.uint8)
    upright[:16, :16, 0] = 255
    upright[16:, :16, 1] = 255
    # How a camera stores it: the inverse of what a viewer does.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    if suffix == "png16":
        data = b"eXIf" + exif.tobytes().removeprefix(b"Exif\0\0")
        chunk = struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))
        path = write(tmp_path / "a.png", png16(stored.astype(np.uint16) * 257, 2, chunk))
    elif suffix == "tif16":
        path = tmp_path / "a.tif"
        tags = [(0x0112, "H", 1, orientation, True)]
        tifffile.imwrite(path, stored.astype(np.uint16) * 257, photometric="rgb", extratags=tags)
    else:
        path = tmp_path / f"a.{suffix}"
        Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif)
    image = read_image(path)
    assert image.shape == (3, 32, 48)
    assert float((image - expected(upright)).abs().mean()) < 0.02


@pytest.mark.parametrize("suffix", [".png", ".webp", ".jpg"])
def test_pictures_outlive_broken_exif(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    picture = Image.new("RGB", (8, 4), (255, 255, 255))
    picture.save(path, exif=b"Exif\0\0XX*\0\x08\0\0\0", lossless=True)
    loaded = load_image(path)
    assert torch.equal(loaded.pixels, torch.ones(3, 4, 8))
    if suffix != ".jpg":  # which Pillow looks at by itself, and takes for none
        assert "its orientation is not known" in loaded.notes[0]


@pytest.mark.parametrize("suffix", ["webp", "jpg", "bmp", "gif"])
def test_other_formats(tmp_path: Path, suffix: str) -> None:
    Image.new("RGB", (40, 24), (51, 102, 153)).save(tmp_path / f"a.{suffix}")
    image = read_image(tmp_path / f"a.{suffix}")
    assert image.shape == (3, 24, 40)
    assert image.mean((1, 2)).tolist() == pytest.approx([0.2, 0.4, 0.6], abs=0.02)


def test_16_bits_per_pixel_are_not_16_per_sample(tmp_path: Path) -> None:
    masks = struct.pack("<3I", 0xF800, 0x07E0, 0x001F)
    pixels = struct.pack("<4H", 0xF800, 0x07E0, 0x001F, 0xFFFF)
    header = struct.pack("<IiiHHIIiiII", 40, 4, 1, 1, 16, 3, len(pixels), 0, 0, 0, 0)
    start = struct.pack("<2sIHHI", b"BM", 66 + len(pixels), 0, 0, 66)
    image = read_image(write(tmp_path / "a.bmp", start + header + masks + pixels))
    assert torch.equal(image[:, 0], torch.cat([torch.eye(3), torch.ones(3, 1)], 1))


def test_bitmaps_of_netpbm(tmp_path: Path) -> None:
    """1 is black there."""
    for content in (b"P1\n3 1\n0 1 0\n", b"P4\n3 1\n\x40"):
        image = read_image(write(tmp_path / "a.pbm", content))
        assert torch.equal(image[0], torch.tensor([[1.0, 0.0, 1.0]]))


def test_the_main_picture_of_a_phone(tmp_path: Path) -> None:
    pictures = [Image.new("RGB", (40, 24), (grey,) * 3) for grey in (51, 204)]
    path = tmp_path / "a.jpg"
    pictures[0].save(path, format="MPO", save_all=True, append_images=pictures[1:])
    assert Image.open(path).n_frames == 2
    assert torch.equal(read_image(path), torch.full((3, 24, 40), 0.2))


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tif"])
def test_several_frames_are_refused(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (40, 24), (i * 80, 0, 0)) for i in range(3)]
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:])
    with pytest.raises(ImageReadError, match=rf"a\.{suffix}: has 3 frames"):
        read_image(tmp_path / f"a.{suffix}")


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
@pytest.mark.parametrize("keep", [0.02, 0.5, 0.9])
def test_truncated_files_are_named(tmp_path: Path, suffix: str, keep: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    path = tmp_path / f"broken.{suffix}"
    Image.fromarray(noise).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(ImageReadError, match=rf"broken\.{suffix}: .*(truncated|damaged)"):
        read_image(path)


def test_truncated_16_bit_png(tmp_path: Path, samples: Array) -> None:
    content = png16(np.tile(samples[..., :3], (9, 9, 1)), 2)
    path = write(tmp_path / "a.png", content[: len(content) // 2])
    with pytest.raises(ImageReadError, match="truncated or damaged"):
        read_image(path)


def test_missing_empty_folder_and_text(tmp_path: Path) -> None:
    with pytest.raises(ImageReadError, match=r"gone\.png: no such file"):
        read_image(tmp_path / "gone.png")
    with pytest.raises(ImageReadError, match="is empty"):
        read_image(write(tmp_path / "empty.png", b""))
    with pytest.raises(ImageReadError, match="folder"):
        read_image(tmp_path)
    with pytest.raises(ImageReadError, match=r"text\.png: not an image"):
        read_image(write(tmp_path / "text.png", b"hello, I am not an image"))
    with pytest.raises(ImageReadError, match=r"text\.png/a\.png: cannot be opened: "):
        read_image(tmp_path / "text.png" / "a.png")


def test_a_picture_that_is_too_large_to_be_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("L", (40, 24)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)
    with pytest.raises(ImageReadError, match=r"a\.png: too large: Image size \(960 pixels\)"):
        read_image(tmp_path / "a.png")


def test_colour_profile_is_converted(tmp_path: Path) -> None:
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture = Image.new("RGB", (4, 2), (255, 0, 0))
    picture.save(tmp_path / "srgb.png", icc_profile=profile)
    assert load_image(tmp_path / "srgb.png").notes == ()
    # A profile of another space: sRGB with its red and green primaries swapped, renamed.
    other = bytearray(profile.replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be")))
    red, green = other.index(b"rXYZ", 128), other.index(b"gXYZ", 128)
    other[red : red + 4], other[green : green + 4] = b"gXYZ", b"rXYZ"
    picture.save(tmp_path / "other.png", icc_profile=bytes(other))
    # A palette is of colours, too.
    picture.quantize(2).save(tmp_path / "palette.png", icc_profile=bytes(other))
    picture.quantize(2).save(tmp_path / "key.png", icc_profile=bytes(other), transparency=1)
    for name in ("other", "palette", "key"):
        loaded = load_image(tmp_path / f"{name}.png")
        assert loaded.pixels[:, 0, 0].tolist() == pytest.approx([0, 1, 0], abs=0.02)
        assert "swap" in loaded.notes[0]
    deep = np.full((2, 4, 3), (65535, 0, 0), np.uint16)
    for name, content in (("srgb", profile), ("other", bytes(other))):
        tifffile.imwrite(tmp_path / f"{name}.tif", deep, photometric="rgb", iccprofile=content)
    assert torch.equal(read_image(tmp_path / "srgb.tif"), expected(deep))
    with pytest.raises(ImageReadError, match="a colour profile other than sRGB"):
        read_image(tmp_path / "other.tif")


def test_a_profile_that_cannot_be_used_costs_no_picture(tmp_path: Path) -> None:
    from PIL import ImageCms

    picture = Image.new("RGB", (4, 2), (51, 102, 153))
    picture.save(tmp_path / "damaged.png", icc_profile=b"not a profile")
    # What a profile is of, and the picture is not.
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    picture.save(tmp_path / "lab.png", icc_profile=profile)
    for name in ("damaged", "lab"):
        loaded = load_image(tmp_path / f"{name}.png")
        assert loaded.pixels[:, 0, 0].tolist() == pytest.approx([0.2, 0.4, 0.6])
        assert [" ignored: " in note for note in loaded.notes] == [True] * (name == "lab")


def test_linear_srgb_is_another_profile(tmp_path: Path) -> None:
    from PIL import ImageCms

    # What GIMP embeds in images of linear light has sRGB in its name.
    old, new = ("sRGB built-in".encode("utf-16-be"), "Linear sRGB 1".encode("utf-16-be"))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    linear = bytearray(profile.replace(old, new))
    assert new in linear
    curve = linear.index(b"para") + 12  # gamma and factors of sRGB's curve
    linear[curve : curve + 20] = struct.pack(">5i", 65536, 65536, 0, 65536, 0)
    Image.new("RGB", (4, 2), (128, 128, 128)).save(tmp_path / "8.png", icc_profile=bytes(linear))
    loaded = load_image(tmp_path / "8.png")
    assert loaded.pixels[:, 0, 0].tolist() == pytest.approx([188 / 255] * 3, abs=0.005)
    assert "Linear sRGB" in loaded.notes[0]


def test_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(ImageReadError("a.png", "no such file")))
    assert str(error) == "a.png: no such file"
    assert isinstance(error, ValueError)


# 8×8 pixels of middle grey in AV1 of 10 and 12 bits, which Pillow does not write.
TEN_BITS = (
    "0000WW^{RQVRmU|00000VRmU|ZE0pPZE0a<O+hh10002%ZDn*}000000000XXk=`10000000000aA{+70000000000"
    "00000000004sdC7Z2$lO000310016oY;R)#0000)000310RR910RR926951J7XSbNC~0YKW&i*H00031000_kZf0cy"
    "000000RRADb}%tRZ)|UJ00000YH4tCZ~y=ROKEUpZvX%Q6lrsCWdHyG000002mk;82mk;85O8UDX#fBK00RmN3IG5A"
    "3}JRLLxCVb000006Ju{|a&BX6cmM(b0ssJj0000NX>e^}0000000001009I60)qqq0019tWMOm?015~=2)|<j0sxRQ"
    "2@n7PPSy!g`xp"
)
TWELVE_BITS = (
    "0000SW^{RQVRmU|00000VRmU|ZE0pPZE0a<0002%ZDn*}000000000XXk=`10000000000aA{+7000000000000000"
    "000004sdC7Z2$lO000310016oY;R)#0000)000310RR910RR924*&oF7XSbNC~0YKW&i*H00031000_kZf0cy00000"
    "0RRADb}%tRZ)|UJ00000YH4tCZ~y=ROKEUpZvX%Q6lrsCWdHyG000002mk;82mk;85O8UDX#fBK00RsR3;+NC3}JRL"
    "LxDhG000006Ju{|a&BX6cmM(b0ssJj0000NX>e^}0000000001009I60)qqq0019tWMOm?0160L2)|=MfPf-02@n7P"
    "PSy!g`xp"
)


@pytest.mark.parametrize(("text", "bits"), [(TEN_BITS, 10), (TWELVE_BITS, 12)])
def test_avif_of_more_bits_is_reduced_with_a_note(tmp_path: Path, text: str, bits: int) -> None:
    image = load_image(write(tmp_path / "a.avif", base64.b85decode(text)))
    assert image.notes == (f"reduced from {bits} to 8 bits per sample by Pillow",)
    torch.testing.assert_close(image.pixels, torch.full((3, 8, 8), 128 / 255))
    Image.new("RGB", (8, 8)).save(tmp_path / "b.avif")
    assert load_image(tmp_path / "b.avif").notes == ()


@pytest.mark.parametrize("bare", [True, False])
@pytest.mark.parametrize("bits", [8, 10, 16])
def test_colour_jpeg_2000_of_more_bits_is_reduced_with_a_note(
    tmp_path: Path, bits: int, bare: bool
) -> None:
    path = tmp_path / "a.jp2"
    Image.new("RGB", (8, 8), (40, 80, 120)).save(path, no_jp2=bare)
    content = bytearray(path.read_bytes())
    sizes = content.find(b"\xff\x4f\xff\x51")
    content[sizes + 42 : sizes + 51 : 3] = bytes([bits - 1]) * 3
    notes = load_image(write(path, bytes(content))).notes
    assert notes == ((f"reduced from {bits} to 8 bits per sample by Pillow",) if bits > 8 else ())


def test_grey_jpeg_2000_keeps_its_bits(tmp_path: Path) -> None:
    samples = (np.arange(64, dtype=np.uint16) * 1000).reshape(8, 8)
    Image.fromarray(samples).save(tmp_path / "a.jp2")
    image = load_image(tmp_path / "a.jp2")
    assert image.notes == ()
    assert torch.equal(image.pixels[0], torch.from_numpy(samples / np.float32(65535)))
