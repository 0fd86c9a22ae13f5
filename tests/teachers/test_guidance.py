"""Guided teachers: against exact Gaussians, in sampling and in distillation, and what is refused."""

import copy
from dataclasses import replace

import pytest
import torch
from couplings import line
from torch import nn

from ibmd_lite.bridges import VP, Brownian
from ibmd_lite.data import CentreHole, Inpainting, Photographs, SuperResolution
from ibmd_lite.distillation import Distillation, DistillationSettings, Student, ibmd_loss
from ibmd_lite.gaussian import GaussianCoupling
from ibmd_lite.matching import TeacherTraining
from ibmd_lite.model import BBDM, DDBM, X0, BridgeModel, I2SBNoise, Source
from ibmd_lite.networks import MLP, UNet
from ibmd_lite.sampling import Markov, sample
from ibmd_lite.teachers import ADM, Architecture, DiffusersUNet, build
from ibmd_lite.teachers.guidance import GuidedNetwork, LabelDropout, Labelled, guided, passes
from ibmd_lite.training import Draws, Settings

NULL = 2


def coupling(m: float, tau: float = 0.8) -> GaussianCoupling:
    return GaussianCoupling(0.6, m, tau, 0.0, 1.69)


CLASSES = [coupling(1.0), coupling(-0.5), coupling(0.2)]  # the last is what the null label stands for
SPREAD = [coupling(1.0, 0.4), coupling(-0.5, 0.9), coupling(0.2, 1.2)]


class PlainTime:
    """Any prediction type, with t itself for its time."""

    def __init__(self, inner):
        self.inner = inner

    def scalings(self, bridge, t):
        return self.inner.scalings(bridge, t)._replace(time=t)


class Perfect(nn.Module):
    """The network of a perfect teacher that knows labels: each has a Gaussian coupling of its own."""

    def __init__(self, truths, bridge, prediction):
        super().__init__()
        self.truths, self.bridge, self.prediction, self.batches = truths, bridge, prediction, []

    def forward(self, xt, time, xT=None, *, label):
        self.batches.append(len(xt))
        skip, out, scale, _ = (w[:, None] for w in self.prediction.scalings(self.bridge, time))
        state = xt / scale
        x0 = torch.zeros_like(state)
        for number, truth in enumerate(self.truths):
            x0 = torch.where(label[:, None] == number, truth.posterior_mean(self.bridge, state, time, xT), x0)
        return (x0 - skip * state) / out


def perfect(truths, bridge, conditional=True, prediction=None):
    prediction = PlainTime(prediction or X0())
    return BridgeModel(Perfect(truths, bridge, prediction), bridge, conditional=conditional, prediction=prediction)


