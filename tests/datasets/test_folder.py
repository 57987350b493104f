"""Own images in folders and archives: as torchvision's `ImageFolder` reads them; bad input."""

import io
import os
import tarfile
import warnings
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from dwf.datasets import known
from dwf.datasets.config import FolderConfig
from dwf.datasets.load import load_dataset
from dwf.datasets.own import identified
from dwf.datasets.resize import resize
from dwf.datasets.tree import digest_of
from dwf.errors import ConfigError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DWF_DATA", str(tmp_path / "cache"))


def put(file, shape=(6, 5, 3), seed=0, **how):
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    Image.fromarray(pixels).save(file, **how)
    return pixels


@pytest.fixture
def flowers(tmp_path):
    """Ten images of each of two classes, and four of the test part."""
    folder = tmp_path / "flowers"
    for i in range(10):
        put(folder / f"train/rose/{i}.png", seed=i)
        put(folder / f"train/aster/{i}.PNG", seed=100 + i)
    for i in range(2):
        put(folder / f"test/rose/{i}.png", seed=200 + i)
        put(folder / f"test/aster/{i}.png", seed=300 + i)
    return folder


def check(config, part, folder):
    from torchvision.datasets import ImageFolder

    theirs = ImageFolder(folder)
    found = load_dataset(config).part(part)
    images, labels = found.batch(torch.arange(len(found)))
    expected = np.stack([np.asarray(image).transpose(2, 0, 1) for image, _ in theirs])
    np.testing.assert_array_equal(images, expected)
    np.testing.assert_array_equal(labels, theirs.targets)


def test_folders_are_image_folders(flowers):
    config = FolderConfig(path=flowers, validation=0.0)
    check(config, "train", flowers / "train")
    check(config, "test", flowers / "test")
    assert known.known(config).labels == ("aster", "rose")


def zipped(folder, target, prefix=""):
    with zipfile.ZipFile(target, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, prefix + str(file.relative_to(folder.parent)))
    return target


def tarred(folder, target):
    with tarfile.open(target, "w:gz") as archive:
        archive.add(folder, folder.name)
    return target


@pytest.mark.parametrize("ending", [".zip", ".tar.gz"])
def test_an_archive_is_the_folder_in_it(flowers, tmp_path, ending):
    write = zipped if ending == ".zip" else tarred
    config = FolderConfig(path=write(flowers, tmp_path / f"flowers{ending}"), validation=0.0)
    check(config, "train", flowers / "train")
    check(config, "test", flowers / "test")


@pytest.mark.parametrize("form", ["windows", "dots", "twice"])
def test_names_in_a_zip_are_those_of_its_files(flowers, tmp_path, form):
    """With backslashes, from here, or one written again, of which the last is meant."""
    with zipfile.ZipFile(tmp_path / "some.zip", "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for file in sorted(flowers.rglob("*.[pP]*")):
            name = file.relative_to(flowers).as_posix()
            if form == "twice" and name == "train/rose/0.png":
                archive.writestr(name, b"no image")
            changed = {"windows": name.replace("/", "\\"), "dots": f"./{name}"}
            archive.writestr(changed.get(form, name), file.read_bytes())
    check(FolderConfig(path=tmp_path / "some.zip", validation=0.0), "train", flowers / "train")


def test_hard_links_in_a_tar_are_the_files_that_they_name(flowers, tmp_path):
    os.link(flowers / "train/rose/0.png", flowers / "train/rose/x.png")
    config = FolderConfig(path=tarred(flowers, tmp_path / "some.tar.gz"), validation=0.0)
    check(config, "train", flowers / "train")


def test_names_that_are_no_utf8_are_read(tmp_path):
    for i in range(4):
        put(tmp_path / f"some/{i % 2}/{i}.png", seed=i)
    top = os.fsencode(tmp_path / "some")
    os.rename(top + b"/1/3.png", top + b"/1/\xff.png")
    os.rename(top + b"/1", top + b"/\xfe")
    assert known.known(FolderConfig(path=tmp_path / "some")).labels == ("0", "\\xfe")


def test_without_parts_the_test_part_is_cut(flowers):
    data = load_dataset(FolderConfig(path=flowers / "train", validation=0.25))
    assert [len(data.train), len(data.val), len(data.test)] == [12, 4, 4]
    assert torch.bincount(data.test.labels[data.test.index]).tolist() == [2, 2]


def test_grey_images_have_one_channel_unless_one_has_colours(tmp_path):
    for i in range(10):
        put(tmp_path / f"some/{i % 2}/{i}.png", shape=(4, 4), seed=i)
    config = FolderConfig(path=tmp_path / "some")
    assert load_dataset(config).shape == (1, 4, 4)
    put(tmp_path / "some/0/x.png", shape=(4, 4, 4))  # with transparency
    assert load_dataset(config).shape == (3, 4, 4)


def test_mixed_sizes_ask_for_size_and_are_means_over_areas(tmp_path):
    pixels = [
        put(tmp_path / f"some/{i % 2}/{i}.png", shape=(6 + i, 8, 3), seed=i) for i in range(10)
    ]
    with pytest.raises(
        ConfigError, match=r"images are of 10 sizes, .* 6 x 8 and .*: give data.size"
    ):
        load_dataset(FolderConfig(path=tmp_path / "some"))
    data = load_dataset(FolderConfig(path=tmp_path / "some", size=3, validation=0.0))
    assert data.shape == (3, 3, 3)
    for place, i in enumerate((0, 2, 4, 6, 8, 1, 3, 5, 7, 9)):  # by class, then by name
        expected = resize(pixels[i].transpose(2, 0, 1)[None], 3)[0]
        np.testing.assert_array_equal(data.train.images[place], expected)
    with pytest.raises(ConfigError, match=r"data.size = 7: .*0.png has a side of 6 pixels"):
        load_dataset(FolderConfig(path=tmp_path / "some", size=7))


def test_a_folders_digest_is_that_of_names_and_bytes(flowers, tmp_path):
    import hashlib

    names = sorted(str(f.relative_to(flowers)) for f in flowers.rglob("*") if f.is_file())
    lines = [f"{hashlib.sha256((flowers / n).read_bytes()).hexdigest()}  {n}\n" for n in names]
    expected = hashlib.sha256("".join(lines).encode()).hexdigest()
    (flowers / ".DS_Store").write_bytes(b"of a Mac")
    assert digest_of(flowers) == expected == identified(FolderConfig(path=flowers)).sha256
    (flowers / "train/rose/0.png").rename(flowers / "train/aster/x.png")
    assert digest_of(flowers) != expected


# --- bad input ---------------------------------------------------------------------------------


def test_an_empty_class_folder_is_refused(flowers):
    for file in (flowers / "train/rose").iterdir():
        file.rename(file.with_suffix(".txt"))
    with pytest.raises(ConfigError, match="class rose has no images: remove its folder, or fill"):
        load_dataset(FolderConfig(path=flowers))
    for file in (flowers / "train/rose").iterdir():
        file.unlink()
    with pytest.raises(ConfigError, match="class rose has no images"):
        load_dataset(FolderConfig(path=flowers))


def test_a_folder_without_classes_is_refused(tmp_path):
    put(tmp_path / "some/0.png")
    with pytest.raises(ConfigError, match="some has no class folders"):
        load_dataset(FolderConfig(path=tmp_path / "some"))
    (tmp_path / "some.txt").write_text("no archive")
    with pytest.raises(ConfigError, match="is no folder, and no zip or tar file"):
        load_dataset(FolderConfig(path=tmp_path / "some.txt"))


@pytest.mark.parametrize("name", ["../0/evil.png", "/0/evil.png", "0/../../evil.png"])
@pytest.mark.parametrize("form", ["zip", "tar"])
def test_an_archive_that_leads_out_of_it_is_refused(tmp_path, name, form):
    path = tmp_path / f"evil.{form}"
    if form == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, b"")
    else:
        with tarfile.open(path, "w") as archive:
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    with pytest.raises(ConfigError, match=r"evil.* holds .*evil.png', which leads out of it"):
        load_dataset(FolderConfig(path=path))


