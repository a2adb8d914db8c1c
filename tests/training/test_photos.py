"""Finding, reading and cropping photographs."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from relqa_loss.training.photos import find_photos, random_crop, read_photo


def _save(path: Path, size: tuple[int, int] = (48, 40), seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_folder_without_readable_images_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no photograph")
    (tmp_path / "broken.jpg").write_bytes(b"not a JPEG")
    with pytest.raises(ValueError, match=r"no usable photograph.*1 could not be read") as error:
        find_photos(tmp_path)
    assert str(tmp_path) in str(error.value)


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a folder") as error:
        find_photos(tmp_path / "nowhere")
    assert "nowhere" in str(error.value)


def test_unreadable_files_are_skipped_counted_and_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = [_save(tmp_path / "a.png"), _save(tmp_path / "deep" / "b.jpg", seed=1)]
    truncated = _save(tmp_path / "c.png", seed=2)
    truncated.write_bytes(truncated.read_bytes()[:300])
    small = _save(tmp_path / "small.png", (31, 200))
    with caplog.at_level(logging.WARNING):
        found = find_photos(tmp_path, least_side=32)
    assert found.files == tuple(sorted(good))
    assert set(found.skipped) == {truncated, small}
    assert str(truncated) in caplog.text
    expected = "2 of 4 photographs were skipped, 1 of them with a side under 32 pixels"
    assert expected in caplog.messages
    small.unlink()
    with caplog.at_level(logging.WARNING):
        find_photos(tmp_path, least_side=32)
    assert "1 of 3 photographs were skipped" in caplog.messages


@pytest.mark.parametrize("turned", [False, True])
def test_the_shorter_side_decides_which_photographs_are_too_small(
    turned: bool, tmp_path: Path
) -> None:
    small, enough = (
        _save(tmp_path / name, size[::-1] if turned else size)
        for name, size in (("small.png", (31, 200)), ("enough.png", (32, 200)))
    )
    found = find_photos(tmp_path, least_side=32)
    assert (found.files, found.skipped) == ((enough,), (small,))


def test_photographs_that_lie_elsewhere(tmp_path: Path) -> None:
    here, disk = tmp_path / "photos", tmp_path / "disk"
    files = [_save(here / "own" / "a.png"), _save(disk / "deep" / "b.png", seed=1)]
    (here / "linked").symlink_to(disk)
    (here / "all").symlink_to(here)  # in a circle
    (here / "again").symlink_to(here / "own")
    assert find_photos(here).files == (here / "linked" / "deep" / "b.png", files[0])


def test_hidden_files_are_no_photographs(tmp_path: Path) -> None:
    good = _save(tmp_path / "a.png")
    _save(tmp_path / ".thumbnails" / "a.png")
    (tmp_path / "._a.png").write_bytes(b"\0\x05\x16\x07\xff\xb0")  # a Mac's, by each that it copies
    assert find_photos(tmp_path).files == (good,)
    assert not find_photos(tmp_path).skipped


def test_a_manifest_in_another_encoding_is_named(tmp_path: Path) -> None:
    _save(tmp_path / "été.png")
    # As spreadsheets write it.
    (tmp_path / "MANIFEST.csv").write_text("file,split\nété.png,train\n", encoding="latin-1")
    with pytest.raises(ValueError, match=r"MANIFEST\.csv is not text in UTF-8.*save it"):
        find_photos(tmp_path)


def test_spaces_around_a_split_do_not_make_another_one(tmp_path: Path) -> None:
    _save(tmp_path / "one.png")
    _save(tmp_path / "two.png", seed=1)
    (tmp_path / "MANIFEST.csv").write_text("file,split\none.png,train\ntwo.png, train \n")
    assert len(find_photos(tmp_path, "train").files) == 2


def test_photographs_of_mistyped_splits_are_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for index in range(5):
        _save(tmp_path / f"{index}.png", seed=index)
    splits = ("train", "Train", "trian", "", "test")
    rows = [f"{index}.png,{split}" for index, split in enumerate(splits)]
    (tmp_path / "MANIFEST.csv").write_text("\n".join(("file,split", *rows)) + "\n")
    assert [path.name for path in find_photos(tmp_path, "train").files] == ["0.png", "1.png"]
    assert [record.getMessage().partition("MANIFEST.csv: ")[2] for record in caplog.records] == [
        f"1 photographs are in split {split!r}, which is none of train, val, test, and are left out"
        for split in ("", "trian")
    ]
    caplog.clear()
    (tmp_path / "MANIFEST.csv").write_text("file,split\n0.png,val\n1.png,trian\n")
    find_photos(tmp_path, "val")  # a run looks for both, and is told once
    assert len(find_photos(tmp_path).files) == 2
    assert not caplog.records


def test_a_manifest_without_rows_is_named(tmp_path: Path) -> None:
    _save(tmp_path / "one.png")
    (tmp_path / "MANIFEST.csv").write_text("file,split\n")
    with pytest.raises(ValueError, match=r"MANIFEST\.csv names no photograph"):
        find_photos(tmp_path, "train")


def test_manifest_decides_the_split(tmp_path: Path) -> None:
    for index, name in enumerate(("one.png", "two.png", "three.png")):
        _save(tmp_path / name, seed=index)
    _save(tmp_path / "unlisted.png", seed=9)
    (tmp_path / "MANIFEST.csv").write_text(
        "file,split\none.png,train\ntwo.png,val\nthree.png,train\n"
    )
    names = {
        split: {path.name for path in find_photos(tmp_path, split).files}
        for split in ("train", "val", None)
    }
    assert names["train"] == {"one.png", "three.png"}
    assert names["val"] == {"two.png"}
    assert names[None] == {"one.png", "two.png", "three.png"}


def test_the_order_of_a_manifest_does_not_matter(tmp_path: Path) -> None:
    rows = [
        f"{_save(tmp_path / name, seed=i).name},train\n"
        for i, name in enumerate(["b.png", "a.png"])
    ]
    found = []
    for written in (rows, rows[::-1]):
        (tmp_path / "MANIFEST.csv").write_text("file,split\n" + "".join(written))
        found.append(find_photos(tmp_path, "train"))
    assert found[0] == found[1]


def test_manifest_as_spreadsheets_write_it(tmp_path: Path) -> None:
    _save(tmp_path / "one.png")
    (tmp_path / "MANIFEST.csv").write_text("file,split\none.png,train\n", encoding="utf-8-sig")
    assert [path.name for path in find_photos(tmp_path, "train").files] == ["one.png"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("file\none.png\n", "no column 'split'"),
        ("file;split\none.png;train\n", "no column 'file' and 'split'.*'file;split'"),
        ("", "no column 'file' and 'split'"),
    ],
    ids=["one", "semicolons", "empty"],
)
def test_manifest_without_its_columns_is_named(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "MANIFEST.csv").write_text(text)
    with pytest.raises(ValueError, match=rf"MANIFEST\.csv has {words}"):
        find_photos(tmp_path)


@pytest.mark.parametrize("again", ["one.png", "./one.png"])
def test_a_photograph_in_two_splits_is_refused(tmp_path: Path, again: str) -> None:
    _save(tmp_path / "one.png")
    _save(tmp_path / "two.png", seed=1)
    rows = f"file,split\none.png,train\ntwo.png,train\n{again},val\n"
    (tmp_path / "MANIFEST.csv").write_text(rows)
    for split in ("train", "val", None):
        with pytest.raises(ValueError, match=r"has one\.png in split 'train' and in split 'val'"):
            find_photos(tmp_path, split)


def test_rows_of_a_manifest_without_a_file(tmp_path: Path) -> None:
    _save(tmp_path / "one.png")
    manifest = tmp_path / "MANIFEST.csv"
    manifest.write_text("split,file\ntrain,one.png\n,\n")  # as spreadsheets leave them
    assert len(find_photos(tmp_path).files) == 1
    for cut in ("train", "train,"):
        manifest.write_text(f"split,file\ntrain,one.png\n{cut}\n")
        with pytest.raises(ValueError, match=r"MANIFEST\.csv, line 3: split 'train' without a fi"):
            find_photos(tmp_path, "train")


def test_photographs_that_are_too_large_are_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    small = _save(tmp_path / "a.png")
    large = _save(tmp_path / "b.png", (96, 80), seed=1)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 48 * 40)  # twice as many are refused
    found = find_photos(tmp_path)
    assert (found.files, found.skipped) == ((small,), (large,))
    assert "b.png: too large" in caplog.text


def test_missing_file_of_a_manifest_is_skipped(tmp_path: Path) -> None:
    _save(tmp_path / "there.png")
    (tmp_path / "MANIFEST.csv").write_text("file,split\nthere.png,train\ngone.png,train\n")
    found = find_photos(tmp_path, "train")
    assert [path.name for path in found.skipped] == ["gone.png"]


def test_without_a_manifest_the_split_is_a_partition_by_name(tmp_path: Path) -> None:
    for index in range(30):
        _save(tmp_path / f"photo{index}.png", seed=index)
    train, val = (set(find_photos(tmp_path, split).files) for split in ("train", "val"))
    assert not train & val
    assert len(train | val) == 30
    assert 0 < len(val) < 12


def test_few_photographs_of_which_none_is_set_aside_are_told_what_to_do(tmp_path: Path) -> None:
    for index in (0, 1, 2):  # all of them to train on
        _save(tmp_path / f"photo{index}.png", seed=index)
    with pytest.raises(
        ValueError, match=r"none of the 3 photographs .* is in split 'val'"
    ) as error:
        find_photos(tmp_path, "val")
    assert "MANIFEST.csv" in str(error.value)
    (tmp_path / "MANIFEST.csv").write_text("file,split\nphoto0.png,train\nphoto1.png,test\n")
    with pytest.raises(ValueError, match=r"none of the 2 photographs .* it has 'test', 'train'"):
        find_photos(tmp_path, "val")


def test_fingerprint_changes_with_content_and_name_only(tmp_path: Path) -> None:
    first, second, third = (tmp_path / name for name in "abc")
    for folder in (first, second):
        _save(folder / "x.png", seed=1)
        _save(folder / "y.png", seed=2)
    assert find_photos(first).fingerprint == find_photos(second).fingerprint
    _save(second / "y.png", seed=3)
    _save(third / "x.png", seed=1)
    _save(third / "z.png", seed=2)
    prints = {find_photos(folder).fingerprint for folder in (first, second, third)}
    assert len(prints) == 3


def test_names_that_are_not_utf8_are_names_like_others(tmp_path: Path) -> None:
    prints = set()
    for name in (b"caf\xe9.png", b"caf\xe8.png"):
        path = tmp_path / os.fsdecode(name)
        try:
            _save(tmp_path / "plain.png").rename(path)
        except OSError:
            pytest.skip("the file system takes names in UTF-8 only")
        _save(tmp_path / "photo0.png")  # for training, as all of these
        assert path in find_photos(tmp_path, "train").files
        prints.add(find_photos(tmp_path).fingerprint)
        path.unlink()
    assert len(prints) == 2


def test_read_photo_gives_rgb_in_range(tmp_path: Path) -> None:
    path = tmp_path / "grey.png"
    Image.fromarray(np.full((40, 50), 51, dtype=np.uint8)).save(path)
    photo = read_photo(path)
    assert photo.shape == (3, 40, 50)
    torch.testing.assert_close(photo, torch.full((3, 40, 50), 0.2))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_is_read_in_full(tmp_path: Path, suffix: str) -> None:
    grey = np.random.default_rng(0).integers(0, 65536, (40, 50)).astype(np.uint16)
    path = tmp_path / f"deep.{suffix}"
    Image.fromarray(grey).save(path)
    assert find_photos(tmp_path).files == (path,)
    expected = torch.from_numpy(grey.astype(np.float32) / 65535).expand(3, -1, -1)
    torch.testing.assert_close(read_photo(path), expected, rtol=0, atol=1e-7)


def test_pools_of_16_bit_photographs_are_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    Image.fromarray(np.zeros((40, 50), np.uint16)).save(path)
    # As long as such photographs were read as white, pools had this fingerprint.
    content = hashlib.sha256(path.read_bytes()).digest()
    before = hashlib.sha256(path.name.encode() + b"\0" + content).hexdigest()
    assert find_photos(tmp_path).fingerprint != before


def test_8_bit_photographs_are_read_as_ever(tmp_path: Path) -> None:
    """Pools on disk, and figures that were published, are of these values."""
    picture = Image.open(_save(tmp_path / "rgb.png"))
    turned = Image.Exif()
    turned[0x0112] = 6
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    picture.save(tmp_path / "turned.jpg", exif=turned, icc_profile=profile)
    picture.convert("L").save(tmp_path / "grey.png")
    picture.convert("P").save(tmp_path / "palette.png")
    picture.convert("CMYK").save(tmp_path / "cmyk.jpg")
    picture.convert("RGBA").save(tmp_path / "opaque.png")
    found = find_photos(tmp_path)
    assert len(found.files) == 6
    digest = hashlib.sha256()
    for path in found.files:
        with Image.open(path) as image:
            expected = np.array(image.convert("RGB")).transpose(2, 0, 1)
        assert torch.equal(read_photo(path), torch.from_numpy(expected).float() / 255)
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    assert found.fingerprint == digest.hexdigest()


def test_transparent_photographs_and_those_of_unknown_range_are_skipped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = _save(tmp_path / "good.png")
    pixels = np.full((40, 50, 4), 255, np.uint8)
    pixels[0, 0, 3] = 254
    Image.fromarray(pixels).save(tmp_path / "alpha.png")
    Image.fromarray(pixels[..., 0]).save(tmp_path / "key.png", transparency=255)
    Image.fromarray(pixels[..., 0].astype(np.uint16)).save(tmp_path / "deep.png", transparency=255)
    Image.fromarray(np.zeros((40, 50), np.float32)).save(tmp_path / "float.tif")
    found = find_photos(tmp_path)
    assert found.files == (good,)
    for name in ("alpha.png", "key.png", "deep.png"):
        assert f"{name}: has transparent pixels" in caplog.text
    assert "float.tif: has floating-point samples" in caplog.text


def test_random_crop_is_8_bit_seeded_and_as_large_as_asked() -> None:
    photo = torch.rand(3, 70, 90, generator=torch.Generator().manual_seed(0))
    crops = [random_crop(photo, 64, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert crops[0].shape == (3, 64, 64)
    assert torch.equal(crops[0], crops[1])
    assert not torch.equal(crops[0], crops[2])
    assert torch.equal((crops[0] * 255).round() / 255, crops[0])
    assert 0 <= float(crops[0].min()) <= float(crops[0].max()) <= 1


def test_random_crop_enlarges_what_is_too_small() -> None:
    crop = random_crop(torch.rand(3, 40, 60), 64, torch.Generator().manual_seed(0))
    assert crop.shape == (3, 64, 64)


def _crops(photo: torch.Tensor, count: int = 40, **options: tuple[float, float]) -> torch.Tensor:
    generators = (torch.Generator().manual_seed(seed) for seed in range(count))
    return torch.stack([random_crop(photo, 64, each, **options) for each in generators])


def test_random_crops_are_from_everywhere() -> None:
    photo = torch.randint(256, (3, 80, 96), generator=torch.Generator().manual_seed(0)) / 255
    windows = photo.unfold(1, 64, 1).unfold(2, 64, 1)  # 3×17×33×64×64
    places = []
    for crop in _crops(photo, scales=(1.0, 1.0)):
        found = (windows == crop[:, None, None]).all(-1).all(-1).all(0).nonzero().tolist()
        assert len(found) == 1
        places += found
    for along, last in zip(zip(*places, strict=True), (16, 32), strict=True):
        assert min(along) < last / 8
        assert max(along) > 7 * last / 8


def test_random_crops_are_of_every_scale_from_a_half_to_the_whole() -> None:
    # Of a ramp that rises by 1 over the photograph, a crop at scale s shows a quarter / s.
    ramp = torch.linspace(0, 1, 256).expand(3, 256, 256)
    shown = (_crops(ramp) * 255).flatten(1).aminmax(dim=1)
    rises = (shown.max - shown.min) / 255
    assert 0.24 < rises.min() < 0.27
    assert 0.45 < rises.max() < 0.52


def test_random_crops_keep_the_proportions_of_what_cannot_be_reduced() -> None:
    ramp = (torch.arange(256) / 255).expand(3, 64, 256)
    steps = _crops(ramp).mul(255).round().diff(dim=-1)
    assert bool((steps == 1).all())


def test_random_crops_are_reduced_without_aliasing() -> None:
    noise = torch.rand(3, 160, 160, generator=torch.Generator().manual_seed(0))
    # Of four pixels each, and a little more: samples between pixels would keep 0.7 of it.
    assert _crops(noise, scales=(0.5, 0.5)).std() < 0.5 * noise.std()


def test_random_crops_of_next_to_no_detail_are_drawn_again() -> None:
    photo = torch.full((3, 64, 256), 0.5)
    photo[..., 128:] = torch.rand(3, 64, 128, generator=torch.Generator().manual_seed(0))
    flat = _crops(photo, scales=(1.0, 1.0)).flatten(1).std(1) < 1e-3
    assert flat.sum() <= 2  # a third, if they were drawn once
