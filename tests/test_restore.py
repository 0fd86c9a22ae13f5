"""The command: real files, real processes, a kill in the middle; every image whole, or named."""

import io
import json
import os
import signal
import subprocess
import sys
import time

import numpy
import pytest
import torch
from PIL import Image
from torch import nn

from ibmd_lite.bridges import Brownian
from ibmd_lite.export import OnnxModel, export_onnx
from ibmd_lite.manifest import MANIFEST
from ibmd_lite.model import BridgeModel, Source
from ibmd_lite.networks import UNet
from ibmd_lite.restore import Restoration, Tiling, main, restored, tiled
from ibmd_lite.student import Student


class Convolutions(nn.Module):
    """Sees three pixels around each; wants multiples of 4."""

    downsampling = 4

    def __init__(self, channels=3):
        super().__init__()
        self.input_layer = nn.Conv2d(channels, 8, 3, padding=1)
        self.middle, self.last = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, channels, 3, padding=1)

    def forward(self, xt, time):
        if xt.shape[2] % 4 or xt.shape[3] % 4:
            raise ValueError("not a multiple of 4")
        return xt[:, : self.last.out_channels] + self.last(self.middle(self.input_layer(xt).relu()).relu())


def student_of(channels=3, seed=0):
    student = Student.of(BridgeModel(Convolutions(channels), Brownian(0.1)))
    generator = torch.Generator().manual_seed(seed)
    for parameter in student.parameters():
        nn.init.normal_(parameter, std=0.1, generator=generator)
    return student


@pytest.fixture(scope="module")
def student():
    return student_of()


@pytest.fixture(scope="module")
def file(student, tmp_path_factory):
    return export_onnx(student, tmp_path_factory.mktemp("students") / "s.onnx", torch.rand(2, 3, 8, 8)).path


@pytest.fixture(scope="module")
def filler(tmp_path_factory):
    """A student of holes, for grey images of one size alone."""
    xT = torch.rand(2, 1, 16, 16)
    source, path = Source(xT, mask=(xT > 0.5).float()), tmp_path_factory.mktemp("students") / "filler.onnx"
    return export_onnx(student_of(channels=1), path, source, any_size=False).path


def picture(height, width, seed=0, channels=3):
    pixels = numpy.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=numpy.uint8)
    return Image.fromarray(pixels if channels == 3 else pixels[..., 0])


def pixels(path):
    return numpy.array(Image.open(path))


def tensor(image):
    return torch.from_numpy(numpy.array(image)).permute(2, 0, 1)


def command(*arguments):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return [sys.executable, "-m", "ibmd_lite.restore", *map(str, arguments)], environment


# One image


def test_an_odd_size_is_answered_as_torch_answers_the_reflected_image(student, file):
    image = tensor(picture(13, 18))
    got = restored(OnnxModel.read(file), image, torch.Generator().manual_seed(4))
    wide = torch.from_numpy(numpy.pad(image.numpy(), ((0, 0), (0, 3), (0, 2)), mode="reflect"))
    xT = wide[None].float() / 127.5 - 1
    expected = student(xT, generator=torch.Generator().manual_seed(4))[0, :, :13, :18]
    expected = ((expected.clamp(-1, 1) + 1) * 127.5).round()
    assert got.shape == image.shape
    assert (got.float() - expected).abs().max() <= 1
    assert (got.float() - expected).abs().mean() < 0.01


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (3, 2)])
def test_the_smallest_images_are_restored_too(file, size):
    assert restored(OnnxModel.read(file), tensor(picture(*size)), torch.Generator()).shape == (3, *size)


