"""Folders and zips of images: layouts, pixels, damage, the cache, and streams that resume."""

from __future__ import annotations

import io
import os
import re
import struct
import subprocess
import sys
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy
import pytest
import torch
from pictures import fill, picture, save, zipped
from PIL import Image, ImageFile, ImageOps

from ibmd_lite.data import Images
from ibmd_lite.data.cache import cache_folder
from ibmd_lite.data.decoding import decoded, rgb
from ibmd_lite.data.listing import listed
from ibmd_lite.training import Draws


def rows(images: Images, place: int) -> numpy.ndarray:
    """One image as (height, width, 3)."""
    return images.pixels[place].permute(1, 2, 0).numpy()


@pytest.mark.parametrize(
    ("files", "split", "names", "kinds"),
    [
        (["b.png", "a.png"], None, ["a.png", "b.png"], ["all", "all"]),
        (["top/b.png", "top/a.png"], None, ["a.png", "b.png"], ["all", "all"]),
        (["dog/1.png", "cat/2.png"], None, ["cat/2.png", "dog/1.png"], ["cat", "dog"]),
        (["x/dog/1.png", "x/cat/2.png"], None, ["cat/2.png", "dog/1.png"], ["cat", "dog"]),
        (["train/1.png", "test/2.png"], "test", ["test/2.png"], ["all"]),
        (["mine/1.png", "yours/2.png"], "mine", ["mine/1.png"], ["all"]),
        (["train/1.png", "train/2.png"], None, ["train/1.png", "train/2.png"], ["all", "all"]),
        (["train/dog/1.png", "train/cat/2.png", "val/dog/3.png"], "val", ["val/dog/3.png"], ["dog"]),
        (["s/train/dog/1.png", "s/val/dog/3.png"], "train", ["train/dog/1.png"], ["dog"]),
        (["train/dog/1.png", "train/cat/2.png"], None, ["train/cat/2.png", "train/dog/1.png"], ["cat", "dog"]),
    ],
)
@pytest.mark.parametrize("zip_it", [False, True])
def test_layouts(
    tmp_path: Path, files: list[str], split: str | None, names: list[str], kinds: list[str], zip_it: bool
) -> None:
    source = fill(tmp_path / "images", *files)
    if zip_it:
        source = zipped(source, tmp_path / "images.zip")
    images = Images.read(source, size=8, split=split)
    assert list(images.names) == names
    assert [images.classes[label] for label in images.labels] == kinds
    for place, name in enumerate(names):
        (seed,) = (seed for seed, file in enumerate(files) if file.endswith(name))
        assert (rows(images, place) == picture(seed)).all()


def test_a_label_means_the_same_in_every_split(tmp_path: Path) -> None:
    fill(tmp_path, "train/ant/1.png", "train/bee/2.png", "test/bee/3.png")
    test = Images.read(tmp_path, size=8, split="test")
    assert test.classes == ("ant", "bee")
    assert test.labels.tolist() == [1]


@pytest.mark.parametrize(
    ("files", "split", "told"),
    [
        (["a.png", "dog/1.png"], None, r"several depths \(a.png and dog/1.png\); expected all in split/class/file"),
        (["a/b/c/1.png", "d/b/c/1.png"], None, "lies 3 folders deep; expected split/class/file at most"),
        (["train/1.png", "test/1.png"], None, "has the splits test, train: choose one, such as split='test'"),
        (["train/1.png", "test/1.png"], "val", "no split 'val'; expected one of test, train"),
        (["dog/1.png", "cat/1.png"], "train", "has no splits, so there is no 'train': leave split out"),
        (["notes.txt", ".hidden.png", ".git/1.png"], None, r"holds no image; expected files that end in \.jpg"),
    ],
)
@pytest.mark.parametrize("zip_it", [False, True])
def test_unclear_layouts_are_refused(
    tmp_path: Path, files: list[str], split: str | None, told: str, zip_it: bool
) -> None:
    for file in files:
        path = tmp_path / "images" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    source = zipped(tmp_path / "images", tmp_path / "images.zip") if zip_it else tmp_path / "images"
    with pytest.raises(ValueError, match=told):
        Images.read(source, size=8, split=split)


