"""Networks in shares of several processes train as whole ones do, and each process holds its share alone."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from together import started
from torch import Tensor, nn

from ibmd_lite.distillation import Distillation, DistillationSettings, Student
from ibmd_lite.model import BridgeModel
from ibmd_lite.networks import MLP
from ibmd_lite.training import Draws, Learner, Settings, checkpointed
from ibmd_lite.training.sharding import shard

PROCESS = """
import sys

import torch
from ibmd_lite.bridges import Brownian
from ibmd_lite.distillation import Distillation, DistillationSettings, Student, through_chain
from ibmd_lite.matching import TeacherTraining
from ibmd_lite.model import BridgeModel
from ibmd_lite.networks import MLP
from ibmd_lite.training import Diverged, Draws, Learner, Settings, checkpointed, process, whole
from ibmd_lite.training.sharding import gathered
from torch.profiler import ProfilerActivity, profile

folder, (number, count) = sys.argv[1], process()
torch.set_num_threads(1)


def settings(shard, accumulate=1):
    return Settings(1e-2, average=0.5, accumulate=accumulate, shard=shard)


def pairs(n, generator):
    return torch.randn(n, 2, generator=generator), torch.randn(n, 2, generator=generator)


def teacher(shard):
    torch.manual_seed(number)  # different weights, until all have those of the first
    training = TeacherTraining(BridgeModel(MLP(2, 16, 2), Brownian()), settings(shard, 2), device="cpu")
    losses = [record.loss for record in training.updates(Draws(pairs, 4), 3)]
    return training, losses


def distil(shard, of, path, total):
    both = DistillationSettings(settings(shard), settings(shard, 2), fake_updates=2, rollout=through_chain)
    run = Distillation(of, Student.of(of, steps=2), settings=both, device="cpu")
    sources = Draws(lambda n, generator: torch.randn(n, 2, generator=generator), 4)
    for _ in checkpointed(run, sources, total, f"{folder}/{path}.pt", every=1):
        pass
    return run


def messages(shard, accumulate):
    layer = torch.nn.Linear(4, 4)
    learner = Learner(layer, settings(shard, accumulate), "cpu")
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        learner.step(lambda: layer(torch.ones(2, 4)).square().mean(), 1)
    return {one.key: one.count for one in seen.key_averages() if one.key.startswith("c10d::")}


def told(what):
    try:
        return str(what())
    except (ValueError, Diverged) as error:
        return str(error)


def nan_in_the_first():
    layer = torch.nn.Linear(4, 4)
    learner = Learner(layer, settings(True), "cpu")
    before = gathered(learner.state_dict())["module"]
    said = told(lambda: learner.step(lambda: layer(torch.full((2, 4), torch.nan if number == 0 else 1.0)).sum(), 1))
    return said, all(torch.equal(a, b) for a, b in zip(before.values(), learner.state_dict()["module"].values()))


def elements(tensors):
    return sum((t.to_local() if hasattr(t, "to_local") else t).numel() for t in tensors)


def held(run):
    found = {}
    for name, learner in (("student", run.student_learner), ("fake", run.fake_learner)):
        moments = [value for kept in learner.optimiser.state.values() for name, value in kept.items() if name != "step"]
        average = learner.average.module.parameters()
        found |= {name: elements(learner.parameters), f"{name}'s average": elements(average)}
        found |= {f"{name}'s moments": elements(moments)}
    return found | {"teacher": elements(run.teachers[None].parameters())}


plain, in_shares = teacher(False), teacher(True)
end = {"losses": (plain[1], in_shares[1]),
       "teachers": (plain[0].state_dict(), in_shares[0].state_dict())}
of = whole(in_shares[0].teacher)
distil(False, whole(of), "moved", 2)
distil(True, in_shares[0].teacher, "begun", 2)
kept = whole(in_shares[0].teacher)
runs = [distil(False, of, "whole", 4), distil(True, in_shares[0].teacher, "shares", 4),
        distil(True, kept, "moved", 4)]
end["runs"] = [run.state_dict() for run in runs]
end["held"] = [held(run) for run in runs]
end["messages"] = {(shard, accumulate): messages(shard, accumulate) for shard in (False, True) for accumulate in (1, 3)}
end["told"] = [told(lambda: runs[1].student.save(f"{folder}/refused.safetensors")),
               told(lambda: Learner(runs[1].student, settings(True), "cpu")), *nan_in_the_first()]
student = whole(runs[1].student)
if number == 0:  # alone
    of.save(f"{folder}/teacher.safetensors")
    student.save(f"{folder}/student.safetensors")
    end["answer"] = student(torch.ones(3, 2), generator=torch.Generator().manual_seed(0))
