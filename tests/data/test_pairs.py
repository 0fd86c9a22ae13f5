"""Pairs side by side and in parallel folders: who is whose partner, and what is no pair."""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest
import torch
from pictures import fill, picture, save, zipped
from PIL import Image, ImageOps

from ibmd_lite.data import Pairs
from ibmd_lite.training import Draws


def rows(pixels: torch.Tensor) -> numpy.ndarray:
    """One image as (height, width, 3)."""
    return pixels.permute(1, 2, 0).numpy()


def sheets(root: Path, *names: str, height: int = 8, width: int = 8) -> Path:
    """Files with picture 2k on the left and picture 2k+1 on the right."""
    for k, name in enumerate(names):
        halves = [picture(2 * k, height, width), picture(2 * k + 1, height, width)]
        save(root / name, numpy.concatenate(halves, axis=1))
    return root


@pytest.mark.parametrize("zip_it", [False, True])
def test_side_by_side(tmp_path: Path, zip_it: bool) -> None:
    source = sheets(tmp_path / "images", "train/1.png", "train/2.png", "val/3.png")
    source = zipped(source, tmp_path / "images.zip") if zip_it else source
    for side, shift in (("left", 0), ("right", 1)):
        pairs = Pairs.side_by_side(source, size=8, source=side, split="train")  # type: ignore[arg-type]
        assert pairs.names == ("train/1.png", "train/2.png")
        for k in range(2):
            assert (rows(pairs.xT[k]) == picture(2 * k + shift)).all()
            assert (rows(pairs.x0[k]) == picture(2 * k + 1 - shift)).all()


@pytest.mark.parametrize("fit", ["crop", "resize"])
def test_halves_are_scaled_by_themselves(tmp_path: Path, fit: str) -> None:
    sheets(tmp_path, "1.png", height=24, width=20)
    pairs = Pairs.side_by_side(tmp_path, size=8, half=(24, 20), fit=fit)  # type: ignore[arg-type]
    for found, seed in ((pairs.xT, 0), (pairs.x0, 1)):
        half = Image.fromarray(picture(seed, 24, 20))
        lanczos = Image.Resampling.LANCZOS
        expected = ImageOps.fit(half, (8, 8), lanczos) if fit == "crop" else half.resize((8, 8), lanczos)
        assert (rows(found[0]) == numpy.asarray(expected)).all(), "the other half shows through, or another filter"


def test_halves_of_another_size_are_named_where_nothing_may_be_scaled(tmp_path: Path) -> None:
    sheets(tmp_path, "1.png")
    assert len(Pairs.side_by_side(tmp_path, size=8, fit="exact")) == 1
    with pytest.raises(ValueError, match=r"cannot be used: 1\.png \(is 16 x 8, not 8 x 4\)"):
        Pairs.side_by_side(tmp_path, size=4, fit="exact")


def test_files_that_are_no_pairs_are_named(tmp_path: Path) -> None:
    sheets(tmp_path, "1.png", "2.png")
    save(tmp_path / "odd.png", picture(0, 8, 17))
    save(tmp_path / "single.png", picture(0, 8, 8))
    told = r"2 of 4 files .*: odd\.png \(17 x 8\), single\.png \(8 x 8\) .*give half=\(height, width\)"
    with pytest.raises(ValueError, match=told):
        Pairs.side_by_side(tmp_path, size=8)
    (tmp_path / "odd.png").unlink()
    with pytest.raises(ValueError, match=r"2 of 3 files .*: 1\.png .*halves that are 4 x 8"):
        Pairs.side_by_side(tmp_path, size=8, half=(8, 4))


def test_parallel_folders_match_by_name_without_suffix(tmp_path: Path) -> None:
    fill(tmp_path / "clean", "a/1.png", "a/2.png", "b/1.png")
    for seed, name in enumerate(("a/1.webp", "a/2.webp", "b/1.webp")):
        save(tmp_path / "dirty" / name, 255 - picture(seed), lossless=True)
    zipped(tmp_path, tmp_path / "unused.zip")
    (tmp_path / "top").mkdir()
    (tmp_path / "dirty").rename(tmp_path / "top/dirty")
    for xT in (tmp_path / "top/dirty", zipped(tmp_path / "top", tmp_path / "dirty.zip")):  # the zip has one folder more
        pairs = Pairs.parallel(tmp_path / "clean", xT, size=8)
        assert pairs.names == ("a/1.png", "a/2.png", "b/1.png")
        for seed in range(3):
            assert (rows(pairs.x0[seed]) == picture(seed)).all()
            assert (rows(pairs.xT[seed]) == 255 - picture(seed)).all()


def test_both_sides_are_cropped_alike(tmp_path: Path) -> None:
    for folder in ("x0", "xT"):
        save(tmp_path / folder / "1.png", picture(0, 13, 30))
    pairs = Pairs.parallel(tmp_path / "x0", tmp_path / "xT", size=8)
    assert torch.equal(pairs.x0, pairs.xT)