def test_a_zip_is_not_extracted_and_foreign_files_do_not_count(tmp_path: Path, cache: Path) -> None:
    fill(tmp_path / "images", "dog/1.png", "cat/2.PNG")
    for name in ("dog/notes.txt", "__MACOSX/dog/._1.png", "cat/.DS_Store"):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"no image")
    source = zipped(tmp_path / "images", tmp_path / "images.zip")
    before = sorted(tmp_path.rglob("*"))
    assert Images.read(source, size=8).names == ("cat/2.PNG", "dog/1.png")
    assert sorted(tmp_path.rglob("*")) == before
    assert {path.suffix for path in cache.rglob("*") if path.is_file()} == {".safetensors"}


@pytest.mark.parametrize(("name", "options"), [("1.png", {}), ("1.webp", {"lossless": True}), ("1.jpeg", {})])
def test_images_of_the_size_are_not_touched(tmp_path: Path, name: str, options: dict) -> None:
    path = save(tmp_path / name, picture(0, 16), **options)
    expected = picture(0, 16) if options or name.endswith("png") else numpy.asarray(Image.open(path))
    assert (rows(Images.read(tmp_path, size=16), 0) == expected).all()
    assert (rows(Images.read(tmp_path, size=16, fit="resize"), 0) == expected).all()


@pytest.mark.parametrize(("height", "width"), [(16, 17), (17, 16), (32, 32)])
def test_exact_scales_nothing_and_names_what_has_another_size(tmp_path: Path, height: int, width: int) -> None:
    save(tmp_path / "1.png", picture(0, 16))
    assert (rows(Images.read(tmp_path, size=16, fit="exact"), 0) == picture(0, 16)).all()
    save(tmp_path / "2.png", picture(1, height, width))
    with pytest.raises(
        ValueError, match=rf"1 of 2 images .* cannot be used: 2\.png \(is {width} x {height}, not 16 x 16"
    ):
        Images.read(tmp_path, size=16, fit="exact")
    with pytest.warns(UserWarning, match=r"they are left out"):
        assert Images.read(tmp_path, size=16, fit="exact", damaged="skip").names == ("1.png",)


@pytest.mark.parametrize(("height", "width"), [(20, 36), (36, 20), (40, 40), (6, 10), (21, 36)])
def test_crop_and_resize_agree_with_pillow(tmp_path: Path, height: int, width: int) -> None:
    image = Image.open(save(tmp_path / "1.png", picture(0, height, width)))
    cropped = ImageOps.fit(image, (16, 16), Image.Resampling.LANCZOS)
    assert (rows(Images.read(tmp_path, size=16), 0) == numpy.asarray(cropped)).all()
    resized = image.resize((16, 16), Image.Resampling.LANCZOS)
    assert (rows(Images.read(tmp_path, size=16, fit="resize"), 0) == numpy.asarray(resized)).all()


def test_crop_takes_the_centre_without_scaling_where_it_need_not(tmp_path: Path) -> None:
    pixels = picture(0, 8, 13)
    save(tmp_path / "1.png", pixels)
    assert (rows(Images.read(tmp_path, size=8), 0) == pixels[:, 2:10]).all()


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def test_transparency_lies_on_white() -> None:
    colour = picture(0)
    alpha = numpy.random.default_rng(1).integers(0, 256, (8, 8, 1), dtype=numpy.uint8)
    expected = colour * (alpha / 255) + 255 * (1 - alpha / 255)
    image = Image.fromarray(numpy.concatenate([colour, alpha], axis=2))
    assert abs(numpy.asarray(rgb(encoded(image, "PNG")), float) - expected).max() <= 1
    assert abs(numpy.asarray(rgb(encoded(image, "WEBP", lossless=True, exact=True)), float) - expected).max() <= 1
    grey = Image.fromarray(numpy.concatenate([colour[:, :, :1], alpha], axis=2))
    expected = numpy.repeat(expected[:, :, :1], 3, axis=2)
    assert abs(numpy.asarray(rgb(encoded(grey, "PNG")), float) - expected).max() <= 1


