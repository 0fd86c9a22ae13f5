"""One large batch, its parts one after the other, and its parts in several processes are one training."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from together import started
from torch import Tensor, nn

from ibmd_lite.training import Learner, Settings, Shuffled, peak_memory

PAIRS = torch.linspace(-1, 1, 32).reshape(8, 4).sin()

PROCESS = """
import sys
from pathlib import Path

import torch
from ibmd_lite.bridges import Brownian
from ibmd_lite.distillation import Distillation, DistillationSettings, Student
from ibmd_lite.model import BridgeModel
from ibmd_lite.networks import MLP
from ibmd_lite.training import Draws, Learner, Settings, Shuffled, checkpointed, process, share

folder, stage, (number, count) = sys.argv[1], sys.argv[2:], process()
torch.set_num_threads(1)


def distil(name, total):
    torch.manual_seed(0)
    teacher = BridgeModel(MLP(2, 8, 1), Brownian())
    settings = DistillationSettings(generator=Settings(1e-3), fake=Settings(1e-3), fake_updates=1)
    run = Distillation(teacher, Student.of(teacher), settings=settings, device="cpu")
    sources = Draws(lambda n, generator: torch.randn(n, 2, generator=generator), 8)
    first = next(iter(sources))
    records = checkpointed(run, sources, total, f"{folder}/{name}.pt", every=2)
    seen = [run.update, next(iter(sources)), run.student_learner.randn((3,))] if stage else first
    for _ in records:
        pass
    return run.student.state_dict(), seen


if stage:  # another number of processes each time
    student, first = distil("moved", int(stage[0]))
    torch.save({"student": student, "seen": first, "random": torch.rand(3)}, f"{folder}/moved-{count}-{number}.pt")
    torch.distributed.destroy_process_group() if count > 1 else None
    sys.exit()
torch.manual_seed(number)  # different weights, until the learner gives both those of the first
module = torch.nn.Linear(4, 1)
pairs = torch.linspace(-1, 1, 32).reshape(8, 4).sin()
learner = Learner(module, Settings(0.05, average=0.5), "cpu")
start = {name: value.clone() for name, value in module.state_dict().items()}
stream, values = Shuffled(pairs, batch=share(8), seed=3), []
for n in range(1, 5):
    values.append(learner.step(lambda: module(next(stream)).square().mean(), n))
noise = learner.randn((3,))

student, first = distil("run", 2)
whole = distil("whole", 6)[0]
distil("cut", 4)
if number == 1:  # killed when the first process had saved its fourth update and the second had not
    Path(f"{folder}/cut.pt.1.before").replace(f"{folder}/cut.pt.1")
try:
    refused = share(7)
except ValueError as error:
    refused = str(error)