def test_a_damaged_image_is_named(flowers):
    (flowers / "train/rose/3.png").write_bytes((flowers / "train/rose/4.png").read_bytes()[:70])
    with pytest.raises(ConfigError, match=r"rose/3.png is (damaged|no image)"):
        load_dataset(FolderConfig(path=flowers))
    (flowers / "train/rose/3.png").write_bytes(b"no image")
    with pytest.raises(ConfigError, match=r"rose/3.png is no image that can be read"):
        load_dataset(FolderConfig(path=flowers))


def test_images_of_more_than_bytes_are_refused(tmp_path):
    for i in range(4):
        put(tmp_path / f"some/{i % 2}/{i}.png", shape=(4, 4), seed=i)
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "some/0/9.png")
    with pytest.raises(ConfigError, match=r"0/9.png has pixels of mode I;16"):
        load_dataset(FolderConfig(path=tmp_path / "some"))


def test_links_are_followed_and_a_circle_is_refused(flowers, tmp_path):
    (tmp_path / "linked").mkdir()
    for name in ("rose", "aster"):
        (tmp_path / "linked" / name).symlink_to(flowers / "train" / name)
    assert len(load_dataset(FolderConfig(path=tmp_path / "linked", validation=0.0)).train) == 16
    (flowers / "train/rose/round").symlink_to(flowers)
    with pytest.raises(ConfigError, match="round is a link to a folder that it lies in"):
        load_dataset(FolderConfig(path=flowers))


def test_archives_that_are_damaged_are_refused(flowers, tmp_path):
    """Packed bytes that changed; a tar whose header changed, which tarfile takes for its end."""
    with zipfile.ZipFile(tmp_path / "some.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(flowers.rglob("*.[pP]*")):
            archive.writestr(str(file.relative_to(flowers)), file.read_bytes() + bytes(200))
        at = archive.infolist()[3].header_offset + 60
    content = bytearray((tmp_path / "some.zip").read_bytes())
    content[at : at + 20] = bytes([255]) * 20
    (tmp_path / "some.zip").write_bytes(content)
    with pytest.raises(ConfigError, match=r"some.zip is damaged .*: get it again"):
        load_dataset(FolderConfig(path=tmp_path / "some.zip"))
    with tarfile.open(tmp_path / "some.tar", "w") as archive:
        archive.add(flowers, "flowers")
    with tarfile.open(tmp_path / "some.tar") as archive:
        at = archive.getmembers()[9].offset
    content = bytearray((tmp_path / "some.tar").read_bytes())
    for changed in (content[:at], content[:at] + b"?" * 8 + content[at + 8 :]):
        (tmp_path / "some.tar").write_bytes(changed)
        with pytest.raises(ConfigError, match="cut short or altered behind its 9 members"):
            load_dataset(FolderConfig(path=tmp_path / "some.tar"))


def test_what_is_no_file_is_refused(flowers):
    """A pipe would be read for ever."""
    os.mkfifo(flowers / "train/rose/pipe.png")
    with pytest.raises(ConfigError, match=r"pipe.png is no file, or a link to nothing: remove it"):
        load_dataset(FolderConfig(path=flowers))