def test_palettes_with_and_without_a_transparent_colour() -> None:
    index = numpy.arange(64, dtype=numpy.uint8).reshape(8, 8) % 3
    palette = numpy.array([[250, 10, 20], [30, 240, 50], [60, 70, 230]], numpy.uint8)
    image = Image.fromarray(index).convert("P")
    image.putpalette(palette.tobytes())
    assert (numpy.asarray(rgb(encoded(image, "PNG"))) == palette[index]).all()
    palette[1] = 255
    assert (numpy.asarray(rgb(encoded(image, "PNG", transparency=1))) == palette[index]).all()


def test_sixteen_bits_one_bit_and_grey() -> None:
    deep = (numpy.arange(64, dtype=numpy.uint32).reshape(8, 8) * 1040).astype(numpy.uint16)
    found = numpy.asarray(rgb(encoded(Image.fromarray(deep), "PNG")), float)
    assert abs(found - (deep / 257)[:, :, None]).max() <= 0.5
    grey = picture(0)[:, :, 0]
    assert (numpy.asarray(rgb(encoded(Image.fromarray(grey), "PNG"))) == grey[:, :, None]).all()
    black = grey > 128
    assert (numpy.asarray(rgb(encoded(Image.fromarray(black), "PNG"))) == 255 * black[:, :, None]).all()


def test_print_colours() -> None:
    inks = numpy.zeros((8, 24, 4), numpy.uint8)
    inks[:, :8, 0], inks[:, 8:16, 2], inks[:, 16:, 3] = 255, 255, 255  # cyan, yellow, black
    found = numpy.asarray(rgb(encoded(Image.fromarray(inks, "CMYK"), "JPEG", quality=100)), float)
    for column, colour in [(4, (0, 255, 255)), (12, (255, 255, 0)), (20, (0, 0, 0))]:
        assert abs(found[4, column] - colour).max() < 12


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_orientation(kind: str) -> None:
    stored = numpy.zeros((16, 32, 3), numpy.uint8)
    stored[:8, :16, 0], stored[:8, 16:, 1], stored[8:, :16, 2] = 255, 255, 255
    upright = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.transpose(1, 0, 2),
        6: numpy.rot90(stored, -1),
        7: stored[::-1, ::-1].transpose(1, 0, 2),
        8: numpy.rot90(stored),
    }
    for orientation, expected in upright.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        found = numpy.asarray(rgb(encoded(Image.fromarray(stored), kind, exif=exif, quality=100)), int)
        assert found.shape == expected.shape
        assert abs(found - expected).mean() < 12, orientation


