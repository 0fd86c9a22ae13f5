"""A disk that is really full: what was there stays whole, nothing half-written is found, and the work goes on later.

One process has a file system of four mebibytes in memory, fills it, writes everything that the package writes, makes
room and writes again.  Where no such file system can be had, files that may not grow beyond a limit stand for it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from links import ROOT

WORK = '''
import contextlib, errno, hashlib, http.server, io, json, os, resource, sys, tarfile, threading, warnings
from pathlib import Path

import numpy, torch
from PIL import Image

torch.set_num_threads(1)
tests, disk, roomy, full = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4] == "full"
sys.path.insert(0, tests)
os.environ |= {"IBMD_CACHE": str(disk / "cache"), "NO_PROXY": "127.0.0.1"}

from test_restore import student_of
from trials import notebook

from ibmd_lite.bridges import Brownian
from ibmd_lite.data import cifar10
from ibmd_lite.data.cache import keep, kept
from ibmd_lite.data.official import Published
from ibmd_lite.distillation import Student
from ibmd_lite.experiments.engine import Processes, run_sweep
from ibmd_lite.experiments.sweep import Sweep
from ibmd_lite.export import export_onnx
from ibmd_lite.matching import TeacherTraining
from ibmd_lite.model import BridgeModel
from ibmd_lite.networks import MLP
from ibmd_lite.restore import Restoration
from ibmd_lite.restore import main as restore
from ibmd_lite.training import Shuffled, checkpointed, load_checkpoint

LEFT = 40_000  # bytes


@contextlib.contextmanager
def filled():
    """Little room: what is written here fits no more, or breaks off in the middle."""
    if full:
        filler = disk / "filler"
        free = os.statvfs(disk)
        filler.write_bytes(bytes(free.f_bavail * free.f_frsize - LEFT))
    else:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (LEFT, before[1]))
    try:
        yield
    finally:
        filler.unlink() if full else resource.setrlimit(resource.RLIMIT_FSIZE, before)


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def fails(work):
    """What the full disk raises, in words."""
    try:
        with filled():
            work()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def model(width):
    torch.manual_seed(0)
    return BridgeModel(MLP(2, width, 1), Brownian())


def checkpoint():
    points, path = torch.randn(40, 2, generator=torch.Generator().manual_seed(0)), disk / "runs" / "run.pt"

    def updates(total):
        run, pairs = TeacherTraining(model(40), device="cpu"), Shuffled(points, points, batch=8)
        return [record.update for record in checkpointed(run, pairs, total, path, every=1)]

    updates(2)
    told = fails(lambda: updates(4))
    after = {"update": load_checkpoint(path)["run"]["update"], "files": files(disk / "runs")}
    return {"told": told, **after, "goes on": updates(4), "size": path.stat().st_size}


def cached():
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        raised = fails(lambda: keep("key", {}, {"pixels": torch.zeros(200_000)}))
    after = {"kept": kept("key") is not None, "files": files(disk / "cache")}
    keep("key", {}, {"pixels": torch.zeros(50_000)})
    return {"raised": raised, "told": [str(each.message) for each in said], **after, "goes on": kept("key") is not None}


def download():
    stream = io.BytesIO()
    content = numpy.random.default_rng(0).integers(0, 10, 3073 * 60, dtype=numpy.uint8).tobytes()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        info = tarfile.TarInfo("test_batch.bin")
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    data = stream.getvalue()
    assert len(data) > 1.5 * LEFT

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(data)

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        name = "cifar-10-binary.tar.gz"
        offer = Published(f"http://127.0.0.1:{server.server_port}/", {name: f"md5:{hashlib.md5(data).hexdigest()}"})
        told = fails(lambda: cifar10("test", published=offer))
        after = {"files": files(disk / "cache" / "downloads")}
        goes_on = len(cifar10("test", published=offer))
        server.shutdown()
    return {"told": told, **after, "goes on": goes_on}


def export():
    student, place = Student.of(model(150)), disk / "students"
    place.mkdir()
    told = fails(lambda: export_onnx(student, place / "s.onnx", torch.zeros(2, 2)))
    after = {"files": files(place)}
    export_onnx(student, place / "s.onnx", torch.zeros(2, 2))
    return {"told": told, **after, "goes on": files(place), "size": (place / "s.onnx").stat().st_size}


def restored():
    images, out = roomy / "images", disk / "restored"
    images.mkdir()
    sides = (16, 16, 160, 160) if not full else (64, 64, 64, 64)
    for number, side in enumerate(sides):
        pixels = numpy.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=numpy.uint8)
        Image.fromarray(pixels).save(images / f"{number}.png")
    student = export_onnx(student_of(), roomy / "student.onnx", torch.rand(2, 3, 8, 8)).path
    words, said = [str(student), str(images), str(out)], io.StringIO()
    with filled(), contextlib.redirect_stderr(said):
        code = restore(words)
    there = [name for name in files(out) if name.endswith(".png")]
    whole = [Image.open(out / name).convert("RGB").size[0] > 0 for name in there]
    parts = [name for name in files(out) if name.endswith(".part")]
    left = len(Restoration(*words).left)
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        again = restore(words)
    return {"told": said.getvalue(), "code": code, "there": there, "whole": all(whole), "parts": parts, "left": left,
            "goes on": [again, len([name for name in files(out) if name.endswith(".png")])]}


def swept():
    chapter = notebook(roomy / "chapter.ipynb", "print('x' * 300_000 if seed == 1 else '')")
    sweep = Sweep("trial", chapter, seeds=(0, 1))
    with Processes(1) as executor:
        told = fails(lambda: run_sweep(sweep, disk / "runs", executor))
    results = files(disk / "runs" / "trial")
    with Processes(1) as executor:
        again = run_sweep(sweep, disk / "runs", executor)
    log = (roomy / "log").read_text().split()
    return {"told": told, "results": [name for name in results if name.endswith("result.json")],
            "goes on": [each["seed"] for each in again], "begun": [log.count("0"), log.count("1")]}


if __name__ == "__main__":
    done = {work.__name__: work() for work in (checkpoint, cached, download, export, restored, swept)}
    Path(sys.argv[5]).write_text(json.dumps(done))
'''


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """What became of each piece of work."""
    folder = tmp_path_factory.mktemp("work")
    disk, roomy, script = folder / "disk", folder / "roomy", folder / "work.py"
    disk.mkdir()
    roomy.mkdir()
    script.write_text(WORK, "utf8")
    mount = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    mount.append('mount -t tmpfs -o size=4m none "$0" && exec "$@"')
    full = bool(shutil.which("unshare")) and not subprocess.run([*mount, disk, "true"], capture_output=True).returncode
    words = [sys.executable, "-W", "ignore", script, ROOT / "tests", disk, roomy, "full" if full else "limit"]
    words.append(folder / "done.json")
    told = subprocess.run(
        [*([*mount, disk] if full else []), *map(str, words)],
        capture_output=True,
        text=True,
        timeout=240,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    if told.returncode:
        raise RuntimeError(told.stderr[-3000:])
    return json.loads(Path(folder / "done.json").read_text("utf8"))


def test_a_training_keeps_its_last_checkpoint_and_loses_one_update(done) -> None:
    assert done["checkpoint"]["size"] > 50_000, "two of it do not fit"
    assert done["checkpoint"]["told"] != "nothing"
    assert (done["checkpoint"]["update"], done["checkpoint"]["files"]) == (2, ["run.pt"])
    assert done["checkpoint"]["goes on"] == [3, 4]


def test_the_cache_leaves_nothing_half_written(done) -> None:
    assert (done["cached"]["kept"], done["cached"]["files"], done["cached"]["goes on"]) == (False, [], True)


def test_the_cache_is_done_without(done) -> None:
    assert done["cached"]["raised"] == "nothing"
    assert "cannot be kept for the next time" in done["cached"]["told"][0]


def test_a_download_is_told_and_not_kept(done) -> None:
    assert "could not be fetched" in done["download"]["told"]
    assert (done["download"]["files"], done["download"]["goes on"]) == ([], 60)


def test_a_student_is_exported_whole_or_not(done) -> None:
    assert done["export"]["size"] > 50_000
    assert done["export"]["told"] != "nothing"
    assert (done["export"]["files"], done["export"]["goes on"]) == ([], ["s.onnx"])


def test_restored_images_are_whole_and_the_rest_is_restored_later(done) -> None:
    assert "the same command goes on from here" in done["restored"]["told"]
    assert done["restored"]["code"] == 1
    assert 1 <= len(done["restored"]["there"]) < 4
    assert done["restored"]["whole"]
    assert done["restored"]["parts"] == []
    assert done["restored"]["left"] == 4 - len(done["restored"]["there"])
    assert done["restored"]["goes on"] == [0, 4]


def test_a_sweep_keeps_what_is_finished_and_tells_the_rest(done) -> None:
    assert "1 of 2 runs failed, each 2 times" in done["swept"]["told"]
    assert len(done["swept"]["results"]) == 1
    assert done["swept"]["goes on"] == [0, 1]
    assert done["swept"]["begun"] == [1, 3], "the finished one is not run again"