def some(n=64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    xt, xT = 1.3 * torch.randn(2, n, 1, generator=generator, dtype=torch.float64)
    t = 0.02 + 0.96 * torch.rand(n, generator=generator, dtype=torch.float64)
    return xt, xT, t, torch.randint(NULL, (n,), generator=generator)


# The answer


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("prediction", [X0(), I2SBNoise(), BBDM(), DDBM()], ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("bridge", [Brownian(0.7), VP()], ids=str)
def test_the_guided_answer_is_the_extrapolated_mean(bridge, prediction, conditional):
    xt, xT, t, label = some()
    given = {"xT": xT} if conditional else {}
    model = guided(perfect(SPREAD, bridge, conditional, prediction), 2.5, null=NULL)
    without = SPREAD[NULL].posterior_mean(bridge, xt, t, **given)
    told = torch.where(label[:, None] == 0, *(SPREAD[k].posterior_mean(bridge, xt, t, **given) for k in range(2)))
    torch.testing.assert_close(model(xt, t, label=label, **given), without + 2.5 * (told - without))


@pytest.mark.parametrize(("weight", "same"), [(1.0, None), (0.0, NULL)])
def test_weight_one_is_the_plain_teacher_and_zero_the_unlabelled_one(weight, same):
    xt, xT, t, label = some()
    plain = perfect(SPREAD, VP(), prediction=DDBM())
    expected = plain(xt, t, xT, label=label if same is None else torch.full_like(label, same))
    torch.testing.assert_close(guided(plain, weight, null=NULL)(xt, t, xT, label=label), expected)


def test_the_null_label_is_not_guided():
    xt, xT, t, label = some()
    label = torch.full_like(label, NULL)
    plain = perfect(SPREAD, VP())
    assert torch.equal(guided(plain, 3.0, null=NULL)(xt, t, xT, label=label), plain(xt, t, xT, label=label))


def test_the_gradient_reaches_xt_through_both_answers():
    xt, xT, t, label = some()
    bridge = Brownian(0.7)
    xt.requires_grad_()
    guided(perfect(SPREAD, bridge), 2.5, null=NULL)(xt, t, xT, label=label).sum().backward()
    gains = torch.stack([truth.denoiser(bridge, t, conditional=True).from_xt[:, 0, 0] for truth in SPREAD])
    own = gains.gather(0, label[None])[0]
    torch.testing.assert_close(xt.grad[:, 0], gains[NULL] + 2.5 * (own - gains[NULL]))


# Walks


def test_a_walk_of_equal_spreads_ends_at_the_extrapolated_mean_with_that_spread():
    """Where label and null differ in the mean alone, guidance moves the mean and nothing else."""
    bridge, steps = Brownian(0.7), 60
    model, n = guided(perfect(CLASSES, bridge), 2.0, null=NULL), 4000
    source = Source(torch.full((n, 1), 0.5, dtype=torch.float64), label=torch.zeros(n, dtype=torch.long))
    result = sample(model, source, bridge.grid(steps), generator=torch.Generator().manual_seed(0))
    moved = coupling(0.2 + 2.0 * (1.0 - 0.2))
    limit = moved.sampled(bridge, bridge.grid(steps), conditional=True)
    mean = (limit.A @ torch.tensor([0.5], dtype=torch.float64) + limit.m).item()
    assert mean == pytest.approx(0.6 * 0.5 + 1.8, abs=1e-9)
    assert result.x0.mean().item() == pytest.approx(mean, abs=4 * 0.8 / n**0.5)
    assert result.x0.std().item() == pytest.approx(limit.tau.item(), rel=4 / (2 * n) ** 0.5)


def test_a_wider_null_makes_the_walk_narrower_than_the_class():
    """The price: at w = 2 less than the spread of the class is left, at w = 1 all of it."""
    bridge, spreads = Brownian(0.7), {}
    source = Source(torch.zeros(3000, 1, dtype=torch.float64), label=torch.zeros(3000, dtype=torch.long))
    for weight in (1.0, 2.0):
        model = guided(perfect(SPREAD, bridge), weight, null=NULL)
        draws = sample(model, source, bridge.grid(60), generator=torch.Generator().manual_seed(1))
        spreads[weight] = draws.x0.std().item()
    plain = SPREAD[0].sampled(bridge, bridge.grid(60), conditional=True).tau.item()
    assert spreads[1.0] == pytest.approx(plain, rel=4 / 6000**0.5)
    assert spreads[2.0] < 0.8 * spreads[1.0]


def test_a_call_is_counted_once_and_is_two_passes_in_one_batch():
    plain = perfect(CLASSES, VP())
    model = guided(plain, 2.0, null=NULL)
    source = Source(torch.zeros(5, 1, dtype=torch.float64), label=torch.zeros(5, dtype=torch.long))
    result = sample(model, source, VP().grid(7), Markov())
    assert result.nfe == 7
    assert plain.network.batches == [10] * 7
    assert passes(model) * result.nfe == sum(plain.network.batches) / 5
    assert passes(plain) == 1


# Distillation


@pytest.mark.parametrize("m", [1.8, 1.0])
def test_the_gap_is_zero_at_the_guided_mean_and_known_elsewhere(m):
    """With equal spreads the guided teacher is the bridge matching solution of the moved mean: a student gets there."""
    bridge, (_, xT, t, label) = VP(), some()
    student = [coupling(m), coupling(0.2 + 2 * (-0.5 - 0.2) + m - 1.8), CLASSES[NULL]]
    x0 = torch.where(label[:, None] == 0, *(0.6 * xT + student[k].m for k in range(2))) + 0.8 * some(seed=1)[0]
    teacher, fake = guided(perfect(CLASSES, bridge), 2.0, null=NULL), perfect(student, bridge)
    losses = ibmd_loss(teacher, fake, x0, Source(xT, label=label), t)
    _, b, _ = bridge.coefficients(t)
    gain = line().denoiser(bridge, t, conditional=True).from_xt[:, 0, 0]  # of any coupling with this spread
    expected = (((1 - b * gain) * (1.8 - m)) ** 2).mean()
    torch.testing.assert_close(losses.gap, expected, rtol=1e-9, atol=1e-12)


def test_the_gradient_of_the_loss_reaches_the_student_through_xt():
    bridge, (x0, xT, t, label) = VP(), some()
    teacher, fake = guided(perfect(SPREAD, bridge), 2.0, null=NULL), perfect(CLASSES, bridge)
    source, noise = Source(xT, label=label), some(seed=2)[0]
    x0.requires_grad_()
    ibmd_loss(teacher, fake, x0, source, t, noise=noise).loss.backward()
    with torch.no_grad():
        xt = bridge.sample(x0, xT, t, noise)
        errors = [model(xt, t, xT, label=label) - x0 for model in (teacher, fake)]
        b = bridge.coefficients(t)[1]
        gains = torch.stack([truth.denoiser(bridge, t, conditional=True).from_xt[:, 0, 0] for truth in SPREAD])
        own = gains.gather(0, label[None])[0]
        plain = CLASSES[0].denoiser(bridge, t, conditional=True).from_xt[:, 0, 0]
        slopes = [b * (gains[NULL] + 2 * (own - gains[NULL])) - 1, b * plain - 1]
        expected = sum(sign * 2 * e * k[:, None] for sign, e, k in zip((1, -1), errors, slopes, strict=True)) / len(t)
    torch.testing.assert_close(x0.grad, expected)


def trained_table(network):
    """Rows as training leaves them: not zero."""
    with torch.no_grad():
        network.conditions.tables["label"].weight.normal_(generator=torch.Generator().manual_seed(0))
    return network


def small(labels=3):
    torch.manual_seed(0)
    network = trained_table(MLP(2, 16, 2, conditional=True, labels=labels))
    nn.init.normal_(network.output_layer.weight, std=0.1)
    return BridgeModel(network, Brownian(), conditional=True)


def test_a_distillation_with_the_guidance_baked_in():
    """The teacher is guided, fake and student are not: both are told labels, neither ever the null one."""
    plain = small()
    teacher = guided(plain, 2.0, null=NULL)
    student = Student.of(plain)
    before = copy.deepcopy(plain.state_dict())
    run = Distillation(
        teacher, student, fake=copy.deepcopy(plain), settings=DistillationSettings(fake_updates=2), device="cpu"
    )

    def draw(n, generator):
        return Source(torch.randn(n, 2, generator=generator), label=torch.randint(NULL, (n,), generator=generator))

    record = next(run.updates(Draws(draw, 16), 1))
    assert record.gap > 0
    rows = {
        name: model.network.conditions.tables["label"].weight
        for name, model in {"student": run.student_learner.module.model, "fake": run.fake}.items()
    }
    old = before["network.conditions.tables.label.weight"]
    for name, table in rows.items():
        assert not torch.equal(table[:NULL], old[:NULL]), f"the {name} learned nothing of the labels"
        assert torch.equal(table[NULL], old[NULL]), f"the {name} was told the null label"
    assert all(torch.equal(value, before[name]) for name, value in plain.state_dict().items())
    assert passes(run.student.model) == 1
    assert run.student(draw(3, None)).shape == (3, 2)


def test_a_student_of_a_guided_model_is_sent_to_the_unguided_one():
    with pytest.raises(ValueError, match="For a student, take the unguided teacher"):
        Student.of(guided(small(), 2.0, null=NULL))


def test_the_fake_by_default_is_guided_and_learns():
    teacher = guided(small(), 2.0, null=NULL)
    run = Distillation(teacher, Student.of(small()), device="cpu")
    assert passes(run.fake) == 2
    xT, label = torch.randn(8, 2), torch.zeros(8, dtype=torch.long)
    assert next(run.updates(iter([Source(xT, label=label)] * 6), 1)).fake_loss > 0


def test_a_guided_model_is_saved_and_read_again(tmp_path):
    model = guided(small(), 2.0, null=NULL).eval()
    model.save(tmp_path / "guided.safetensors")
    again = BridgeModel.load(tmp_path / "guided.safetensors", GuidedNetwork(copy.deepcopy(small().network), 2.0, NULL))
    xt, t, label = torch.randn(4, 2), torch.rand(4), torch.tensor([0, 1, 0, 1])
    assert torch.equal(again(xt, t, xt, label=label), model(xt, t, xt, label=label))


# Pairs with labels


def test_labels_belong_to_their_images():
    pairs = Labelled(Photographs(16), SuperResolution(8, "pool"))
    x0, source = pairs.draw(40, torch.Generator().manual_seed(3))
    same, label = Photographs(16).draw(40, torch.Generator().manual_seed(3))
    assert torch.equal(x0, same)
    assert torch.equal(source.label, label)
    assert torch.equal(source.xT, SuperResolution(8, "pool")(x0))
    assert torch.equal(pairs.sources(40, torch.Generator().manual_seed(3)).label, label)


def test_a_source_with_a_mask_keeps_it():
    _, source = Labelled(Photographs(16), Inpainting(CentreHole())).draw(3, torch.Generator().manual_seed(0))
    assert source.mask is not None
    assert source.label.shape == (3,)


def test_a_share_of_the_labels_is_dropped_and_nothing_else_changes():
    pairs = Labelled(Photographs(8), SuperResolution(8, "pool"))
    x0, source = LabelDropout(pairs.draw, null=8, share=0.2)(2000, torch.Generator().manual_seed(0))
    kept_x0, kept = pairs.draw(2000, torch.Generator().manual_seed(0))
    assert torch.equal(x0, kept_x0)
    assert torch.equal(source.xT, kept.xT)
    lost = source.label == 8
    assert lost.float().mean().item() == pytest.approx(0.2, abs=0.03)
    assert torch.equal(source.label[~lost], kept.label[~lost])
    assert len(kept.label[lost].unique()) == 8, "every class loses some"


def test_a_teacher_trained_with_dropout_knows_both_means():
    """x0 is -1 or 1 by the label and xT says nothing: told, the answer is the label's; untold, 0."""

    def draw(n, generator):
        label = torch.randint(2, (n,), generator=generator)
        x0 = (2.0 * label - 1)[:, None].expand(n, 2)
        return x0, Source(torch.zeros(n, 2), label=label)

    torch.manual_seed(0)
    training = TeacherTraining(
        BridgeModel(MLP(2, 32, 1, labels=3), Brownian()), Settings(1e-2, average=0.9), device="cpu"
    )
    for _ in training.updates(Draws(LabelDropout(draw, null=NULL, share=0.3), 64), 150):
        pass
    at_T = torch.full((3,), 1.0)
    with torch.no_grad():
        answers = training.teacher(torch.zeros(3, 2), at_T, label=torch.tensor([0, 1, 2])).mean(1)
        loud = guided(training.teacher, 2.0, null=NULL)(torch.zeros(2, 2), at_T[:2], label=torch.tensor([0, 1])).mean(1)
    torch.testing.assert_close(answers, torch.tensor([-1.0, 1.0, 0.0]), atol=0.15, rtol=0)
    torch.testing.assert_close(loud, torch.tensor([-2.0, 2.0]), atol=0.3, rtol=0)


# What is refused


def test_a_null_label_that_was_never_trained_is_refused():
    network = UNet(3, 8, (1,), labels=9)
    with torch.no_grad():
        network.conditions.tables["label"].weight[:8].normal_()
    with pytest.raises(ValueError, match="the null label 8 was never trained"):
        guided(BridgeModel(network, Brownian()), 2.0, null=8)


@pytest.mark.parametrize("labels", [0, 8])
def test_networks_of_other_hands_without_a_null_label_are_refused(labels):
    """As DBIM's published teacher, whose labels are all classes."""
    shape = Architecture(32, (1,), 1, (), head=32, labels=labels)
    for network in (ADM(shape), nn.Sequential(ADM(shape))):
        with pytest.raises(ValueError, match=r"labels=classes \+ 1"):
            guided(BridgeModel(network, Brownian()), 2.0, null=8)
    if labels:
        assert passes(guided(BridgeModel(ADM(shape), Brownian()), 2.0, null=7)) == 2


def test_a_published_teacher_has_no_null_label():
    """Its 1000 labels are ImageNet's classes."""
    with torch.device("meta"):
        network = build("dbim-inpaint-center", width=32, multipliers=(1,), attention=(), head=32)
    with pytest.raises(ValueError, match="null is 1000, but the network knows 0 to 999"):
        guided(BridgeModel(network, Brownian(), conditional=True), 2.0, null=1000)


def test_a_unet_of_diffusers_without_a_null_label_is_refused():
    diffusers = pytest.importorskip("diffusers")
    kinds = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",), "block_out_channels": (32,)}
    for labels in (None, 8):
        unet = diffusers.UNet2DModel(sample_size=8, num_class_embeds=labels, add_attention=False, **kinds)
        with pytest.raises(ValueError, match=r"labels=classes \+ 1"):
            guided(BridgeModel(DiffusersUNet(unet), Brownian()), 2.0, null=8)


def test_bad_models_and_weights_are_refused():
    plain = small()
    with pytest.raises(TypeError, match="a BridgeModel is guided, got MLP"):
        guided(plain.network, 2.0, null=NULL)
    for weight in (-0.5, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="expected a number of at least 0"):
            guided(plain, weight, null=NULL)
    with pytest.raises(ValueError, match="null is 3, but the network knows 0 to 2"):
        guided(plain, 2.0, null=3)
    for null in (-1, 2.0, True):
        with pytest.raises(ValueError, match="expected a label, a whole number"):
            guided(plain, 2.0, null=null)
    with pytest.raises(ValueError, match="guided already, with weight 2"):
        guided(guided(plain, 2.0, null=NULL), 2.0, null=NULL)
    with pytest.raises(ValueError, match="made with labels=0"):
        guided(BridgeModel(MLP(2, 16, 1), Brownian()), 2.0, null=0)
    with pytest.raises(ValueError, match="a guided model needs labels"):
        sample(guided(plain, 2.0, null=NULL), torch.zeros(3, 2), Brownian().grid(2))


def test_bad_pairs_are_refused():
    pairs = Labelled(Photographs(8), SuperResolution(8, "pool"))
    with pytest.raises(TypeError, match=r"expected an object with draw\(n, generator\)"):
        Labelled(torch.zeros(3), SuperResolution(8, "pool"))
    with pytest.raises(TypeError, match="expected a function"):
        LabelDropout(pairs, null=8)
    for share in (0.0, 1.0):
        with pytest.raises(ValueError, match="expected a number between 0 and 1"):
            LabelDropout(pairs.draw, null=8, share=share)
    with pytest.raises(ValueError, match="null=3 is the label of a class"):
        LabelDropout(pairs.draw, null=3)(200, torch.Generator().manual_seed(0))

    def bare(n, generator):
        x0, source = pairs.draw(n, generator)
        return x0, replace(source, label=None)

    with pytest.raises(ValueError, match="has no labels to drop"):
        LabelDropout(bare, null=8)(4)