def damage(root: Path) -> dict[str, str]:
    """Twelve good images, and five that are damaged: what is wrong with each."""
    fill(root, *(f"{kind}/{i:02d}.png" for kind in ("cat", "dog") for i in range(6)), size=16)
    whole = save(root / "whole.png", picture(0, 16)).read_bytes()
    jpeg = save(root / "whole.jpg", picture(0, 16)).read_bytes()
    for name in ("whole.png", "whole.jpg"):
        (root / name).unlink()
    (root / "cat/cut.jpg").write_bytes(jpeg[:-40])
    (root / "cat/empty.png").write_bytes(b"")
    (root / "cat/text.png").write_bytes(b"this is no image")
    ramp = numpy.add.outer(numpy.arange(64), numpy.arange(64))[:, :, None] + picture(0, 64) // 4
    half = save(root / "dog/half-written.png", ramp.astype(numpy.uint8)).read_bytes()
    half = half[: len(half) // 2] + bytes(len(half) - len(half) // 2)  # Pillow alone decodes it, half black
    (root / "dog/half-written.png").write_bytes(half)
    header = b"IHDR" + struct.pack(">IIBBBBB", 9000, 9000, 8, 2, 0, 0, 0)
    checksum = struct.pack(">I", zlib.crc32(header))
    (root / "dog/huge.png").write_bytes(whole[:12] + header + checksum + whole[33:])
    return {
        "cat/cut.jpg": "truncated",
        "cat/empty.png": "no JPEG, PNG or WebP image",
        "cat/text.png": "no JPEG, PNG or WebP image",
        "dog/half-written.png": "",
        "dog/huge.png": "claims 9000 x 9000 pixels",
    }


@pytest.mark.parametrize("zip_it", [False, True])
def test_damaged_images_are_counted_and_named(tmp_path: Path, zip_it: bool) -> None:
    faults = damage(tmp_path / "images")
    source = zipped(tmp_path / "images", tmp_path / "images.zip") if zip_it else tmp_path / "images"
    for _ in range(2):  # decoded, then from the cache
        with pytest.raises(ValueError, match=r"5 of 17 images of .* cannot be used.*damaged='skip'") as refusal:
            Images.read(source, size=16)
        for name, fault in faults.items():
            assert re.search(rf"{name} \(.*?({fault}).*?\)[,;]", str(refusal.value))


def test_damaged_images_are_skipped_with_one_warning(tmp_path: Path) -> None:
    faults = damage(tmp_path)
    for _ in range(2):
        with pytest.warns(UserWarning, match="5 of 17 images.*they are left out") as told:
            images = Images.read(tmp_path, size=16, damaged="skip")
        assert len(told) == 1
        assert Path(told[0].filename) == Path(__file__), "the warning points at the caller"
        assert images.skipped == tuple(faults)
        assert images.names == tuple(f"{kind}/{i:02d}.png" for kind in ("cat", "dog") for i in range(6))
        assert images.labels.tolist() == [0] * 6 + [1] * 6
        for place in range(12):
            assert (rows(images, place) == picture(place, 16)).all()


def test_nothing_but_damage_is_refused_even_when_skipping(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(b"")
    with pytest.raises(ValueError, match="no image is left"):
        Images.read(tmp_path, size=8, damaged="skip")


def test_a_damaged_zip_entry_is_damage_too(tmp_path: Path) -> None:
    source = zipped(fill(tmp_path / "images", "1.png", "2.png"), tmp_path / "images.zip")
    with zipfile.ZipFile(source) as archive:
        info = archive.getinfo("2.png")
    whole = source.read_bytes()
    content = bytearray(whole)
    content[info.header_offset + 80] ^= 8
    source.write_bytes(content)
    with pytest.raises(ValueError, match=r"1 of 2 images of .*: 2\.png \("):
        Images.read(source, size=8)
    time = source.stat().st_mtime_ns
    source.write_bytes(whole)
    os.utime(source, ns=(time, time + 10**9))
    assert len(Images.read(source, size=8)) == 2, "a repaired zip is read anew"


def test_a_link_to_nothing_is_damage_until_it_leads_somewhere(tmp_path: Path, cache: Path) -> None:
    fill(tmp_path / "images", "1.png", "2.png")
    (tmp_path / "images" / "3.png").symlink_to(tmp_path / "elsewhere.png")
    with pytest.raises(ValueError, match=r"1 of 3 images of .*: 3\.png \(No such file or directory\); repair"):
        Images.read(tmp_path / "images", size=8)
    with pytest.warns(UserWarning, match="they are left out"):
        assert Images.read(tmp_path / "images", size=8, damaged="skip").skipped == ("3.png",)
    assert not list(cache.rglob("*.safetensors")), "what could not be opened may come back"
    save(tmp_path / "elsewhere.png", picture(2))
    assert len(Images.read(tmp_path / "images", size=8)) == 3


def test_a_file_that_vanishes_after_the_listing_is_damage(tmp_path: Path) -> None:
    entries = listed(fill(tmp_path, "1.png", "2.png"))
    (tmp_path / "1.png").unlink()
    result = decoded(tmp_path, entries, 8, "crop")
    assert result.faults == {0: "No such file or directory"}
    assert result.places == [1]


def test_pillow_told_to_accept_truncated_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, "1.png")
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(ValueError, match="LOAD_TRUNCATED_IMAGES is set"):
        Images.read(tmp_path, size=8)


def test_a_zip_entry_of_absurd_size_is_refused_unread(tmp_path: Path) -> None:
    source = zipped(fill(tmp_path / "images", "1.png"), tmp_path / "images.zip")
    content = bytearray(source.read_bytes())
    directory = content.index(b"PK\x01\x02")
    content[directory + 24 : directory + 28] = struct.pack("<I", 2**31)
    source.write_bytes(content)
    with pytest.raises(ValueError, match=r"1\.png in .* claims 2,147,483,648 bytes"):
        Images.read(source, size=8, damaged="skip")


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(2):
            archive.writestr("1.png", encoded(Image.fromarray(picture(0)), "PNG"))
    with pytest.raises(ValueError, match=r"holds 1\.png twice"):
        Images.read(tmp_path / "images.zip", size=8)


def replaced(path: Path, pixels: numpy.ndarray, *, later: int = 0) -> None:
    """Other pixels in a file of the same size, changed ``later`` seconds after the one before."""
    time = path.stat().st_mtime_ns + later * 10**9
    Image.fromarray(pixels).save(path, compress_level=0)
    os.utime(path, ns=(time, time))


@pytest.mark.parametrize("zip_it", [False, True])
def test_the_second_read_comes_from_the_cache_until_something_changes(tmp_path: Path, zip_it: bool) -> None:
    file = save(tmp_path / "images/1.png", picture(0), compress_level=0)
    zip_path = tmp_path / "images.zip"

    def read(**options: object) -> numpy.ndarray:
        source = zipped(file.parent, zip_path) if zip_it else file.parent
        if zip_it:
            os.utime(zip_path, ns=(0, 0))
        return rows(Images.read(source, **({"size": 8} | options)), 0)  # type: ignore[arg-type]

    assert (read() == picture(0)).all()
    if not zip_it:
        replaced(file, picture(1))
        assert (read() == picture(0)).all(), "the key does not hold, or the cache is not used"
        assert (read(cache=False) == picture(1)).all()
    assert read(size=4).shape == (4, 4, 3)
    replaced(file, picture(2), later=1)
    assert (read() == picture(2)).all()
    save(file.parent / "0.png", picture(3))
    assert (read() == picture(3)).all()


def test_size_fit_and_folder_are_part_of_the_key(tmp_path: Path, cache: Path) -> None:
    for number, folder in enumerate(("a", "b")):
        os.utime(save(tmp_path / folder / "1.png", picture(number, 8, 12), compress_level=0), ns=(0, 0))
    found = [Images.read(tmp_path / folder, size=8, fit=fit).pixels for folder in "ab" for fit in ("crop", "resize")]
    assert len({pixels.numpy().tobytes() for pixels in found}) == 4
    Images.read(tmp_path / "a", size=4)
    assert len(list((cache / "images").iterdir())) == 5


@pytest.mark.parametrize("how", ["flipped", "cut", "emptied", "foreign", "description"])
def test_a_damaged_cache_is_rebuilt(tmp_path: Path, cache: Path, how: str) -> None:
    fill(tmp_path, "1.png", "2.png")
    expected = Images.read(tmp_path, size=8).pixels.clone()
    (file,) = (cache / "images").iterdir()
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[-5] ^= 1
    file.write_bytes(
        {
            "flipped": bytes(flipped),
            "cut": whole[:-100],
            "emptied": b"",
            "foreign": b"something else",
            "description": whole.replace(b'faults\\": {}', b'faults\\": []'),
        }[how]
    )
    assert file.read_bytes() != whole
    assert torch.equal(Images.read(tmp_path, size=8).pixels, expected)
    assert file.read_bytes() == whole


def test_without_cache_nothing_is_kept(tmp_path: Path, cache: Path) -> None:
    Images.read(fill(tmp_path, "1.png"), size=8, cache=False)
    assert list(cache.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("IBMD_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="IBMD_CACHE, or read with cache=False"):
        assert len(Images.read(fill(tmp_path / "images", "1.png"), size=8)) == 1


def test_the_cache_lies_where_the_platform_has_its_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IBMD_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    monkeypatch.setenv("LOCALAPPDATA", "/local")
    for platform, folder in [
        ("linux", Path("/somewhere/ibmd_lite")),
        ("darwin", Path.home() / "Library/Caches/ibmd_lite"),
        ("win32", Path("/local/ibmd_lite/Cache")),
    ]:
        monkeypatch.setattr(sys, "platform", platform)
        assert cache_folder() == folder


def test_two_processes_read_at_once(tmp_path: Path, cache: Path) -> None:
    source = fill(tmp_path / "images", *(f"{i}.png" for i in range(200)), size=32)
    code = (
        "import sys; from ibmd_lite.data import Images; print('ready', flush=True); sys.stdin.readline()\n"
        "for size in range(8, 16):\n"
        "    print(Images.read(sys.argv[1], size=size).pixels.sum().item())\n"
    )
    command = [sys.executable, "-W", "error", "-c", code, str(source)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        other.stdout.readline()
        other.stdin.write("\n")  # now both decode, and keep the same eight keys
        other.stdin.flush()
        sums = [int(Images.read(source, size=size).pixels.sum()) for size in range(8, 16)]
        assert [int(line) for line in other.stdout] == sums
    assert other.returncode == 0
    assert len(list((cache / "images").iterdir())) == 8


def test_draws_are_images_and_their_labels(tmp_path: Path) -> None:
    images = Images.read(fill(tmp_path, *(f"{kind}/{i}.png" for kind in "abc" for i in range(3))), size=8)
    x0, labels = images.draw(300, torch.Generator().manual_seed(0))
    assert x0.dtype == torch.float32
    assert -1 <= float(x0.min()) < -0.9 < 0.9 < float(x0.max()) <= 1
    pixels = ((x0 + 1) * 127.5).round().byte()
    places = [int((images.pixels == image).flatten(1).all(1).nonzero()) for image in pixels]
    assert labels.tolist() == [place // 3 for place in places]
    assert set(places) == set(range(9))
    assert torch.equal(images.draw(300, torch.Generator().manual_seed(0))[0], x0)
    assert next(Draws(images.draw, 4))[0].shape == (4, 3, 8, 8)
    assert torch.equal(images.sources(300, torch.Generator().manual_seed(0)), x0)
    assert next(Draws(images.sources, 4)).shape == (4, 3, 8, 8)
    for drawn in (images.draw, images.sources):
        with pytest.raises(ValueError, match="n is 0"):
            drawn(0)


def test_batches_shuffle_every_epoch_and_resume_to_the_bit(tmp_path: Path) -> None:
    images = Images.read(fill(tmp_path, *(f"{kind}/{i}.png" for kind in "ab" for i in range(3))), size=8)
    stream = images.batches(2, seed=3)
    epochs = []
    for _ in range(2):
        batches = [next(stream) for _ in range(3)]
        x0 = torch.cat([batch[0] for batch in batches])
        assert sorted(torch.cat([batch[1] for batch in batches]).tolist()) == [0, 0, 0, 1, 1, 1]
        pixels = ((x0 + 1) * 127.5).round().byte()
        epochs.append([int((images.pixels == image).flatten(1).all(1).nonzero()) for image in pixels])
        assert sorted(epochs[-1]) == list(range(6))
    assert epochs[0] != epochs[1]
    next(stream)
    state = stream.state_dict()
    ahead = [next(stream) for _ in range(5)]
    again = images.batches(2, seed=99)
    again.load_state_dict(state)
    for (x0, labels), (x0_again, labels_again) in zip(ahead, [next(again) for _ in range(5)], strict=True):
        assert x0.dtype == torch.float32
        assert torch.equal(x0, x0_again)
        assert torch.equal(labels, labels_again)


def test_refusals(tmp_path: Path) -> None:
    fill(tmp_path / "images", "1.png")
    with pytest.raises(FileNotFoundError, match="no folder or zip of images"):
        Images.read(tmp_path / "nowhere", size=8)
    with pytest.raises(ValueError, match="neither a folder nor a whole zip"):
        Images.read(tmp_path / "images/1.png", size=8)
    with pytest.raises(ValueError, match="size is 0"):
        Images.read(tmp_path / "images", size=0)
    with pytest.raises(ValueError, match="'pad'; expected 'crop', 'resize' or 'exact'"):
        Images.read(tmp_path / "images", size=8, fit="pad")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'ignore'; expected 'refuse' or 'skip'"):
        Images.read(tmp_path / "images", size=8, damaged="ignore")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"torch\.float32; expected torch.uint8"):
        Images(torch.zeros(1, 3, 8, 8), torch.zeros(1).long(), ("a",), ("1.png",))
    with pytest.raises(ValueError, match=r"there are 2 names; expected"):
        Images(torch.zeros(1, 3, 8, 8).byte(), torch.zeros(1).long(), ("a",), ("1.png", "2.png"))
