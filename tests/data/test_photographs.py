"""The photographs: no shared pixel between the splits, crops that are what they say, no network."""

import socket
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from ibmd_lite.data.photographs import HELD_OUT, MARGIN, NAMES, Photographs, held_out_region, photograph


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _covered(name: str, source: Photographs) -> Tensor:
    """Which pixels of a photograph the split's crops can show: every allowed crop, painted."""
    _, height, width = photograph(name).shape
    difference = torch.zeros(height + 1, width + 1, dtype=torch.long)
    top, left = source.corners(name).T
    for rows, columns, sign in [(0, 0, 1), (source.size, 0, -1), (0, source.size, -1), (source.size, source.size, 1)]:
        difference.index_put_((top + rows, left + columns), torch.tensor(sign), accumulate=True)
    return difference.cumsum(0).cumsum(1)[:height, :width] > 0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [16, 32])
def test_training_and_test_crops_share_no_pixel(name: str, size: int) -> None:
    train, test = _covered(name, Photographs(size, "train")), _covered(name, Photographs(size, "test"))
    assert test.sum() == 128 * 128
    assert train.float().mean() > 0.4
    grown = torch.nn.functional.max_pool2d(test.float()[None], 2 * MARGIN + 1, stride=1, padding=MARGIN)[0] > 0
    assert not (train & grown).any()


def test_crops_are_pieces_of_the_photograph_that_the_label_names() -> None:
    for split in ("train", "test"):
        source = Photographs(8, split)  # type: ignore[arg-type]
        crops, labels = source.draw(5, _generator())
        for crop, label in zip(crops, labels, strict=True):
            picture = photograph(NAMES[int(label)])
            pixels = ((crop + 1) * 127.5).round().byte()
            windows = picture.unfold(1, 8, 1).unfold(2, 8, 1).permute(1, 2, 0, 3, 4)
            same = (windows == pixels).flatten(2).all(2) | (windows == pixels.flip(2)).flatten(2).all(2)
            found = {(int(row), int(column)) for row, column in same.nonzero()}
            assert found & {(int(row), int(column)) for row, column in source.corners(NAMES[int(label)])}


def test_the_only_test_crop_of_full_size_is_the_held_out_region() -> None:
    crops, labels = Photographs(128, "test").draw(8, _generator())
    for crop, label in zip(crops, labels, strict=True):
        region = held_out_region(NAMES[int(label)])
        assert torch.equal(crop, region) or torch.equal(crop, region.flip(2))


def test_crops_repeat_and_stay_in_range() -> None:
    source = Photographs(32, "train")
    crops = source.crops(50, _generator())
    assert crops.shape == (50, 3, 32, 32)
    assert crops.dtype == torch.float32
    assert -1 <= float(crops.min()) < float(crops.max()) <= 1
    assert torch.equal(crops, source.crops(50, _generator()))
    labels = source.draw(400, _generator())[1]
    assert set(labels.tolist()) == set(range(len(NAMES)))


def test_held_out_region_is_the_box() -> None:
    for name in NAMES:
        region = held_out_region(name)
        top, left = HELD_OUT[name]
        assert region.shape == (3, 128, 128)
        assert torch.equal(
            ((region + 1) * 127.5).round().byte(), photograph(name)[:, top : top + 128, left : left + 128]
        )


def test_no_network_is_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    photograph.cache_clear()
    for name in NAMES:
        assert min(photograph(name).shape[1:]) == 256


def test_refusals() -> None:
    with pytest.raises(ValueError, match="'valid'; expected 'train' or 'test'"):
        Photographs(32, "valid")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="size is 129"):
        Photographs(129, "test")
    with pytest.raises(ValueError, match="'dog'; expected one of astronaut"):
        photograph("dog")
    with pytest.raises(ValueError, match="n is 0"):
        Photographs().draw(0)


def test_the_package_has_the_photographs_without_loading_them() -> None:
    code = (
        "import sys, ibmd_lite.data as data; known = dir(data); assert set(data.__all__) <= set(known)\n"
        "assert 'ibmd_lite.data.photographs' not in sys.modules; data.Photographs(8)\n"
        "assert all(hasattr(data, name) for name in data.__all__) and not hasattr(data, 'Pictures')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