torch.save(end, f"{folder}/{number}.pt")
torch.distributed.destroy_process_group()
"""


@pytest.fixture(scope="module", params=[2, 4])
def ends(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict]]:
    """Where so many processes left their files, and what each of them ends with."""
    folder = tmp_path_factory.mktemp("shares")
    started(PROCESS, folder, request.param)
    return folder, [torch.load(folder / f"{number}.pt", weights_only=True) for number in range(request.param)]


def alike(one: Any, other: Any) -> None:
    """Two nested states are equal but for rounding."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one:
            alike(one[name], other[name])
    elif isinstance(one, Tensor) and one.is_floating_point():
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_a_teacher_in_shares_trains_as_a_whole_one(ends: tuple[Path, list[dict]]) -> None:
    for end in ends[1]:
        plain, shares = end["losses"]
        assert len({*plain}) == 3
        assert shares == pytest.approx(plain, rel=1e-5)
        alike(*end["teachers"])


def test_a_distillation_in_shares_is_the_same_one(ends: tuple[Path, list[dict]]) -> None:
    for end in ends[1]:
        whole, shares, _ = end["runs"]
        alike(whole, shares)
        kept = shares["student"]["average"], ends[1][0]["runs"][1]["student"]["average"]
        assert all(torch.equal(value, kept[1][name]) for name, value in kept[0].items()), "one network"


@pytest.mark.parametrize("run", [1, 2])  # of a teacher in shares, and of a whole one
def test_each_process_holds_its_share_alone(ends: tuple[Path, list[dict]], run: int) -> None:
    whole, shares = ([end["held"][place] for end in ends[1]] for place in (0, run))
    count = len(shares)
    for what, elements in whole[0].items():
        assert sum(one[what] for one in shares) == elements, "of every weight the shares are the whole"
        assert max(one[what] for one in shares) < 1.1 * elements / count


def test_what_whole_networks_began_goes_on_in_shares(ends: tuple[Path, list[dict]]) -> None:
    for end in ends[1]:
        alike(end["runs"][0], end["runs"][2])


def test_what_several_began_in_shares_one_ends_alone(ends: tuple[Path, list[dict]]) -> None:
    folder, (first, *_) = ends
    teacher = BridgeModel.load(folder / "teacher.safetensors", MLP(2, 16, 2))
    both = Settings(1e-2, average=0.5)
    settings = DistillationSettings(generator=both, fake=both, fake_updates=2)
    run = Distillation(teacher, Student.of(teacher, steps=2), settings=settings, device="cpu")
    sources = Draws(lambda n, generator: torch.randn(n, 2, generator=generator), 4)
    records = checkpointed(run, sources, 6, folder / "shares.pt", every=10)
    assert run.update == 4
    alike(run.state_dict()["fake"]["optimiser"], first["runs"][1]["fake"]["optimiser"])
    alike(run.state_dict()["student"]["average"], first["runs"][1]["student"]["average"])
    assert [record.update for record in records] == [5, 6]


def test_what_is_saved_loads_alone(ends: tuple[Path, list[dict]]) -> None:
    folder, (first, *_) = ends
    student = Student.load(folder / "student.safetensors", MLP(2, 16, 2))
    answer = student(torch.ones(3, 2), generator=torch.Generator().manual_seed(0))
    assert torch.equal(answer, first["answer"])


def test_shares_are_refused_where_a_whole_is_needed(ends: tuple[Path, list[dict]]) -> None:
    for end in ends[1]:
        saved, trained, diverged, unchanged = end["told"]
        assert "save training.whole(module)" in saved
        assert "give training.whole(module)" in trained
        assert "the loss became nan" in diverged, "in all processes, if in one"
        assert unchanged
    assert not (ends[0] / "refused.safetensors").exists()


def test_gradients_travel_once_an_update(ends: tuple[Path, list[dict]]) -> None:
    for end in ends[1]:
        for accumulate in (1, 3):
            assert end["messages"][False, accumulate] == {"c10d::allreduce_": 1}
            assert end["messages"][True, accumulate]["c10d::_reduce_scatter_base_"] == 1


def test_alone_nothing_is_shared_out() -> None:
    states = []
    for shares in (False, True):
        torch.manual_seed(0)
        module = nn.Linear(4, 1)
        learner = Learner(module, Settings(0.05, average=0.5, shard=shares), "cpu")
        learner.step(lambda module=module: module(torch.ones(2, 4)).square().mean(), 1)
        states.append(learner.state_dict())
    for part in ("module", "average"):
        assert all(torch.equal(value, states[1][part][name]) for name, value in states[0][part].items())


def test_a_torch_that_cannot_share_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ibmd_lite.training.sharding.process", lambda: (0, 2))
    monkeypatch.setitem(sys.modules, "torch.distributed.fsdp", None)
    with pytest.raises(ImportError, match=r"sharding needs torch\.distributed\.fsdp\.fully_shard, of torch 2\.6"):
        shard(nn.Linear(4, 1), torch.device("cpu"))
