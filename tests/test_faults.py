"""Faults: killed runs, broken and hostile files, divergence, and what an import may cost."""

from __future__ import annotations

import copy
import itertools
import json
import math
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from ibmd_lite.bridges import Brownian
from ibmd_lite.distillation import Distillation, Student
from ibmd_lite.matching import TeacherTraining
from ibmd_lite.model import BridgeModel, Source
from ibmd_lite.networks import MLP
from ibmd_lite.training import (
    Diverged,
    Draws,
    Settings,
    Shuffled,
    checkpointed,
    load_checkpoint,
    load_weights,
    read_weights,
    save_checkpoint,
    save_weights,
)


def bridge_model(width: int = 16, depth: int = 1) -> BridgeModel:
    torch.manual_seed(0)
    network = MLP(2, width, depth)
    nn.init.normal_(network.output_layer.weight, std=0.3)
    return BridgeModel(network, Brownian())


# Killed runs.  One process, which imports once, forks a child per life; the children are killed with signal 9.

LIVES = '''
import json, os, random, signal, sys, time
from pathlib import Path

import torch

torch.set_num_threads(1)
from ibmd_lite.bridges import Brownian
from ibmd_lite.distillation import Distillation, DistillationSettings, Student, random_step
from ibmd_lite.matching import TeacherTraining
from ibmd_lite.model import BridgeModel
from ibmd_lite.networks import MLP
from ibmd_lite.training import Draws, Settings, Shuffled, checkpointed, save_checkpoint

kind, folder, total = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])


def live(folder):
    """One life of the run: from its checkpoint to its end, if it is let."""
    torch.manual_seed(0)
    model = BridgeModel(MLP(2, 16, 1), Brownian())
    torch.nn.init.normal_(model.network.output_layer.weight, std=0.3)
    if kind == "teacher":
        x0, xT = torch.randn(2, 50, 2)
        run, stream = TeacherTraining(model, Settings(1e-2, average=0.9), device="cpu"), Shuffled(x0, xT, batch=16)
    else:
        settings = DistillationSettings(
            Settings(1e-2, average=0.9), Settings(1e-2, average=None), fake_updates=2, rollout=random_step
        )
        run = Distillation(model, Student.of(model, steps=2), settings=settings, device="cpu")
        stream = Draws(lambda n, generator: torch.randn(n, 2, generator=generator), 16)
    torch.manual_seed(1)
    updates = [record.update for record in checkpointed(run, stream, total, folder / "run.pt", every=1)]
    state = {"run": run.state_dict(), "stream": stream.state_dict(), "next": stream.__next__()}
    save_checkpoint(folder / "end.pt", {"state": state, "updates": updates, "random": torch.rand(3)})


def born(folder):
    child = os.fork()
    if child == 0:
        code = 1
        try:
            live(folder)
            code = 0
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            os._exit(code)
    return child


def parts(folder):
    return [name for name in os.listdir(folder) if name.endswith(".part")]


torch.optim.Adam([torch.zeros(1, requires_grad=True)])  # the first optimiser imports for seconds: once for all lives
for name in ("whole", "killed"):
    (folder / name).mkdir()
assert os.waitpid(born(folder / "whole"), 0)[1] == 0

chance, in_save = random.Random(0), 0
for life in range(8):
    old = seen = set(parts(folder / "killed"))
    child, saves = born(folder / "killed"), chance.randint(1, 4)
    while len(seen - old) < saves:  # at its first to fourth save, while the file is being written
        seen = seen | set(parts(folder / "killed"))
        assert not os.waitpid(child, os.WNOHANG)[0], "ended by itself"
    if life % 2:
        time.sleep(chance.uniform(0, 0.02))  # or at any moment
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    in_save += len(set(parts(folder / "killed")) - old)
assert os.waitpid(born(folder / "killed"), 0)[1] == 0
print(json.dumps({"killed_in_save": in_save}))
'''


