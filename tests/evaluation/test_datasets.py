"""Readers on small trees in the published layouts; images are empty files, as none is opened."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from relqa_loss.evaluation.datasets import detect_kind, read_dataset
from relqa_loss.evaluation.datasets.kadid import TYPES as KADID_TYPES
from relqa_loss.evaluation.datasets.tid import TYPES as TID_TYPES


@dataclass(frozen=True)
class Tree:
    """A data set of a few images, and how to break it."""

    kind: str
    labels: str
    """The label file that the broken line goes to; empty where labels are binary."""
    count: int
    first: tuple[str, str, float, str]
    """Reference, distorted image, score and type of the first pair."""
    higher_is_better: bool
    files: tuple[str, ...]
    text: dict[str, str]
    bad: str = ""
    """A line that is malformed."""

    def write(self, root: Path) -> Path:
        for name in self.files:
            touch(root / name)
        for name, text in self.text.items():
            touch(root / name).write_text(text, "utf-8")
        return root / self.labels if self.kind == "csv" else root


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def _tid(kind: str, number: int, level: int, name: str) -> Tree:
    return Tree(
        kind,
        "mos_with_names.txt",
        2,
        ("reference_images/I01.BMP", "distorted_images/i01_01_1.bmp", 5.51429, TID_FIRST),
        True,
        (
            "reference_images/I01.BMP",
            "reference_images/I25.BMP",
            "distorted_images/i01_01_1.bmp",
            f"distorted_images/{name}",
        ),
        {"mos_with_names.txt": f"5.51429 I01_01_1.bmp\r\n3.25 i25_{number:02d}_{level}.bmp\r\n"},
        "high I01_01_1.bmp",
    )


TID_FIRST = "additive Gaussian noise"
_CSIQ_FILES = (
    "src_imgs/1600.png",
    "dst_imgs/awgn/1600.AWGN.1.png",
    "dst_imgs/jpeg2000/1600.jpeg2000.5.png",
)

TREES = (
    _tid("tid2013", 24, 5, "i25_24_5.bmp"),
    _tid("tid2008", 17, 4, "I25_17_4.bmp"),
    Tree(
        "kadid10k",
        "dmos.csv",
        2,
        ("images/I01.png", "images/I01_01_01.png", 4.57, "Gaussian blur"),
        True,
        ("images/I01.png", "images/I01_01_01.png", "images/I01_25_05.png"),
        {
            "dmos.csv": "dist_img,ref_img,dmos,var\n"
            "I01_01_01.png,I01.png,4.57,0.496\nI01_25_05.png,I01.png,1.2,0.9\n"
        },
        "I01_01_01.png,I01.png,,0.5",
    ),
    Tree(
        "csiq",
        "csiq_label.txt",
        2,
        ("src_imgs/1600.png", "dst_imgs/awgn/1600.AWGN.1.png", 0.062, "awgn"),
        False,
        _CSIQ_FILES,
        {"csiq_label.txt": "1600.AWGN.1.png 0.062\n1600.jpeg2000.5.png 0.9\n"},
        "1600.AWGN.1.png",
    ),
    Tree(
        "csiq",
        "csiq.DMOS.csv",
        2,
        ("src_imgs/1600.png", "dst_imgs/awgn/1600.AWGN.1.png", 0.062, "awgn"),
        False,
        _CSIQ_FILES,
        {
            "csiq.DMOS.csv": ",,,,,,\n,all by image,,,,,\n"
            ",image,dst_idx,dst_type,dst_lev,dmos_std,dmos\n"
            ",1600,1,noise,1,0.04,0.062\n,1600,3,jpeg 2000,5,0.1,0.9\n"
        },
        ",1600,1,noise,1,0.1,worst",
    ),
    Tree(
        "pipal",
        "Train_Label/A0001.txt",
        2,
        ("Train_Ref/A0001.bmp", "Distortion_1/A0001_00_00.bmp", 1448.9, "kind 00"),
        True,
        (
            "Train_Ref/A0001.bmp",
            "Distortion_1/A0001_00_00.bmp",
            "Distortion_2/A0001_03_10.bmp",
        ),
        {"Train_Label/A0001.txt": "A0001_00_00.bmp,1448.9\nA0001_03_10.bmp,1390.5\n"},
        "A0001_00_00.bmp 1448.9",
    ),
    Tree(
        "toyama",
        "mos.csv",
        2,
        ("Reference/kp05.bmp", "jpeg/kp05_1.bmp", 4.5, "JPEG"),
        True,
        ("Reference/kp05.bmp", "jpeg/kp05_1.bmp", "jpeg/kp05_10.bmp"),
        {"mos.csv": "distorted;mos\njpeg/kp05_1.bmp;4.5\nkp05_10.bmp;1.5\n"},
        "kp05_1.bmp;good",
    ),
    Tree(
        "vclfer",
        "mos.csv",
        2,
        ("original/tower.bmp", "GBLUR/B_1.bmp", 61.5, "Gaussian blur"),
        True,
        ("original/tower.bmp", "GBLUR/B_1.bmp", "JPEG2K/J2_1.bmp"),
        {"mos.csv": "reference,image,mos\ntower,B_1.bmp,61.5\ntower.bmp,J2_1.bmp,30\n"},
        "tower,B_1.bmp,",
    ),
    Tree(
        "cid22",
        "CID22_validation_set.csv",
        2,
        ("original/1.png", "compressed/1/mozjpeg-30.png", 71.2, "mozjpeg"),
        True,
        ("original/1.png", "compressed/1/mozjpeg-30.png", "compressed/1/avif-60.png"),
        {
            "CID22_validation_set.csv": "original,compressed,encoder,MCOS\n"
            "original/1.png,compressed/1/mozjpeg-30.png,mozjpeg,71.2\n"
            "1.png,1/avif-60.png,avif,88\n"
        },
        "1.png,1/avif-60.png,avif,nan",
    ),
    Tree(
        "csv",
        "mine.csv",
        2,
        ("a.png", "b/c.jpg", 3.5, "blur"),
        True,
        ("a.png", "b/c.jpg", "b/d.jpg"),
        {"mine.csv": "reference,distorted,score,type\na.png,b/c.jpg,3.5,blur\na.png,b/d.jpg,2,\n"},
        "a.png,b/c.jpg",
    ),
)


@pytest.fixture(params=TREES, ids=lambda tree: f"{tree.kind}-{Path(tree.labels).suffix[1:]}")
def tree(request: pytest.FixtureRequest) -> Tree:
    found: Tree = request.param
    return found


@pytest.fixture
def live(tmp_path: Path) -> Callable[..., Path]:
    """Writes a LIVE tree: two images per folder, the second a copy of its reference."""
    from scipy.io import savemat

    def write(scores: int = 10, realigned: bool = True) -> Path:
        for folder in ("jp2k", "jpeg", "wn", "gblur", "fastfading"):
            for number in (1, 2):
                touch(tmp_path / folder / f"img{number}.bmp")
        touch(tmp_path / "refimgs" / "bikes.bmp")
        names = np.empty((1, 10), object)
        names[:] = "bikes.bmp"
        savemat(tmp_path / "refnames_all.mat", {"refnames_all": names})
        marks = np.array([[0, 1] * 5])
        values = np.arange(scores, dtype=float)[None]
        savemat(tmp_path / "dmos.mat", {"dmos": values, "orgs": marks})
        if realigned:
            savemat(tmp_path / "dmos_realigned.mat", {"dmos_new": values + 50, "orgs": marks})
        return tmp_path

    return write


@pytest.fixture
def bapps(tmp_path: Path) -> Path:
    for kind, share in (("traditional", 0.25), ("cnn", 1.0)):
        folder = tmp_path / "2afc" / "val" / kind
        for part in ("ref", "p0", "p1"):
            touch(folder / part / "000000.png")
        np.save(touch(folder / "judge" / "000000.npy"), np.array([share], np.float32))
    return tmp_path / "2afc" / "val"


def named(tree: Tree) -> str | None:
    """The kind where it cannot be found out."""
    return tree.kind if tree.kind in {"toyama", "vclfer"} else None


def test_pairs_scores_and_types(tree: Tree, tmp_path: Path) -> None:
    dataset = read_dataset(tree.write(tmp_path), named(tree))
    assert dataset.kind == tree.kind
    assert dataset.higher_is_better is tree.higher_is_better
    assert len(dataset.pairs) == tree.count
    pair = dataset.pairs[0]
    found = (
        pair.reference.relative_to(tmp_path).as_posix(),
        pair.distorted.relative_to(tmp_path).as_posix(),
        pair.score,
        pair.type,
    )
    assert found == tree.first
    assert all(p.reference.is_file() and p.distorted.is_file() for p in dataset.pairs)
    assert len({p.distorted for p in dataset.pairs}) == tree.count


def test_a_malformed_line_is_named(tree: Tree, tmp_path: Path) -> None:
    path = tree.write(tmp_path)
    labels = tmp_path / tree.labels
    before = labels.read_text("utf-8")
    labels.write_text(before + tree.bad + "\n", "utf-8")
    line = len((before + tree.bad).splitlines())
    with pytest.raises(ValueError, match=rf"{labels.name}, line {line}: "):
        read_dataset(path, named(tree))


@pytest.mark.parametrize("which", [0, 1])
def test_a_missing_image_is_named_with_the_line(tree: Tree, tmp_path: Path, which: int) -> None:
    path = tree.write(tmp_path)
    (tmp_path / tree.first[which]).unlink()
    with pytest.raises(FileNotFoundError, match=rf"{Path(tree.labels).name}, line \d+: no "):
        read_dataset(path, named(tree))


def test_missing_labels(tree: Tree, tmp_path: Path) -> None:
    path = tree.write(tmp_path)
    (tmp_path / tree.labels).unlink()
    with pytest.raises(FileNotFoundError):
        read_dataset(path, tree.kind)


def test_last_types_of_the_tids(tmp_path: Path) -> None:
    for tree, last in zip(TREES, (TID_TYPES[23], TID_TYPES[16]), strict=False):
        root = tree.write(tmp_path / tree.kind)
        assert detect_kind(root) == tree.kind
        assert read_dataset(root).pairs[-1].type == last
    with pytest.raises(ValueError, match="line 2: tid2008 has no distortion 24"):
        read_dataset(tmp_path / "tid2013", "tid2008")
    assert (len(TID_TYPES), len(KADID_TYPES)) == (24, 25)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("i01_17_4", "tid2008"), ("i01_17_5", "tid2013"), ("i01_18_4", "tid2013")],
)
def test_a_distortion_or_a_level_tells_the_tids_apart(tmp_path: Path, name: str, kind: str) -> None:
    TREES[1].write(tmp_path)
    (tmp_path / TREES[1].labels).write_text(f"5.5 {name}.bmp\n")
    assert detect_kind(tmp_path) == kind


def test_types_are_those_of_the_names(tmp_path: Path) -> None:
    for kind, last in {"kadid10k": KADID_TYPES[24], "pipal": "kind 03"}.items():
        [tree] = [tree for tree in TREES if tree.kind == kind]
        assert read_dataset(tree.write(tmp_path / kind)).pairs[-1].type == last


@pytest.mark.parametrize(
    ("which", "name", "row"),
    [
        (0, "distorted_images/i01_00_1.bmp", "5.5 i01_00_1.bmp"),
        (2, "images/I01_00_01.png", "I01_00_01.png,I01.png,4.5,0.1"),
        (2, "images/I01_26_01.png", "I01_26_01.png,I01.png,4.5,0.1"),
    ],
)
def test_distortions_that_there_are_not(tmp_path: Path, which: int, name: str, row: str) -> None:
    tree = TREES[which]
    root = tree.write(tmp_path)
    touch(root / name)
    (root / tree.labels).write_text(tree.text[tree.labels] + row + "\n")
    with pytest.raises(ValueError, match=r"no distortion 0|a distortion from 01 to 25"):
        read_dataset(root)


def test_a_spreadsheet_alone_is_explained(tmp_path: Path) -> None:
    for name in ("csiq.DMOS.xlsx", "src_imgs/a.png", "dst_imgs/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match="save its sheet all_by_image as CSV"):
        read_dataset(tmp_path)


@pytest.mark.parametrize("realigned", [True, False])
def test_live_leaves_out_copies_and_prefers_realigned(
    live: Callable[..., Path], realigned: bool
) -> None:
    dataset = read_dataset(live(realigned=realigned))
    assert (dataset.kind, dataset.higher_is_better) == ("live", False)
    base = 50 if realigned else 0
    assert [pair.score for pair in dataset.pairs] == [base + k for k in (0, 2, 4, 6, 8)]
    assert [p.distorted.parent.name for p in dataset.pairs] == [
        "jp2k", "jpeg", "wn", "gblur", "fastfading",
    ]  # fmt: skip
    assert {pair.distorted.name for pair in dataset.pairs} == {"img1.bmp"}
    assert {pair.reference.name for pair in dataset.pairs} == {"bikes.bmp"}


def test_live_with_vectors_that_do_not_fit(live: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match=r"has 9 scores .* 10 images"):
        read_dataset(live(scores=9))


def test_live_without_the_images_of_a_folder(live: Callable[..., Path]) -> None:
    root = live()
    for path in (root / "wn").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match=r"has 10 scores .* the folders have 8 images"):
        read_dataset(root)


def test_live_without_a_vector(live: Callable[..., Path]) -> None:
    from scipy.io import savemat

    root = live()
    savemat(root / "dmos_realigned.mat", {"dmos_new": np.zeros((1, 10))})
    with pytest.raises(ValueError, match=r"has no variable orgs, only dmos_new$"):
        read_dataset(root)


def test_live_names_a_missing_image(live: Callable[..., Path]) -> None:
    root = live()
    (root / "wn" / "img1.bmp").unlink()
    with pytest.raises(FileNotFoundError, match="entry 5: no image"):
        read_dataset(root)


def test_live_with_a_damaged_file(live: Callable[..., Path]) -> None:
    root = live()
    (root / "dmos_realigned.mat").write_text("5.1 4.2")
    with pytest.raises(ValueError, match=r"dmos_realigned.mat: not a MATLAB file"):
        read_dataset(root)


@pytest.mark.parametrize("left", [127, 150, -20])
def test_live_with_a_file_cut_off(live: Callable[..., Path], left: int) -> None:
    labels = live() / "dmos_realigned.mat"
    content = labels.read_bytes()
    labels.write_bytes(content[:left])
    with pytest.raises(ValueError, match=r"dmos_realigned.mat: not a MATLAB file"):
        read_dataset(labels.parent)
    # A compressed variable that is none is an error of zlib's own.
    labels.write_bytes(content[:128] + b"\x0f\0\0\0\x08\0\0\0no zlib.")
    with pytest.raises(ValueError, match=r"dmos_realigned.mat: not a MATLAB file"):
        read_dataset(labels.parent)


def test_bapps(bapps: Path) -> None:
    dataset = read_dataset(bapps)
    assert not dataset.pairs
    assert [(c.type, c.preference) for c in dataset.comparisons] == [
        ("cnn", 1.0),
        ("traditional", 0.25),
    ]
    one = dataset.comparisons[0]
    names = [path.parent.name for path in (one.reference, one.first, one.second)]
    assert names == ["ref", "p0", "p1"]
    assert len(read_dataset(bapps / "cnn").comparisons) == 1


def test_bapps_with_a_wrong_judgement_or_a_missing_patch(bapps: Path) -> None:
    np.save(bapps / "cnn" / "judge" / "000000.npy", np.array([1.5]))
    with pytest.raises(ValueError, match=r"000000.npy: expected one number in \[0, 1\]"):
        read_dataset(bapps)
    np.save(bapps / "cnn" / "judge" / "000000.npy", np.array([0.25, 0.75]))
    with pytest.raises(ValueError, match=r"000000.npy: expected one number in \[0, 1\], got"):
        read_dataset(bapps)
    (bapps / "cnn" / "p1" / "000000.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"000000.npy: no image .*p1"):
        read_dataset(bapps)


def in_capitals(root: Path) -> Path:
    for path in sorted(root.rglob("*"), reverse=True):  # what is in a folder before the folder
        path.rename(path.with_name(path.name.upper()))
    return root


@pytest.mark.parametrize("tree", [t for t in TREES if t.kind != "csv"], indirect=True)
def test_case_does_not_matter(tree: Tree, tmp_path: Path) -> None:
    root = in_capitals(tree.write(tmp_path))
    dataset = read_dataset(root, named(tree))
    assert (dataset.kind, len(dataset.pairs)) == (tree.kind, tree.count)
    assert dataset.pairs[0].type == tree.first[3]


def test_case_does_not_matter_to_labels_of_pipal(tmp_path: Path) -> None:
    [tree] = [tree for tree in TREES if tree.kind == "pipal"]
    root = tree.write(tmp_path)
    labels = root / tree.labels
    labels.write_text(labels.read_text().upper())
    assert [pair.type for pair in read_dataset(root).pairs] == ["kind 00", "kind 03"]


def test_case_does_not_matter_to_live_and_bapps(live: Callable[..., Path], bapps: Path) -> None:
    comparisons = read_dataset(in_capitals(bapps)).comparisons
    assert [c.preference for c in comparisons] == [1.0, 0.25]
    assert [c.second.parent.name for c in comparisons] == ["P1", "P1"]
    assert len(read_dataset(in_capitals(live()), "live").pairs) == 5


def test_a_decimal_comma_is_explained(tmp_path: Path) -> None:
    # As spreadsheets save semicolons where decimals have commas.
    [tree] = [tree for tree in TREES if tree.kind == "toyama"]
    labels = tree.write(tmp_path) / "mos.csv"
    labels.write_text(labels.read_text().replace("4.5", "4,5"))
    with pytest.raises(ValueError, match=r"line 2: '4,5' is not a number; write decimals with a p"):
        read_dataset(tmp_path, "toyama")


def test_direction_of_a_csv_file(tmp_path: Path) -> None:
    path = TREES[-1].write(tmp_path)
    assert not read_dataset(path, lower_is_better=True).higher_is_better
    with pytest.raises(ValueError, match="the scale of tid2013 is known"):
        read_dataset(TREES[0].write(tmp_path / "tid"), lower_is_better=True)


@pytest.mark.parametrize(
    ("present", "rated", "reference"),
    [
        (["img1.bmp", "img12.bmp", "img12_q5.bmp"], "img12_q5", "img12.bmp"),
        (["img1.bmp", "img12.bmp", "img1_q5.bmp"], "img1_q5", "img1.bmp"),
        (["woman.bmp", "womanhat.bmp", "womanhat2.bmp"], "womanhat2", "womanhat.bmp"),
        (["kp05.bmp", "kp05_1.bmp", "kp05_10.bmp"], "kp05_10", "kp05.bmp"),
        (["kp05.bmp", "kp0515.bmp"], "kp0515", "kp05.bmp"),
    ],
)
def test_a_reference_is_told_by_the_name(
    tmp_path: Path, present: list[str], rated: str, reference: str
) -> None:
    for name in present:
        touch(tmp_path / name)
    (tmp_path / "mos.csv").write_text(f"distorted,score\n{rated},3\n")
    [pair] = read_dataset(tmp_path, "toyama").pairs
    assert pair.reference.name == reference


def test_images_with_a_score_are_no_references(tmp_path: Path) -> None:
    for name in ("a.bmp", "a_1.bmp", "a_1_x.bmp"):
        touch(tmp_path / name)
    labels = tmp_path / "mos.csv"
    labels.write_text("distorted,score\na_1.bmp,3\na_1_x.bmp,2\n")
    assert {p.reference.name for p in read_dataset(tmp_path, "toyama").pairs} == {"a.bmp"}
    labels.write_text("distorted,score\na_1_x.bmp,2\n")
    with pytest.raises(ValueError, match=r"line 2: 'a_1_x' may belong to a or a_1; add a column"):
        read_dataset(tmp_path, "toyama")


def test_images_given_by_their_whole_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [tree] = [tree for tree in TREES if tree.kind == "toyama"]
    # No word of the path above the data set tells a type.
    root = tree.write(tmp_path / "noise" / "toyama")
    elsewhere = touch(tmp_path / "jp2k" / "kp05_12.bmp")
    given = [root / "jpeg" / "kp05_1.bmp", elsewhere]
    rows = [f"{path},3\n" for path in given]
    (root / "mos.csv").write_text("".join(["distorted,score\n", *rows]))
    monkeypatch.chdir(tmp_path)
    pairs = read_dataset("noise/toyama", "toyama").pairs
    assert [pair.distorted for pair in pairs] == given
    assert [pair.type for pair in pairs] == ["JPEG", "JPEG 2000"]


def test_a_name_that_several_images_bear(tmp_path: Path) -> None:
    [tree] = [tree for tree in TREES if tree.kind == "cid22"]
    touch(tree.write(tmp_path) / "compressed" / "2" / "1.png")
    with pytest.raises(ValueError, match=r"line 3: several images fit '1.png'"):
        read_dataset(tmp_path)


def test_the_end_of_a_path_tells_which_of_several_images(tmp_path: Path) -> None:
    [tree] = [tree for tree in TREES if tree.kind == "cid22"]
    root = tree.write(tmp_path)
    touch(root / "compressed" / "2" / "avif-60.png")
    labels = root / tree.labels
    before = labels.read_text()
    for folder in ("1", "2"):
        labels.write_text(before.replace("1/avif-60.png", f"{folder}/avif-60.png"))
        assert read_dataset(root).pairs[1].distorted == (
            root / "compressed" / folder / "avif-60.png"
        )
    # Of a name that only one bears, folders that are called otherwise do not matter.
    (root / "compressed" / "2" / "avif-60.png").unlink()
    assert read_dataset(root).pairs[1].distorted == root / "compressed" / "1" / "avif-60.png"


def test_the_table_of_cid22_as_it_is_published(tmp_path: Path) -> None:
    """The references were rated as well; a copy of one tells nothing about a metric."""
    for name in ("original/1.png", "compressed/1/a.png"):
        touch(tmp_path / name)
    (tmp_path / "CID22_validation_set.csv").write_text(
        "reference_img,distorted_img,encoder,setting,bpp,MCOS,RMOS,Elo,nb_pc_opinions\n"
        "original/1.png,original/1.png,Reference,,24,91.5,4.9,2000,40\n"
        "original/1.png,compressed/1/a.png,AVIF_aom_s7,q30,0.5,62.25,3.1,1500,40\n"
    )
    [pair] = read_dataset(tmp_path).pairs
    assert (pair.distorted.name, pair.score, pair.type) == ("a.png", 62.25, "AVIF_aom_s7")


def test_rows_of_a_spreadsheet(tmp_path: Path) -> None:
    """Empty ones do not count, and trailing cells that are optional may be gone."""
    path = TREES[-1].write(tmp_path)
    text = path.read_text()
    path.write_text(text + ",,,\n \na.png,b/d.jpg,4\n,,,\n")
    assert [(p.score, p.type) for p in read_dataset(path).pairs] == [
        (3.5, "blur"), (2, ""), (4, ""),
    ]  # fmt: skip
    path.write_text(text + "a.png,,4,\n")
    with pytest.raises(ValueError, match=r"line 4: no value for distorted"):
        read_dataset(path)


@pytest.mark.parametrize("rows", [1, 20000])
@pytest.mark.parametrize("row", ['"a.png,b/d.jpg,4,', 'a.png,b/d.jpg,4,"blur'])
def test_a_quotation_mark_that_is_not_closed(rows: int, row: str, tmp_path: Path) -> None:
    """All rows that follow would be of its cell, and be lost."""
    path = TREES[-1].write(tmp_path)
    path.write_text(path.read_text() + row + "\na.png,b/d.jpg,4,noise" * rows)
    with pytest.raises(ValueError, match=r"line 4: .* a quotation mark that is not closed\?"):
        read_dataset(path)


def test_a_quotation_mark_in_a_name(tmp_path: Path) -> None:
    for name in ("a.png", 'size 5,"b.png'):
        touch(tmp_path / name)
    (tmp_path / "mine.csv").write_text('reference;distorted;score\na.png;size 5,"b.png;3\n')
    [pair] = read_dataset(tmp_path / "mine.csv").pairs
    assert pair.distorted.name == 'size 5,"b.png'


def test_folders_that_lie_elsewhere(bapps: Path, tmp_path: Path) -> None:
    [tree] = [tree for tree in TREES if tree.kind == "pipal"]
    there, here = tree.write(tmp_path / "disk"), tmp_path / "here"
    here.mkdir()
    for folder in there.iterdir():
        (here / folder.name).symlink_to(folder)
    (there / "Train_Ref" / "above").symlink_to(there)  # in a circle
    for root in (here, there):
        assert len(read_dataset(root).pairs) == tree.count
    (tmp_path / "patches").mkdir()
    (tmp_path / "patches" / "val").symlink_to(bapps)
    found = read_dataset(tmp_path / "patches").comparisons
    assert [one.type for one in found] == ["val/cnn", "val/traditional"]


def test_hidden_files_are_no_data(bapps: Path, tmp_path: Path) -> None:
    # What a Mac leaves beside every file that it copies to another system, and a notebook's copies.
    [tree] = [tree for tree in TREES if tree.kind == "pipal"]
    root = tree.write(tmp_path / "pipal")
    (root / "Train_Label" / "._A0001.txt").write_bytes(b"\0\x05\x16\x07\xff\xb0")
    touch(root / "Train_Ref" / ".ipynb_checkpoints" / "A0001.bmp")
    assert len(read_dataset(root).pairs) == tree.count
    (bapps / "cnn" / "judge" / "._000000.npy").write_bytes(b"\0\x05\x16\x07\xff\xb0")
    assert len(read_dataset(bapps).comparisons) == 2


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_the_header_tells_the_separator(separator: str, tmp_path: Path) -> None:
    other = ";" if separator == "," else ","
    names = [f"a{other} b{other} c{other} d.png", f"a{other} b{other} c{other} d{other} q5.png"]
    for name in names:
        touch(tmp_path / name)
    header = separator.join(("reference", "distorted", "score"))
    row = separator.join((*(f'"{name}"' for name in names), "3"))
    (tmp_path / "mine.csv").write_text(f"{header}\n{row}\n")
    [pair] = read_dataset(tmp_path / "mine.csv").pairs
    assert [pair.reference.name, pair.distorted.name] == names


def test_what_is_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no known layout"):
        read_dataset(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        read_dataset(tmp_path / "gone")
    with pytest.raises(ValueError, match="kind csv is a file"):
        read_dataset(tmp_path, "csv")
    (tmp_path / "empty.csv").write_text("reference,distorted,score\n")
    with pytest.raises(ValueError, match="name no image"):
        read_dataset(tmp_path / "empty.csv")
    (tmp_path / "empty.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="no header with the columns reference, distorted, score"):
        read_dataset(tmp_path / "empty.csv")
    (tmp_path / "empty.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not a text file"):
        read_dataset(tmp_path / "empty.csv")