def test_images_without_a_partner_are_named(tmp_path: Path) -> None:
    fill(tmp_path / "x0", "1.png", "2.png", "3.png")
    fill(tmp_path / "xT", "1.png", "2.png")
    with pytest.raises(ValueError, match=r"1 of 3 images of .*x0 have no partner in .*xT: 3\.png;"):
        Pairs.parallel(tmp_path / "x0", tmp_path / "xT", size=8)
    with pytest.raises(ValueError, match=r"1 of 3 images of .*x0 have no partner in .*xT: 3\.png;"):
        Pairs.parallel(tmp_path / "xT", tmp_path / "x0", size=8)


def test_partners_of_different_sizes_are_named(tmp_path: Path) -> None:
    fill(tmp_path / "x0", "1.png", "2.png")
    fill(tmp_path / "xT", "1.png", "2.png")
    save(tmp_path / "xT/2.png", picture(0, 16))
    with pytest.raises(ValueError, match=r"1 of 2 pairs .* are of different sizes: 2\.png; scale one"):
        Pairs.parallel(tmp_path / "x0", tmp_path / "xT", size=8)


def test_two_images_that_differ_in_suffix_are_named(tmp_path: Path) -> None:
    fill(tmp_path / "x0", "1.png", "1.webp")
    fill(tmp_path / "xT", "1.png")
    with pytest.raises(ValueError, match=r"1\.png and 1\.webp in .*x0 differ in their suffix alone"):
        Pairs.parallel(tmp_path / "x0", tmp_path / "xT", size=8)


def test_a_damaged_image_takes_its_partner_with_it(tmp_path: Path) -> None:
    fill(tmp_path / "x0", "1.png", "2.png", "3.png", "4.png")
    fill(tmp_path / "xT", "1.png", "2.png", "3.png", "4.png")
    (tmp_path / "x0/1.png").write_bytes(b"")
    (tmp_path / "xT/3.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"1 of 4 images of .*x0 cannot be used: 1\.png"):
        Pairs.parallel(tmp_path / "x0", tmp_path / "xT", size=8)
    with pytest.warns(UserWarning, match="left out"):
        pairs = Pairs.parallel(tmp_path / "x0", tmp_path / "xT", size=8, damaged="skip")
    assert pairs.names == ("2.png", "4.png")
    assert pairs.skipped == ("1.png", "3.png")
    assert torch.equal(pairs.x0, pairs.xT)
    (tmp_path / "x0/3.png").write_bytes(b"")
    sheets(tmp_path / "sheets", "1.png", "2.png")
    (tmp_path / "sheets/1.png").write_bytes(b"")
    with pytest.warns(UserWarning, match=r"1 of 2 images .*: 1\.png"):
        pairs = Pairs.side_by_side(tmp_path / "sheets", size=8, damaged="skip")
    assert (pairs.names, pairs.skipped) == (("2.png",), ("1.png",))
    assert (rows(pairs.xT[0]) == picture(2)).all()


def test_no_undamaged_pair_is_refused(tmp_path: Path) -> None:
    fill(tmp_path / "x0", "1.png", "2.png")
    fill(tmp_path / "xT", "1.png", "2.png")
    (tmp_path / "x0/1.png").write_bytes(b"")
    (tmp_path / "xT/2.png").write_bytes(b"")
    with pytest.warns(UserWarning, match="left out"), pytest.raises(ValueError, match="no pair is left"):
        Pairs.parallel(tmp_path / "x0", tmp_path / "xT", size=8, damaged="skip")


def test_draws_keep_partners_together(tmp_path: Path) -> None:
    for seed in range(5):
        save(tmp_path / "x0" / f"{seed}.png", picture(seed))
        save(tmp_path / "xT" / f"{seed}.png", 255 - picture(seed))
    pairs = Pairs.parallel(tmp_path / "x0", tmp_path / "xT", size=8)
    x0, xT = pairs.draw(40, torch.Generator().manual_seed(0))
    assert x0.dtype == torch.float32
    torch.testing.assert_close(xT, -x0)
    assert len({float(image.sum()) for image in x0}) == 5
    assert torch.equal(pairs.sources(40, torch.Generator().manual_seed(0)), xT)
    assert next(Draws(pairs.sources, 3)).shape == (3, 3, 8, 8)
    stream = pairs.batches(2)
    epoch = [next(stream) for _ in range(2)]
    for x0, xT in epoch:
        torch.testing.assert_close(xT, -x0)
    assert len({float(image.sum()) for x0, _ in epoch for image in x0}) == 4
    with pytest.raises(ValueError, match="n is 0"):
        pairs.sources(0)


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'top'; expected 'left' or 'right'"):
        Pairs.side_by_side(tmp_path, size=8, source="top")  # type: ignore[arg-type]
    bytes_, numbers = torch.zeros(1, 3, 8, 8).byte(), torch.zeros(1, 3, 8, 8)
    with pytest.raises(TypeError, match=r"xT torch\.float32; expected torch\.uint8"):
        Pairs(bytes_, numbers, ("1.png",))
    with pytest.raises(ValueError, match=r"xT \(1, 3, 4, 4\)"):
        Pairs(bytes_, bytes_[:, :, :4, :4], ("1.png",))