def differences(one: object, other: object, where: str = "") -> list[str]:
    """Where two nested states are not equal to the bit."""
    if isinstance(one, torch.Tensor):
        return [] if one.dtype == other.dtype and torch.equal(one, other) else [where]  # type: ignore[attr-defined]
    if isinstance(one, dict):
        if one.keys() != other.keys():  # type: ignore[attr-defined]
            return [f"{where} keys"]
        return [d for key in one for d in differences(one[key], other[key], f"{where}.{key}")]  # type: ignore[index]
    if isinstance(one, (list, tuple)):
        if len(one) != len(other):  # type: ignore[arg-type]
            return [f"{where} length"]
        return [d for k, (x, y) in enumerate(zip(one, other, strict=True)) for d in differences(x, y, f"{where}.{k}")]  # type: ignore[call-overload]
    return [] if one == other else [where]


def told_by(source: str, *words: object) -> dict:
    """What a program prints as JSON, run in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", source, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


TOTAL = 250  # updates; far more than a busy machine lets a life make before it is killed


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.parametrize("kind", ["teacher", "distillation"])
def test_a_run_killed_again_and_again_ends_as_an_unbroken_one(tmp_path: Path, kind: str) -> None:
    told = told_by(LIVES, kind, tmp_path, TOTAL)
    assert told["killed_in_save"] >= 1, "none of eight was killed while saving"
    whole, killed = (load_checkpoint(tmp_path / name / "end.pt") for name in ("whole", "killed"))
    assert whole["updates"] == list(range(1, TOTAL + 1))
    assert len(killed["updates"]) < TOTAL, "the last life went on from a checkpoint"
    assert killed["updates"] == whole["updates"][TOTAL - len(killed["updates"]) :]
    assert differences(whole["state"], killed["state"]) == []
    assert torch.equal(whole["random"], killed["random"]), "torch's own random numbers go on as well"


def test_what_a_kill_while_saving_leaves_harms_nothing(tmp_path: Path) -> None:
    """A half-written file beside the checkpoint, as signal 9 leaves it: not read, and in nobody's way."""
    run = TeacherTraining(bridge_model(), device="cpu")
    points = torch.randn(20, 2)
    path = tmp_path / "run.pt"
    list(checkpointed(run, Shuffled(points, points, batch=8), 2, path, every=1))
    (tmp_path / ".run.pt.abc123.part").write_bytes(path.read_bytes()[:50])
    again = TeacherTraining(bridge_model(), device="cpu")
    assert [r.update for r in checkpointed(again, Shuffled(points, points, batch=8), 4, path, every=1)] == [3, 4]
    assert load_checkpoint(path)["run"]["update"] == 4


# Divergence.


def test_divergence_leaves_the_last_good_checkpoint(tmp_path: Path) -> None:
    """A weight of the loss that turns NaN at the fourth update, as a fault in a user's code would."""
    path = tmp_path / "run.pt"
    calls = itertools.count(1)
    points = torch.randn(20, 2)
    model = bridge_model()
    faulty = TeacherTraining(model, weight=lambda t: t * (math.nan if next(calls) == 4 else 1), device="cpu")
    with pytest.raises(Diverged, match="at update 4; the weights are those of update 3"):
        list(checkpointed(faulty, Shuffled(points, points, batch=8), 9, path, every=1))
    state = load_checkpoint(path)["run"]
    assert state["update"] == 3
    assert differences(state["learner"]["module"], model.state_dict()) == []
    assert all(value.isfinite().all() for value in state["learner"]["module"].values())
    sound = TeacherTraining(bridge_model(), device="cpu")
    assert [r.update for r in checkpointed(sound, Shuffled(points, points, batch=8), 5, path, every=1)] == [4, 5]


def test_divergence_of_a_distillation_names_the_update_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    teacher = bridge_model()
    student = Student.of(teacher)
    run = Distillation(teacher, student, device="cpu")
    stream = Draws(lambda n, random: torch.randn(n, 2, generator=random), 8)
    records = checkpointed(run, stream, 9, path, every=1)
    assert [next(records).update, next(records).update] == [1, 2]
    before = copy.deepcopy(student.state_dict())
    with torch.no_grad():
        run.fake.network.hidden[0].weight[0, 0] = math.nan
    with pytest.raises(Diverged, match="at update 3"):
        next(records)
    assert differences(before, student.state_dict()) == []
    assert load_checkpoint(path)["run"]["update"] == 2


