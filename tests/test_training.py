"""What both trainings share: settings, the step, the average, precision, streams, weights on disk."""

from __future__ import annotations

import copy
import itertools
import math
import os
import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from ibmd_lite.bridges import VP, Brownian
from ibmd_lite.distillation import Distillation, DistillationSettings, Student
from ibmd_lite.matching import TeacherTraining, matching_loss
from ibmd_lite.model import DDBM, BridgeModel
from ibmd_lite.networks import MLP
from ibmd_lite.training import (
    Diverged,
    Draws,
    Learner,
    Settings,
    Shuffled,
    best_device,
    checkpointed,
    frozen,
    load_checkpoint,
    load_weights,
    progress,
    read_weights,
    save_checkpoint,
    save_weights,
)
from ibmd_lite.training.files import writing


def line(seed: int = 0) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(3, 2)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"learning_rate": 1.5}, "learning_rate"),
        ({"learning_rate": math.nan}, "learning_rate"),
        ({"clip": 0.0}, "clip"),
        ({"clip": math.nan}, "clip"),
        ({"average": 1.0}, "average"),
        ({"average": -0.1}, "average"),
        ({"precision": "half"}, "precision"),
    ],
)
def test_settings_refuse(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=rf"{message}.*got"):
        Settings(**wrong)