torch.save(
    {"parts": (share(8), refused),
     "start": start, "end": module.state_dict(), "values": values, "noise": noise, "first": first,
     "student": student, "whole": whole, "resumed": distil("cut", 6)[0]}, f"{folder}/{number}.pt",
)
torch.distributed.destroy_process_group()
"""


@pytest.fixture(scope="module", params=[2, 4])
def ends(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """What so many processes end with."""
    folder, count = tmp_path_factory.mktemp("processes"), request.param
    started(PROCESS, folder, count)
    assert {path.name for path in folder.glob("run.pt*")} == {"run.pt", *(f"run.pt.{n}" for n in range(1, count))}
    return [torch.load(folder / f"{number}.pt", weights_only=True) for number in range(count)]


def trained(start: dict[str, Tensor], accumulate: int) -> tuple[nn.Module, list[float]]:
    module = nn.Linear(4, 1)
    module.load_state_dict(start)
    learner = Learner(module, Settings(0.05, average=0.5, accumulate=accumulate), "cpu")
    stream = Shuffled(PAIRS, batch=8 // accumulate, seed=3)
    return module, [learner.step(lambda: module(next(stream)).square().mean(), n) for n in range(1, 5)]


def test_processes_train_as_one_with_the_batch_of_all(ends: list[dict]) -> None:
    alone, values = trained(ends[0]["start"], 1)
    assert values[0] > 1.5 * values[-1], "so that something was learned"
    for one in ends:
        assert one["values"] == pytest.approx(values, rel=1e-5)
        for name, value in alone.state_dict().items():
            torch.testing.assert_close(one["end"][name], value, rtol=1e-5, atol=1e-6)


def test_processes_hold_the_same_weights_to_the_bit_and_draw_their_own_noise(ends: list[dict]) -> None:
    first, *others = ends
    for part in ("start", "end", "student", "whole"):
        for other in others:
            assert all(torch.equal(value, other[part][name]) for name, value in first[part].items())
    for part in ("noise", "first"):
        assert len({one[part].flatten()[0].item() for one in ends}) == len(ends)


def test_a_batch_is_shared_alike_or_not_at_all(ends: list[dict]) -> None:
    for one in ends:
        assert one["parts"][0] == 8 // len(ends)
        assert f"{len(ends)} processes cannot share a batch of 7" in one["parts"][1]


def test_processes_cut_between_their_saves_go_on_from_the_update_that_all_have(ends: list[dict]) -> None:
    for one in ends:
        assert all(torch.equal(value, one["resumed"][name]) for name, value in one["whole"].items())


def test_a_run_goes_on_with_more_processes_and_with_fewer(tmp_path: Path) -> None:
    reached, drawn = 0, []
    for count, total in ((2, 2), (4, 4), (1, 6), (2, 8)):  # the last time there are files of two processes, but old
        started(PROCESS, tmp_path, count, total)
        ends = [torch.load(tmp_path / f"moved-{count}-{number}.pt", weights_only=True) for number in range(count)]
        for end in ends:
            update, batch, noise = end["seen"]
            assert update == reached, "from where the others ended"
            assert all(torch.equal(value, end["student"][name]) for name, value in ends[0]["student"].items())
            drawn += [batch.flatten(), noise, *([end["random"]] if reached else [])]  # at first as the script seeds it
        reached = total
    first = [draw[0].item() for draw in drawn]
    assert len({*first}) == len(first), "no process draws what another draws, or drew before"


@pytest.mark.parametrize("parts", [2, 4])
def test_accumulated_batches_train_as_one(parts: int) -> None:
    torch.manual_seed(0)
    start = nn.Linear(4, 1).state_dict()
    whole, values = trained(start, 1)
    piecewise, found = trained(start, parts)
    assert found == pytest.approx(values, rel=1e-5)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(piecewise.state_dict()[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("parts", [0, 1.5])
def test_parts_of_a_batch_are_counted(parts: float) -> None:
    with pytest.raises(ValueError, match="accumulate must be a whole number of batches"):
        Settings(accumulate=parts)  # type: ignore[arg-type]


def test_a_full_memory_says_what_to_lower() -> None:
    module = nn.Linear(4, 1)
    learner = Learner(module, Settings(), "cpu")

    def too_much() -> Tensor:
        raise torch.OutOfMemoryError("tried to allocate 20 GiB")

    with pytest.raises(torch.OutOfMemoryError, match=r"halve the batch and double Settings\.accumulate"):
        learner.step(too_much, 1)
    learner.step(lambda: module(PAIRS).square().mean(), 1)  # and it can go on


@pytest.mark.parametrize("words", ["DefaultCPUAllocator: can't allocate memory", "MPS backend out of memory"])
def test_a_full_memory_of_any_device_is_told_alike(words: str) -> None:
    learner = Learner(nn.Linear(4, 1), Settings(), "cpu")

    def fails(message: str) -> Tensor:
        raise RuntimeError(message)

    with pytest.raises(torch.OutOfMemoryError, match="halve the batch"):
        learner.step(lambda: fails(words), 1)
    with pytest.raises(torch.OutOfMemoryError, match="halve the batch"):
        learner.step(lambda: torch.empty(2**55).sum(), 1)  # more than any machine has
    with pytest.raises(RuntimeError, match="shapes") as caught:
        learner.step(lambda: fails("shapes do not fit"), 1)
    assert not isinstance(caught.value, torch.OutOfMemoryError), "another fault stays what it is"


def test_the_peak_of_memory_grows_with_what_is_held() -> None:
    before = peak_memory()
    held = torch.ones(int(2e8 / 4))
    assert peak_memory() >= before
    assert peak_memory() > held.numel() * 4


def test_the_processes_package_is_not_needed_alone() -> None:
    code = "import sys, ibmd_lite.training as t; assert t.process() == (0, 1); assert 'accelerate' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path.cwd()).returncode == 0