def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.pt"
    save_checkpoint(path, {"n": 1})

    def full(state: dict, name: Path) -> None:
        Path(name).write_bytes(b"PK half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(path, {"n": 2})
    assert load_checkpoint(path) == {"n": 1}
    assert os.listdir(tmp_path) == ["run.pt"]


# A memory that is really full.

MEMORY = """
import json, resource, sys
from pathlib import Path

import torch

torch.set_num_threads(1)
from ibmd_lite.bridges import Brownian
from ibmd_lite.matching import TeacherTraining
from ibmd_lite.model import BridgeModel
from ibmd_lite.networks import MLP
from ibmd_lite.training import Shuffled, checkpointed

path, device = Path(sys.argv[1]), sys.argv[2]
points = torch.randn(4_000_000, 2)


def updates(total, batch):
    torch.manual_seed(0)
    run = TeacherTraining(BridgeModel(MLP(2, 64, 2), Brownian()), device=device)
    return [record.update for record in checkpointed(run, Shuffled(points, points, batch=batch), total, path, every=1)]


before = updates(2, 8)
if device == "cpu":
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + 500_000_000, resource.RLIM_INFINITY))
else:
    torch.cuda.set_per_process_memory_fraction(1e9 / torch.cuda.mem_get_info()[1])
try:
    updates(4, 4_000_000)  # a layer of it is a gigabyte
    told = None
except torch.OutOfMemoryError as error:
    told = str(error)
print(json.dumps({"before": before, "told": told, "after": updates(4, 8)}))
"""


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_memory_that_is_really_full_says_what_to_lower_and_costs_one_update(tmp_path: Path, device: str) -> None:
    if device == "cpu" and not Path("/proc/self/statm").exists():
        pytest.skip("limits the memory of a process by what /proc says, which this system has not")
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("fills the memory of a GPU, which this machine has not")
    told = told_by(MEMORY, tmp_path / "run.pt", device)
    assert "halve the batch and double Settings.accumulate" in told["told"]
    assert (told["before"], told["after"]) == ([1, 2], [3, 4])


# Broken, foreign and hostile files.


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_truncated_checkpoint_is_refused_wherever_it_breaks_off(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    save_checkpoint(path, {"run": bridge_model().state_dict(), "random": torch.get_rng_state()})
    whole = path.read_bytes()
    for length in [*range(0, 12), *range(12, len(whole), len(whole) // 40), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"run\.pt is no readable checkpoint .* delete it to start anew"):
            load_checkpoint(path)
    for other in (b"hello world", b"\x80\x04K", b"{}", b"\x00" * 500):
        path.write_bytes(other)
        with pytest.raises(ValueError, match="no readable checkpoint"):
            load_checkpoint(path)
    with pytest.raises(FileNotFoundError):
        load_checkpoint(tmp_path / "none.pt")


def test_a_truncated_checkpoint_stops_a_run_and_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    path.write_bytes(b"PK\x03\x04 half of it")
    run = TeacherTraining(bridge_model(), device="cpu")
    with pytest.raises(ValueError, match="no readable checkpoint"):
        checkpointed(run, Shuffled(torch.randn(9, 2), batch=3), 2, path, every=1)
    assert path.read_bytes() == b"PK\x03\x04 half of it"


class Hostile:
    """Unpickled, it would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("form", ["torch", "torch legacy", "pickle 2", "pickle 4"])
def test_code_in_a_checkpoint_is_never_run(tmp_path: Path, form: str) -> None:
    path, harm = tmp_path / "run.pt", tmp_path / "harm"
    state = {"run": {"update": 1}, "stream": Hostile(harm)}
    if form.startswith("torch"):
        torch.save(state, path, _use_new_zipfile_serialization=form == "torch")
    else:
        path.write_bytes(pickle.dumps(state, protocol=int(form[-1])))
    for _ in range(2):
        with pytest.raises(ValueError, match="no readable checkpoint"):
            load_checkpoint(path)
        assert not harm.exists()
    with pytest.raises(ValueError, match="no whole safetensors file"):
        read_weights(path)
    assert not harm.exists()
    torch.load(path, weights_only=False) if form.startswith("torch") else pickle.loads(path.read_bytes())
    assert harm.exists(), "the file is as hostile as it should be"


def test_truncated_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_weights(path, bridge_model())
    whole = path.read_bytes()
    for length in (0, 4, 8, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"x\.safetensors is no whole safetensors file"):
            load_weights(path, bridge_model())


def test_another_architecture_is_refused_by_its_keys(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_weights(path, bridge_model(16, 2))
    shallow = bridge_model(16, 1)
    before = copy.deepcopy(shallow.state_dict())
    with pytest.raises(ValueError, match=r"unexpected: network\.hidden\.1\.bias, network\.hidden\.1\.weight"):
        load_weights(path, shallow)
    with pytest.raises(ValueError, match=r"missing: network\.hidden\.2\.bias"):
        load_weights(path, bridge_model(16, 3))
    with pytest.raises(ValueError, match=r"of another shape: .*network\.input_layer\.weight \(16, 2\), here \(8, 2\)"):
        load_weights(path, bridge_model(8, 2))
    with pytest.raises(ValueError, match=r"missing: .*; unexpected: .* \.\.\."):
        load_weights(path, nn.Linear(2, 2))
    assert differences(before, shallow.state_dict()) == [], "a refusal changes nothing"


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    points = torch.randn(20, 2)
    list(
        checkpointed(TeacherTraining(bridge_model(), device="cpu"), Shuffled(points, points, batch=8), 1, path, every=1)
    )
    with pytest.raises(ValueError, match=r"another architecture.*network\.hidden\.0\.bias \(16,\), here \(8,\)"):
        checkpointed(
            TeacherTraining(bridge_model(8), device="cpu"), Shuffled(points, points, batch=8), 2, path, every=1
        )
    teacher = bridge_model()
    run = Distillation(teacher, Student.of(teacher), device="cpu")
    with pytest.raises(ValueError, match=r"the checkpoint is of another run: .*give another path"):
        checkpointed(run, Draws(lambda n, random: torch.randn(n, 2), 8), 2, path, every=1)
    plain = TeacherTraining(bridge_model(), Settings(average=None), device="cpu")
    with pytest.raises(ValueError, match="disagree on averaging"):
        checkpointed(plain, Shuffled(points, points, batch=8), 2, path, every=1)
    save_checkpoint(path, {"weights": torch.zeros(2)})
    with pytest.raises(ValueError, match="another kind of run"):
        checkpointed(TeacherTraining(bridge_model(), device="cpu"), Shuffled(points, points, batch=8), 2, path, every=1)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.ones(4, 4), r"mask must be \(4, 1\) .* got \(4, 4\)"),
        (torch.ones(4, 1, dtype=torch.bool), "mask must hold floats, 1 in the hole"),
        (torch.full((4, 1), math.nan), "mask must hold floats"),
        (torch.full((4, 1), 255.0), "mask must hold floats"),
    ],
)
def test_masks_that_would_spoil_the_known_are_refused(mask: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Student.of(bridge_model())(Source(torch.randn(4, 2), mask))


# What an import costs.

LIGHT = """
import sys

# not installed: all that is neither torch, jaxtyping nor theirs
absent = "scipy skimage sklearn matplotlib ot accelerate tqdm safetensors PIL IPython".split()
sys.modules.update(dict.fromkeys(absent))
import torch, jaxtyping
torch.set_num_threads(1)
before = set(sys.modules)
import ibmd_lite
import ibmd_lite.bridges, ibmd_lite.model, ibmd_lite.matching, ibmd_lite.sampling, ibmd_lite.distillation
new = {name.partition(".")[0] for name in set(sys.modules) - before} - sys.stdlib_module_names
assert new == {"ibmd_lite"}, new

from ibmd_lite.networks import MLP
teacher = ibmd_lite.model.BridgeModel(MLP(2, 8, 1), ibmd_lite.bridges.Brownian())
pairs = iter(lambda: (torch.randn(4, 2), torch.randn(4, 2)), None)
training = ibmd_lite.matching.TeacherTraining(teacher, device="cpu")
list(training.updates(pairs, 2))
student = ibmd_lite.distillation.Student.of(training.teacher)
run = ibmd_lite.distillation.Distillation(training.teacher, student, device="cpu")
list(run.updates(iter(lambda: torch.randn(4, 2), None), 1))
ibmd_lite.sampling.sample(training.teacher, torch.randn(4, 2), teacher.bridge.grid(2))
assert not any(sys.modules[name] for name in absent)
"""


def test_the_method_needs_torch_and_jaxtyping_alone() -> None:
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", LIGHT], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