def test_a_step_is_adam() -> None:
    """Three steps against Adam written out (Kingma and Ba 2015), with the gradient clipped to norm 1."""
    module = line()
    learner = Learner(module, Settings(0.1, betas=(0.5, 0.9), clip=1.0, average=None), "cpu")
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    w = module.weight.detach().double().clone()
    b = module.bias.detach().double().clone()
    first, second = [torch.zeros_like(w), torch.zeros_like(b)], [torch.zeros_like(w), torch.zeros_like(b)]
    norms = []
    for n in range(1, 4):
        value = learner.step(lambda: 10 * module(x).square().sum(), n)
        y = x.double() @ w.T + b
        assert value == pytest.approx(10 * y.square().sum().item(), rel=1e-5)
        gradients = [20 * y.T @ x.double(), 20 * y.sum(0)]
        norm = math.sqrt(sum(g.square().sum().item() for g in gradients))
        norms.append(norm)
        for k, (p, g) in enumerate(zip((w, b), gradients, strict=True)):
            g = g / max(norm, 1.0)
            first[k] = 0.5 * first[k] + 0.5 * g
            second[k] = 0.9 * second[k] + 0.1 * g**2
            p -= 0.1 * (first[k] / (1 - 0.5**n)) / ((second[k] / (1 - 0.9**n)).sqrt() + 1e-8)
    assert min(norms) > 1, "so that clipping was at work"
    torch.testing.assert_close(module.weight.double(), w, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(module.bias.double(), b, rtol=1e-4, atol=1e-5)


def test_clip_acts_once_and_none_means_none() -> None:
    """Adam forgets the scale of its first gradient, so the second step shows it: one large gradient, one small."""
    ends = []
    for clip in (1.0, None):
        module = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(module.weight)
        learner = Learner(module, Settings(0.1, betas=(0.9, 0.999), clip=clip, average=None), "cpu")
        learner.step(lambda module=module: 1000 * module.weight.sum(), 1)
        learner.step(lambda module=module: 0.5 * module.weight.sum(), 2)
        ends.append(module.weight.item())
    m1, v1 = 0.1 * 1.0, 0.001 * 1.0
    clipped = -0.1 - 0.1 * ((0.9 * m1 + 0.1 * 0.5) / (1 - 0.81)) / math.sqrt(
        (0.999 * v1 + 0.001 * 0.25) / (1 - 0.998001)
    )
    assert ends[0] == pytest.approx(clipped, rel=1e-4)
    m1, v1 = 0.1 * 1000, 0.001 * 1e6
    free = -0.1 - 0.1 * ((0.9 * m1 + 0.1 * 0.5) / (1 - 0.81)) / math.sqrt((0.999 * v1 + 0.001 * 0.25) / (1 - 0.998001))
    assert ends[1] == pytest.approx(free, rel=1e-4)


def test_average_is_the_recursion() -> None:
    module = line()
    learner = Learner(module, Settings(0.05, average=0.8), "cpu")
    by_hand = None
    for n in range(1, 6):
        learner.step(lambda: module(torch.ones(4, 3)).square().mean(), n)
        now = module.weight.detach().double()
        by_hand = now.clone() if by_hand is None else 0.8 * by_hand + 0.2 * now
    torch.testing.assert_close(learner.averaged.weight.double(), by_hand, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(learner.averaged.weight, module.weight, atol=1e-3)
    assert learner.averaged is not module
    assert not learner.averaged.training
    assert not any(p.requires_grad for p in learner.averaged.parameters())
    assert Learner(module, Settings(average=None), "cpu").averaged is module


def test_a_step_leaves_no_gradient_behind() -> None:
    module = line()
    Learner(module, Settings(), "cpu").step(lambda: module(torch.ones(4, 3)).square().mean(), 1)
    assert all(p.grad is None for p in module.parameters())


class Broken(torch.autograd.Function):
    """The identity, whose gradient is infinite."""

    @staticmethod
    def forward(ctx: object, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: object, gradient: torch.Tensor) -> torch.Tensor:
        return gradient * math.inf


@pytest.mark.parametrize("fault", ["nan loss", "inf loss", "inf gradient", "nan gradient"])
@pytest.mark.parametrize("clip", [1.0, None])
def test_divergence_stops_before_the_weights_change(fault: str, clip: float | None) -> None:
    module = line()
    learner = Learner(module, Settings(0.0321, clip=clip), "cpu")
    learner.step(lambda: module(torch.ones(4, 3)).square().mean(), 1)
    before = copy.deepcopy(learner.state_dict())
    loss = module(torch.ones(4, 3)).square().mean()
    loss = {
        "nan loss": loss * math.nan,
        "inf loss": loss * math.inf,
        "inf gradient": Broken.apply(loss),
        "nan gradient": Broken.apply(loss) - Broken.apply(loss),  # inf - inf
    }[fault]
    with pytest.raises(Diverged, match=r"at update 7; the weights are those of update 6.*0\.0321"):
        learner.step(lambda: loss, 7)
    after = learner.state_dict()
    for part in ("module", "average"):
        assert all(torch.equal(value, after[part][name]) for name, value in before[part].items())
    for k, slot in before["optimiser"]["state"].items():
        assert all(torch.equal(value, after["optimiser"]["state"][k][name]) for name, value in slot.items())
    learner.step(lambda: module(torch.ones(4, 3)).square().mean(), 7)  # and it can go on
    assert all(p.isfinite().all() for p in module.parameters())


def test_frozen_is_for_parameters_alone_and_ends() -> None:
    module, fixed = line(), line(1)
    fixed.bias.requires_grad_(False)
    x = torch.ones(4, 3, requires_grad=True)

    def fail_inside() -> None:
        with frozen(module, fixed):
            assert not any(p.requires_grad for p in (*module.parameters(), *fixed.parameters()))
            (module(x) + fixed(x)).square().sum().backward()
            raise KeyError

    with pytest.raises(KeyError):
        fail_inside()
    assert x.grad is not None
    assert bool((x.grad != 0).any())
    assert all(p.grad is None for p in (*module.parameters(), *fixed.parameters()))
    assert module.weight.requires_grad
    assert fixed.weight.requires_grad
    assert not fixed.bias.requires_grad, "what was frozen before stays frozen"


def test_nothing_to_train_is_refused() -> None:
    with pytest.raises(ValueError, match="no parameter to train"):
        Learner(line().requires_grad_(False), Settings(), "cpu")


def test_best_device_prefers_an_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    for cuda, mps, expected in [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")]:
        monkeypatch.setattr(torch.cuda, "is_available", lambda cuda=cuda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda mps=mps: mps)
        assert best_device().type == expected


def test_precision_follows_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = Learner(line(), Settings(), "cpu")
    assert learner.dtype == torch.float32
    for capability, expected in [((9, 0), torch.bfloat16), ((7, 5), torch.float16)]:
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, capability=capability: capability)
        fake = SimpleNamespace(device=torch.device("cuda"))
        assert Learner._dtype(fake, "auto") == expected  # type: ignore[arg-type]
        assert Learner._dtype(fake, "float32") == torch.float32  # type: ignore[arg-type]


def bridge_model(conditional: bool = False, width: int = 16) -> BridgeModel:
    torch.manual_seed(0)
    network = MLP(2, width, 1, conditional)
    nn.init.normal_(network.output_layer.weight, std=0.2)
    return BridgeModel(network, Brownian(), conditional=conditional)


def test_autocast_runs_the_network_in_bfloat16_and_the_loss_in_float32() -> None:
    model = bridge_model()
    learner = Learner(model, Settings(precision="bfloat16"), "cpu")
    seen = []
    model.network.output_layer.register_forward_hook(lambda _m, _i, output: seen.append(output.dtype))
    x0, xT = torch.randn(2, 64, 2, generator=torch.Generator().manual_seed(0))
    t, noise = torch.linspace(0, 1, 64), torch.zeros(64, 2)
    with learner.autocast():
        loss = matching_loss(model, x0, xT, t, noise=noise)
    assert seen == [torch.bfloat16]
    assert loss.dtype == torch.float32
    # 8 bits of mantissa: the outputs move by 2^-9 or so, the loss by the same share
    exact = matching_loss(model, x0, xT, t, noise=noise)
    assert loss.item() == pytest.approx(exact.item(), rel=1e-2)
    assert loss.item() != exact.item()
    learner.step(lambda: loss, 1)
    assert all(p.dtype == torch.float32 for p in model.parameters())


@pytest.mark.parametrize("steps", [1, 3])
def test_autocast_distils_every_weight(steps: int) -> None:
    """A student of several steps runs first without gradient: casts cached there must not cut the last step off."""
    moved = []
    for precision in ("float32", "bfloat16"):
        teacher = bridge_model()
        student = Student.of(teacher, steps=steps)
        before = copy.deepcopy(student.state_dict())
        settings = DistillationSettings(
            generator=Settings(1e-3, precision=precision, average=None),  # type: ignore[arg-type]
            fake=Settings(1e-3, precision=precision, average=None),  # type: ignore[arg-type]
            fake_updates=1,
        )
        run = Distillation(teacher, student, settings=settings, device="cpu")
        list(run.updates(itertools.repeat(torch.ones(16, 2)), 2))
        moved.append({name for name, value in student.state_dict().items() if not torch.equal(value, before[name])})
    assert moved[0] == moved[1] == set(before)


def test_float16_is_scaled_and_a_step_that_overflows_is_skipped() -> None:
    module = line()
    learner = Learner(module, Settings(precision="float16", average=None), "cpu")
    assert learner.scaler.is_enabled()
    scale, before = learner.scaler.get_scale(), module.weight.detach().clone()
    learner.step(lambda: Broken.apply(module(torch.ones(4, 3)).float().square().mean()), 1)
    assert torch.equal(module.weight, before)
    assert learner.scaler.get_scale() == scale / 2
    learner.step(lambda: module(torch.ones(4, 3)).float().square().mean(), 2)
    assert not torch.equal(module.weight, before)
    with pytest.raises(Diverged, match="at update 3"):  # a loss of NaN is no matter of scale
        learner.step(lambda: module(torch.ones(4, 3)).float().square().mean() * math.nan, 3)


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """`Module.compile` without a C++ compiler: graphs are captured as ever and run as they are; counts their calls."""
    calls: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: list) -> object:
        def run(*args: torch.Tensor) -> object:
            calls.append(1)
            return graph.forward(*args)

        return run

    def compile_module(self: nn.Module) -> None:
        self._compiled_call_impl = torch.compile(self._call_impl, backend=backend)

    monkeypatch.setattr(nn.Module, "compile", compile_module)
    torch._dynamo.reset()
    return calls


@pytest.mark.filterwarnings("ignore::Warning")  # the tracer looks at everything, deprecated things too
def test_compile_reaches_every_network(compiled: list[int]) -> None:
    """Generator and fake are called in both fake updates (L=2) and in the generator's, the teacher in that alone."""
    ends, counts = [], []
    for generator, fake in ((False, False), (True, False), (False, True)):
        teacher = bridge_model(width=8)
        settings = DistillationSettings(
            generator=Settings(1e-3, average=0.5, compile=generator),
            fake=Settings(1e-3, average=None, compile=fake),
            fake_updates=2,
        )
        student = Student.of(teacher)
        run = Distillation(teacher, student, settings=settings, device="cpu")
        compiled.clear()
        list(run.updates(itertools.repeat(torch.ones(8, 2)), 1))
        counts.append(len(compiled))
        ends.append(student.state_dict())
    assert counts[0] == 0
    assert min(counts[1:]) >= 3, counts
    assert counts[1] == counts[2] + 1, "the teacher is compiled with the generator"
    for end in ends[1:]:
        assert ends[0].keys() == end.keys(), "compiling renames no weight"
        for name, value in ends[0].items():
            torch.testing.assert_close(end[name], value, rtol=1e-4, atol=1e-5)


def test_draws_are_fresh_repeatable_and_put_back() -> None:
    def make() -> Draws:
        return Draws(lambda n, random: torch.randn(n, 2, generator=random), 4, seed=3)

    stream = make()
    first = [next(stream) for _ in range(3)]
    assert len({x.sum().item() for x in first}) == 3
    assert all(torch.equal(x, y) for x, y in zip(first, make(), strict=False))
    state = copy.deepcopy(stream.state_dict())
    ahead = next(stream)
    stream.load_state_dict(state)
    assert torch.equal(next(stream), ahead)
    with pytest.raises(ValueError, match="at least one sample, got 0"):
        Draws(lambda n, random: n, 0)


def test_shuffled_shows_every_row_once_an_epoch_and_is_put_back() -> None:
    rows = torch.arange(12.0)
    stream = Shuffled(rows, -rows, batch=4, seed=1)
    epochs = [[next(stream) for _ in range(3)] for _ in range(2)]
    for epoch in epochs:
        assert torch.equal(torch.cat([x for x, _ in epoch]).sort().values, rows)
        assert all(torch.equal(x, -y) for x, y in epoch), "rows stay together"
    assert not torch.equal(epochs[0][0][0], epochs[1][0][0]), "a new order"
    next(stream)  # in the middle of an epoch
    state = copy.deepcopy(stream.state_dict())
    ahead = [next(stream)[0] for _ in range(4)]
    other = Shuffled(rows, -rows, batch=4, seed=9)
    other.load_state_dict(state)
    assert all(torch.equal(next(other)[0], x) for x in ahead)
    assert torch.equal(next(Shuffled(rows, batch=12)).sort().values, rows), "a lone tensor yields tensors"
    with pytest.raises(ValueError, match=r"lengths \[12, 3\]"):
        Shuffled(rows, rows[:3], batch=2)
    with pytest.raises(ValueError, match="between 1 and the 12 samples"):
        Shuffled(rows, batch=13)


def test_progress_passes_records_on(capsys: pytest.CaptureFixture) -> None:
    records = [SimpleNamespace(update=n, loss=n / 7) for n in (1, 2, 3)]
    assert list(progress(records, 3, "teacher")) == records
    shown = capsys.readouterr().out
    assert "teacher" in shown
    assert "3/3" in shown
    assert "0.4286" in shown
    assert re.search(r"peak of memory \d+\.\d GiB", shown)


def test_the_rate_of_a_resumed_run_is_its_own(capsys: pytest.CaptureFixture) -> None:
    def records() -> Iterator[SimpleNamespace]:
        for update in range(3001, 3011):
            time.sleep(0.01)
            yield SimpleNamespace(update=update, loss=0.0)

    list(progress(records(), 3010, "teacher"))
    last = capsys.readouterr().out.rpartition("\r")[2]
    assert "3010/3010" in last
    assert float(re.search(r"([\d.]+)it/s", last)[1]) <= 100, "ten updates of a hundredth of a second"


def test_writing_is_all_or_nothing(tmp_path: Path) -> None:
    path = tmp_path / "new" / "weights"
    with writing(path) as temporary:
        temporary.write_text("old")
        assert not path.exists(), "nothing under the name before it is whole"

    def interrupted() -> None:
        with writing(path) as temporary:
            temporary.write_text("half of the n")
            assert path.read_text() == "old"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert [file.name for file in path.parent.iterdir()] == ["weights"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_writing_reaches_the_disk_before_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flushed to the disk, then moved: else a power cut could leave an empty file under the good name."""
    order, fsync, move = [], os.fsync, os.replace
    sizes = []

    def spy_fsync(handle: int) -> None:
        sizes.append(os.fstat(handle).st_size)
        order.append("fsync")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append("replace"), move(a, b)))
    with writing(tmp_path / "x") as temporary:
        temporary.write_bytes(b"12345")
    assert order[:2] == ["fsync", "replace"]
    assert sizes[0] == 5


def test_weights_round_trip_with_their_description(tmp_path: Path) -> None:
    path = tmp_path / "teacher.safetensors"
    model = bridge_model(conditional=True)
    about = {"bridge": "Brownian", "eps": 0.1 + 0.2, "nested": {"steps": [1, 2]}}
    save_weights(path, model, about)
    other = bridge_model(conditional=True)
    nn.init.zeros_(other.network.output_layer.weight)
    assert load_weights(path, other) == about
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items())
    assert read_weights(path)[0] == about
    save_weights(path, model)
    assert read_weights(path)[0] == {}
    with pytest.raises(FileNotFoundError, match="no weights at"):
        read_weights(tmp_path / "none")


def test_a_failed_save_keeps_the_old_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import safetensors.torch

    path, model = tmp_path / "x.safetensors", bridge_model()
    save_weights(path, model)
    whole = path.read_bytes()

    def fail(_model: nn.Module, name: str, **_: object) -> None:
        Path(name).write_bytes(whole[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_model", fail)
    with pytest.raises(OSError, match="No space left"):
        save_weights(path, model)
    assert path.read_bytes() == whole
    assert os.listdir(tmp_path) == ["x.safetensors"]


def test_checkpoints_hold_what_a_run_is_made_of(tmp_path: Path) -> None:
    state = {"n": 3, "x": 0.1, "none": None, "name": "a", "list": [torch.arange(3)], "random": torch.get_rng_state()}
    save_checkpoint(tmp_path / "c", state)
    back = load_checkpoint(tmp_path / "c")
    assert torch.equal(back.pop("random"), state.pop("random"))
    assert torch.equal(back.pop("list")[0], state.pop("list")[0])
    assert back == state


def make_run() -> tuple[TeacherTraining, Shuffled]:
    training = TeacherTraining(bridge_model(), Settings(1e-2, average=0.9), device="cpu")
    points = torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
    return training, Shuffled(points, points + 1, batch=16)


def test_checkpointed_saves_on_time_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    run, stream = make_run()
    saved = []
    for record in checkpointed(run, stream, 7, path, every=3):
        saved.append(load_checkpoint(path)["run"]["update"] if path.exists() else 0)
        assert record.update == len(saved)
    assert saved == [0, 0, 3, 3, 3, 6, 7], "every third, and the last"
    run, stream = make_run()
    assert [record.update for record in checkpointed(run, stream, 9, path, every=3)] == [8, 9]
    run, stream = make_run()
    assert list(checkpointed(run, stream, 9, path, every=3)) == []
    with pytest.raises(ValueError, match="every must be at least 1"):
        checkpointed(run, stream, 9, path, every=0)
    with pytest.raises(TypeError, match=r"training\.Draws or training\.Shuffled"):
        checkpointed(run, [], 9, path, every=1)


def test_a_resumed_run_takes_the_new_learning_rate(tmp_path: Path) -> None:
    """`Diverged` says to lower it: the one in the checkpoint must not win."""
    run, stream = make_run()
    list(checkpointed(run, stream, 2, tmp_path / "c", every=1))
    slow = TeacherTraining(bridge_model(), Settings(1e-12, average=0.9), device="cpu")
    _, stream = make_run()
    records = checkpointed(slow, stream, 3, tmp_path / "c", every=1)
    before = copy.deepcopy(slow.model.state_dict())
    list(records)
    for name, value in slow.model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=1e-9)


def test_learner_state_carries_average_and_random_numbers() -> None:
    learner = Learner(line(), Settings(0.1, average=0.5), "cpu")
    learner.step(lambda: learner.module(torch.ones(1, 3)).square().sum(), 1)
    state = copy.deepcopy(learner.state_dict())
    other = Learner(line(5), Settings(0.1, average=0.5, seed=4), "cpu")
    other.load_state_dict(state)
    assert torch.equal(other.randn((5,)), learner.randn((5,)))
    for one in (learner, other):
        one.step(lambda one=one: one.module(torch.ones(1, 3)).square().sum(), 2)
    assert torch.equal(other.module.weight, learner.module.weight)
    assert torch.equal(other.averaged.weight, learner.averaged.weight)
    with pytest.raises(ValueError, match="disagree on averaging"):
        Learner(line(), Settings(average=None), "cpu").load_state_dict(state)


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("steps", [1, 3])
def test_students_are_saved_and_loaded(tmp_path: Path, conditional: bool, steps: int) -> None:
    torch.manual_seed(0)
    network = MLP(2, 16, 1, conditional)
    nn.init.normal_(network.output_layer.weight)
    teacher = BridgeModel(network, VP(beta_d=1.7), conditional=conditional, prediction=DDBM(0.7, 0.1))
    student = Student.of(teacher, steps=steps, noise_channels=3)
    with torch.no_grad():
        for p in student.parameters():
            p.add_(0.1 * torch.randn_like(p))
    path = tmp_path / "student.safetensors"
    student.save(path)
    back = Student.load(path, MLP(2, 16, 1, conditional))
    assert back.model.bridge == teacher.bridge
    assert back.model.prediction == DDBM(0.7, 0.1)
    assert back.model.conditional is conditional
    assert (back.nfe, back.noise_channels, back.channels) == (steps, 3, 2)
    assert torch.equal(back.grid, student.grid)
    assert not back.training
    xT = torch.randn(6, 2)
    ours, theirs = (one(xT, generator=torch.Generator().manual_seed(1)) for one in (student, back))
    assert torch.equal(ours, theirs)


def test_student_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_weights(path, bridge_model())
    with pytest.raises(ValueError, match="holds no student"):
        Student.load(path, MLP(2, 16, 1))
    Student.of(bridge_model()).save(path)
    with pytest.raises(ValueError, match=r"another architecture.*of another shape: model\.network\.hidden\.0\.bias"):
        Student.load(path, MLP(2, 32, 1))
    with pytest.raises(ValueError, match=r"missing: model\.network\.hidden\.1\.bias"):
        Student.load(path, MLP(2, 16, 2))