def test_nothing_is_enlarged_and_the_help_says_so(file, capsys):
    image = torch.zeros(3, 12, 8, dtype=torch.uint8)
    assert restored(OnnxModel.read(file), image, torch.Generator()).shape == image.shape
    with pytest.raises(SystemExit):
        main(["--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert "a result has the size of its image" in told
    assert "enlarge small ones first" in told


def test_tiles_that_overlap_by_what_the_network_sees_leave_no_seam(file):
    model, image = OnnxModel.read(file), tensor(picture(75, 102))
    answers = {
        overlap: restored(model, image, torch.Generator().manual_seed(1), tiling=Tiling(32, overlap)).float()
        for overlap in (0, 8)
    }
    whole = restored(model, image, torch.Generator().manual_seed(1)).float()
    off = {overlap: (answer - whole).abs()[:, 8:24].mean((0, 1)) for overlap, answer in answers.items()}
    assert off[0][12:20].max() == 0, "inside of a tile nothing changes"
    assert off[0][31:33].min() > 5, "without overlap, the border of two tiles shows"
    assert off[8].max() < off[0].max() / 10


def test_blended_tiles_of_a_pointwise_function_are_the_function():
    x, z = torch.randn(2, 1, 3, 50, 41).unbind()
    for tiling in (Tiling(16, 0), Tiling(16, 8, batch=3), Tiling(20, 6), Tiling(64, 3)):
        answer = tiled(lambda x, z: x + 2 * z, {"x": x, "z": z}, tiling)
        torch.testing.assert_close(answer, x + 2 * z, rtol=0, atol=1e-5)


def test_the_batch_of_tiles_changes_no_answer(file):
    model, image = OnnxModel.read(file), tensor(picture(70, 70))
    one, many = (
        restored(model, image, torch.Generator().manual_seed(1), tiling=Tiling(32, 8, batch=batch)).int()
        for batch in (1, 4)
    )
    assert (one - many).abs().max() <= 1


@pytest.mark.parametrize(
    ("values", "told"), [((0, 0), "at least 1"), ((8, 5), "half of the tile, 4"), ((8, -1), "0 to")]
)
def test_a_tiling_that_cannot_be_is_refused(values, told):
    with pytest.raises(ValueError, match=told):
        Tiling(*values)


def test_a_hole_is_filled_and_the_rest_is_kept(filler):
    model, image = OnnxModel.read(filler), tensor(picture(23, 30))[:1]
    mask = torch.zeros(23, 30, dtype=torch.uint8)
    mask[5:15, 8:20] = 255
    answer = restored(model, image, torch.Generator().manual_seed(0), mask=mask)
    other = restored(model, image, torch.Generator().manual_seed(1), mask=mask)
    hidden = image.clone()
    hidden[:, mask > 0] = 9
    assert torch.equal(answer[:, mask == 0], image[:, mask == 0])
    assert torch.equal(restored(model, hidden, torch.Generator().manual_seed(0), mask=mask), answer), "it was not seen"
    assert (answer != other)[:, mask > 0].float().mean() > 0.5, "another draw, another filling"


# A folder


def encoded(image, **how):
    data = io.BytesIO()
    image.save(data, **how)
    return data.getvalue()


@pytest.fixture
def folder(tmp_path):
    """Every kind of file there is, and two that are broken."""
    colour = picture(20, 28)
    grey16 = Image.fromarray(numpy.arange(20 * 28, dtype=numpy.uint16).reshape(20, 28) * 100)
    upright = Image.Exif()
    upright[0x0112] = 6
    files = {
        "colour.png": encoded(colour, format="PNG"),
        "deep/er/photo.JPG": encoded(colour, format="JPEG"),
        "deep/lossless.webp": encoded(colour, format="WEBP", lossless=True),
        "grey.png": encoded(colour.convert("L"), format="PNG"),
        "grey16.png": encoded(grey16, format="PNG"),
        "palette.png": encoded(colour.quantize(16), format="PNG"),
        "see-through.png": encoded(Image.new("RGBA", (28, 20), (0, 0, 0, 0)), format="PNG"),
        "turned.jpg": encoded(colour, format="JPEG", exif=upright),
        "cut-off.png": encoded(colour, format="PNG")[:300],
        "words.jpeg": b"no image at all",
        "notes.txt": b"passed over",
    }
    for name, data in files.items():
        path = tmp_path / "folder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "folder"


def found(out):
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*.png")}


def test_the_command_restores_what_can_be_read_and_names_what_cannot(file, folder, tmp_path):
    out = tmp_path / "out"
    line, environment = command(file, folder, out)
    done = subprocess.run(line, env=environment, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "8 restored, 0 were there already, 2 could not be restored" in done.stdout
    assert "words.jpeg: no JPEG, PNG or WebP image" in done.stderr
    assert "cut-off.png:" in done.stderr
    assert "images/s" in done.stderr, "the rate"
    names = ["colour", "deep/er/photo", "deep/lossless", "grey", "grey16", "palette", "see-through", "turned"]
    assert sorted(found(out)) == sorted(f"{name}.png" for name in names)
    kinds = {(Image.open(io.BytesIO(data)).mode, Image.open(io.BytesIO(data)).size) for data in found(out).values()}
    assert kinds == {("RGB", (28, 20)), ("RGB", (20, 28))}
    assert pixels(out / "turned.png").shape == (28, 20, 3), "upright"
    assert pixels(out / "see-through.png").mean() > 200, "transparency is laid on white"
    assert pixels(out / "grey16.png")[-1].mean() > pixels(out / "grey16.png")[0].mean() + 100, "scaled, not cut"


def test_an_image_has_one_answer_in_whatever_company(file, folder, tmp_path, capsys):
    assert main([str(file), str(folder), str(tmp_path / "all")]) == 1
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "renamed.png").write_bytes((folder / "colour.png").read_bytes())
    assert main([str(file), str(alone), str(tmp_path / "one")]) == 0
    assert main([str(file), str(alone), str(tmp_path / "other"), "--seed", "1"]) == 0
    everything = found(tmp_path / "all")
    assert found(tmp_path / "one")["renamed.png"] == everything["colour.png"]
    assert found(tmp_path / "other")["renamed.png"] != everything["colour.png"]


def test_a_run_that_was_killed_leaves_whole_images_and_goes_on(file, tmp_path):
    folder, out = tmp_path / "folder", tmp_path / "out"
    folder.mkdir()
    for number in range(40):
        picture(150, 150 + number, seed=number).save(folder / f"{number:02d}.png", compress_level=1)
    line, environment = command(file, folder, out)
    process = subprocess.Popen(line, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(list(out.glob("*.png"))) < 5:
        assert process.poll() is None, "ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    before = found(out)
    assert 5 <= len(before) < 40
    for name in before:
        Image.open(out / name).verify()
        assert pixels(out / name).shape == pixels(folder / name).shape
    stamps = {name: (out / name).stat().st_mtime_ns for name in before}
    (out / ".99.png.abc.part").write_bytes(b"half")
    done = subprocess.run(line, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"{40 - len(before)} restored, {len(before)} were there already, 0 could not be restored" in done.stdout
    assert {name: (out / name).stat().st_mtime_ns for name in before} == stamps
    assert not list(out.rglob("*.part"))
    assert len(found(out)) == 40
    again = Restoration(file, folder, tmp_path / "again")
    assert [image.fault for image in again.images()] == [None] * 40
    assert found(tmp_path / "again") == found(out), "cut off or not"


def test_nothing_is_overwritten(file, folder, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.doc").write_text("mine")
    for target, told in [
        (out, "holds other files (thesis.doc), and nothing is overwritten"),
        (folder, "lie one in the other: name a folder beside it"),
        (folder / "restored", "lie one in the other"),
        (tmp_path, "lie one in the other"),
        (folder / "notes.txt", "lie one in the other"),
        (file, "is a file: name a folder"),
    ]:
        assert main([str(file), str(folder), str(target)]) == 2
        assert told in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ["thesis.doc"]
    (folder / "colour.jpg").write_bytes((folder / "turned.jpg").read_bytes())
    assert main([str(file), str(folder), str(tmp_path / "new")]) == 2
    assert "colour.jpg and colour.png would both be written to" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_results_of_another_run_are_not_mixed_in(file, folder, tmp_path, capsys):
    out = str(tmp_path / "out")
    assert main([str(file), str(folder), out]) == 1
    assert main([str(file), str(folder), out, "--seed", "3", "--tile", "64"]) == 2
    assert "results of another run (other: seed, tile)" in capsys.readouterr().err
    assert main([str(file), str(folder), out]) == 1
    assert "0 restored, 8 were there already, 2 could not be restored" in capsys.readouterr().out


def test_masks_come_by_name(filler, tmp_path, capsys):
    folder, masks, out = tmp_path / "folder", tmp_path / "masks", tmp_path / "out"
    for place in (folder, masks):
        place.mkdir()
    for name, size in {"a": (20, 24), "b": (20, 24), "c": (20, 24)}.items():
        picture(*size, channels=1).save(folder / f"{name}.png")
    hole = numpy.zeros((20, 24), numpy.uint8)
    hole[4:9, 4:9] = 255
    Image.fromarray(hole).save(masks / "a.jpg", quality=95)
    Image.fromarray(hole[:10]).save(masks / "b.png")
    assert main([str(filler), str(folder), str(out), "--mask", str(masks)]) == 1
    told = capsys.readouterr().err
    assert "b.png: its mask is 24 x 10, the image 24 x 20" in told
    assert "c.png:" in told
    assert "has no mask of its name" in told
    assert sorted(found(out)) == ["a.png"]
    changed = pixels(out / "a.png") != pixels(folder / "a.png")
    assert changed[hole > 0].mean() > 0.5
    assert not changed[hole == 0].any()
    assert main([str(filler), str(folder), str(tmp_path / "none")]) == 2
    assert "fills holes: name their --mask folder" in capsys.readouterr().err


def test_students_that_a_folder_cannot_serve_are_refused(student, file, folder, tmp_path, capsys):
    student.save(tmp_path / "student.safetensors")
    for arguments, told in [
        ((tmp_path / "student.safetensors", folder), "weights without their network"),
        ((tmp_path / "none.onnx", folder), "no exported student or model at"),
        ((file, tmp_path / "nowhere"), "there is no folder"),
        ((file, folder, "--mask", folder), "takes no mask: leave --mask out"),
        ((file, folder, "--label", "1"), "takes no class label: leave --label out"),
        ((file, folder, "--overlap", "400"), "half of the tile, 256"),
        ((file, folder, "--seed", "-1"), "seed is -1"),
    ]:
        first, second, *rest = map(str, arguments)
        assert main([first, second, str(tmp_path / "out"), *rest]) == 2
        assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def some(folder, *names, size=(12, 16), channels=3):
    folder.mkdir()
    for seed, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        picture(*size, seed=seed, channels=channels).save(folder / name)
    return folder


def test_a_link_to_nothing_and_a_file_that_vanishes_stop_nothing(file, tmp_path, capsys):
    folder, out = some(tmp_path / "folder", "a.png", "b.png", "c.png"), tmp_path / "out"
    (folder / "dangling.png").symlink_to("nowhere.png")
    assert main([str(file), str(folder), str(out)]) == 1
    told = capsys.readouterr()
    assert "dangling.png: No such file or directory\n" in told.err
    assert "3 restored, 0 were there already, 1 could not be restored" in told.out
    run = Restoration(file, folder, tmp_path / "again")
    (folder / "b.png").unlink()
    faults = {image.name: image.fault for image in run.images()}
    gone = "No such file or directory"
    assert faults == {"a.png": None, "b.png": gone, "c.png": None, "dangling.png": gone}


def test_in_the_hole_stands_what_the_student_was_trained_with(tmp_path):
    xT = torch.rand(2, 3, 16, 16)
    mask = (torch.rand(2, 1, 16, 16) > 0.5).float()
    student, image = student_of(), tensor(picture(16, 16))
    hole = torch.zeros(16, 16, dtype=torch.uint8)
    hole[4:9, 4:9] = 255
    holed = (hole > 127).float()[None, None]
    known = (1 - holed) * (image[None].float() / 127.5 - 1)
    path = export_onnx(student, tmp_path / "zeros.onnx", Source((1 - mask) * xT, mask=mask), hole="zeros").path
    got = restored(OnnxModel.read(path), image, torch.Generator().manual_seed(3), mask=hole)
    answer = student(Source(known, mask=holed), generator=torch.Generator().manual_seed(3))[0]
    assert (got.float() - ((answer.clamp(-1, 1) + 1) * 127.5).round()).abs().max() <= 1
    model = OnnxModel.read(path)
    assert model.about.pop("hole") == "zeros"
    old = restored(model, image, torch.Generator().manual_seed(3), mask=hole)
    assert (old.float() - got.float()).abs()[:, hole > 0].mean() > 3, "a file that does not say has noise"
    model.about["hole"] = "noise"
    assert torch.equal(restored(model, image, torch.Generator().manual_seed(3), mask=hole), old)
    model.about["hole"] = "stripes"
    with pytest.raises(ValueError, match="wants 'stripes' in a hole"):
        restored(model, image, torch.Generator(), mask=hole)


def test_a_student_of_codes_is_refused_before_anything_is_read(tmp_path, capsys):
    codes = export_onnx(student_of(channels=8), tmp_path / "codes.onnx", torch.rand(2, 8, 8, 8)).path
    assert main([str(codes), str(tmp_path / "not looked for"), str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert "takes 8 channels, and photographs have 3, or 1 in grey" in told
    assert "encode and decode around it" in told
    assert not (tmp_path / "out").exists()


def test_a_photograph_that_was_replaced_is_told_and_its_result_kept(file, tmp_path, capsys):
    folder, out = some(tmp_path / "folder", "a.png", "b.png", "c.png"), tmp_path / "out"
    assert main([str(file), str(folder), str(out)]) == 0
    before, stamp = found(out), (folder / "b.png").stat().st_mtime_ns
    picture(12, 20, seed=9).save(folder / "b.png")
    os.utime(folder / "b.png", ns=(stamp, stamp - 10**9))  # a copy that kept its time, older than the result
    for _ in range(2):
        assert main([str(file), str(folder), str(out)]) == 1
        told = capsys.readouterr().out
        assert "0 restored, 2 were there already, 0 could not be restored" in told
        assert "1 changed since they were restored: delete their results to restore them again (b.png)" in told
    assert found(out) == before
    (out / "b.png").unlink()
    assert main([str(file), str(folder), str(out)]) == 0
    assert "1 restored, 2 were there already" in capsys.readouterr().out
    assert pixels(out / "b.png").shape == (12, 20, 3)
    assert main([str(file), str(folder), str(out)]) == 0


def test_a_photograph_that_changes_between_listing_and_reading_is_known_as_it_was_read(file, tmp_path):
    folder, out = some(tmp_path / "folder", "a.png", "b.png"), tmp_path / "out"
    run = Restoration(file, folder, out)
    picture(12, 20, seed=9).save(folder / "b.png")
    assert [image.fault for image in run.images()] == [None, None]
    assert pixels(out / "b.png").shape == (12, 20, 3)
    assert Restoration(file, folder, out).changed == []


def test_another_mask_is_a_change_too(filler, tmp_path):
    folder = some(tmp_path / "folder", "a.png", "b.png", size=(16, 16), channels=1)
    masks, out = some(tmp_path / "masks", "a.png", "b.png", size=(16, 16), channels=1), tmp_path / "out"
    assert [image.fault for image in Restoration(filler, folder, out, masks=masks).images()] == [None, None]
    (masks / "b.png").write_bytes(b"damaged")
    assert Restoration(filler, folder, out, masks=masks).changed == ["b.png"]
    (out / "b.png").unlink()
    (image,) = Restoration(filler, folder, out, masks=masks).images()
    assert image.fault == "its mask: no JPEG, PNG or WebP image"


def test_a_run_from_before_states_were_kept_goes_on(file, tmp_path):
    folder, out = some(tmp_path / "folder", "a.png", "b.png", "c.png"), tmp_path / "out"
    assert all(image.fault is None for image in Restoration(file, folder, out).images())
    manifest = out / MANIFEST
    told = json.loads(manifest.read_text("utf8"))
    del told["files"], told["label"]
    assert set(told) == {"student", "folder", "seed", "tile", "overlap", "batch", "masks"}
    manifest.write_text(json.dumps(told, indent=1))
    (out / "c.png").unlink()
    later = (out / "b.png").stat().st_mtime_ns + 10**9
    os.utime(folder / "b.png", ns=(later, later))
    run = Restoration(file, folder, out)
    assert (run.there, run.changed, [entry.name for entry in run.left]) == (1, ["b.png"], ["c.png"])
    os.utime(folder / "a.png", ns=(0, 0))
    assert Restoration(file, folder, out).changed == ["a.png", "b.png"], "from now on states are known"


@pytest.mark.parametrize("content", ["[]", "{", '{"files": []}', '{"files": {"a.png": 3}}', b"\xff"])
def test_a_damaged_manifest_is_named(file, tmp_path, capsys, content):
    folder, out = some(tmp_path / "folder", "a.png"), tmp_path / "out"
    out.mkdir()
    (out / MANIFEST).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert main([str(file), str(folder), str(out)]) == 2
    told = capsys.readouterr().err
    assert f"error: {out / MANIFEST} is damaged, so nobody knows" in told
    assert "name another folder, or delete this one" in told


def test_a_folder_in_a_results_place_is_no_result(file, tmp_path, capsys):
    folder, out = some(tmp_path / "folder", "a.jpg", "b.png"), tmp_path / "out"
    assert main([str(file), str(folder), str(out)]) == 0
    (out / "a.png").unlink()
    (out / "a.png").mkdir()
    assert main([str(file), str(folder), str(out)]) == 1
    told = capsys.readouterr()
    assert f"a.jpg: {out / 'a.png'} is a folder, where the result belongs: move it away" in told.err
    assert "0 restored, 1 were there already, 1 could not be restored" in told.out
    both = some(tmp_path / "both", "a.jpg", "a.png/x.jpg")
    assert main([str(file), str(both), str(tmp_path / "new")]) == 2
    assert "a.jpg would be written to" in capsys.readouterr().err


def test_files_of_other_kinds_are_counted(file, tmp_path, capsys):
    folder = some(tmp_path / "folder", "a.png", "b.tiff", "deep/c.GIF", "deep/d.bmp", "e.tiff")
    (folder / ".hidden.tiff").write_bytes(b"")
    (folder / "notes").write_text("no ending")
    assert main([str(file), str(folder), str(tmp_path / "out")]) == 0
    told = capsys.readouterr().out
    assert "5 files passed over: only JPEG, PNG and WebP are read, not .bmp, .gif, .tiff, notes" in told
    assert main([str(file), str(some(tmp_path / "plain", "a.png")), str(tmp_path / "other")]) == 0
    assert "passed over" not in capsys.readouterr().out


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """A student of three classes, and its file."""
    student = Student.of(BridgeModel(UNet(width=4, multipliers=(1,), patch=2, labels=3), Brownian(0.1)))
    generator = torch.Generator().manual_seed(0)
    for parameter in student.parameters():
        nn.init.normal_(parameter, std=0.2, generator=generator)
    source = Source(torch.rand(3, 3, 8, 8), label=torch.arange(3))
    return student, export_onnx(student, tmp_path_factory.mktemp("students") / "labelled.onnx", source).path


def test_a_label_is_that_of_every_tile_of_every_image(labelled, tmp_path):
    student, path = labelled
    folder = some(tmp_path / "folder", "a.png", "b.png", size=(16, 20))
    for label in (0, 2):
        assert main([str(path), str(folder), str(tmp_path / str(label)), "--label", str(label)]) == 0
        for name in ("a.png", "b.png"):
            data = (folder / name).read_bytes()
            image, model = tensor(Image.open(io.BytesIO(data))), OnnxModel.read(path)
            source = Source(image[None].float() / 127.5 - 1, label=torch.tensor([label]))
            expected = student(source, generator=torch.Generator().manual_seed(4))[0].clamp(-1, 1)
            got = restored(model, image, torch.Generator().manual_seed(4), label=label)
            assert (got.float() - ((expected + 1) * 127.5).round()).abs().max() <= 1
    assert (pixels(tmp_path / "0" / "a.png") != pixels(tmp_path / "2" / "a.png")).mean() > 0.3
    tiling = Tiling(8, 2, batch=4)
    assert restored(model, image, torch.Generator(), label=1, tiling=tiling).shape == image.shape


def test_a_label_that_is_missing_or_unknown_is_refused(labelled, tmp_path, capsys):
    _, path = labelled
    folder, out = some(tmp_path / "folder", "a.png"), tmp_path / "out"
    for options, told in [
        ([], "wants a class label: name that of all these images with --label (0 to 2)"),
        (["--label", "3"], "the label is 3; this student knows 0 to 2"),
        (["--label", "-1"], "the label is -1; this student knows 0 to 2"),
    ]:
        assert main([str(path), str(folder), str(out), *options]) == 2
        assert told in capsys.readouterr().err
    assert not out.exists()
    assert main([str(path), str(folder), str(out), "--label", "1"]) == 0
    assert main([str(path), str(folder), str(out), "--label", "2"]) == 2
    assert "results of another run (other: label)" in capsys.readouterr().err
    model = OnnxModel.read(path)
    del model.about["inputs"]["label"]["classes"]  # as files were before
    assert restored(model, tensor(picture(8, 8)), torch.Generator(), label=2).shape == (3, 8, 8)
