"""Students and models as files: the same answers as torch for the same draws, and nothing written where not."""

import copy
import json
from itertools import pairwise

import pytest
import torch
from torch import nn

from ibmd_lite.bridges import I2SB, Brownian, ResShift
from ibmd_lite.export import OnnxModel, draws, export_onnx, export_program
from ibmd_lite.model import BridgeModel, I2SBNoise, Source
from ibmd_lite.networks import MLP, UNet
from ibmd_lite.sampling import sample
from ibmd_lite.student import Student
from ibmd_lite.teachers import Pulled


def random(network):
    """Its weights are drawn, so that no answer is zero, and the noise inputs' too."""
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2, generator=generator)
    return network


def from_seed(student, source, seed):
    """What the student answers, and the draws that make it."""
    source = Source.of(source)
    answer = student(source, generator=torch.Generator().manual_seed(seed))
    return answer, draws(student, source.xT, torch.Generator().manual_seed(seed))


def largest(got, expected):
    return (got - expected).abs().max().item()


@pytest.fixture(scope="module")
def pictures():
    """A one-step student of a small U-Net and its file with weights of half precision."""
    teacher = BridgeModel(UNet(width=4, multipliers=(1,), patch=2), Brownian(0.1), prediction=I2SBNoise())
    return random(Student.of(teacher))


@pytest.fixture(scope="module")
def exported(pictures, tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "student.onnx"
    example = torch.rand(1, 3, 8, 8) * 2 - 1
    before = [parameter.clone() for parameter in pictures.parameters()]
    written = export_onnx(pictures, path, example, half_weights=True, licence="CC0")
    assert all(torch.equal(x, y) for x, y in zip(before, pictures.parameters(), strict=True)), "it left them alone"
    return written


@pytest.fixture(scope="module")
def points(tmp_path_factory):
    """Two steps, not pinned at xT, conditional, with labels, a task and a mask: every input and every draw there is."""
    network = MLP(3, width=8, depth=1, conditional=True, labels=4, tasks=2)
    teacher = BridgeModel(network, ResShift(steps=6), conditional=True)
    student = random(Student.of(teacher, steps=2, noise_channels=2))
    xT = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    source = Source(xT, mask=torch.tensor([[1.0], [0], [1], [0], [1]]), label=torch.tensor([0, 1, 2, 3, 0]), task=1)
    path = tmp_path_factory.mktemp("export") / "points.onnx"
    return student, source, export_onnx(student, path, source)


def test_any_batch_and_any_size_are_answered_as_in_torch(pictures, exported):
    model = OnnxModel.read(exported.path)
    rounded = copy.deepcopy(pictures).half().float()
    for shape in ((1, 3, 8, 8), (3, 3, 6, 14), (2, 3, 20, 4)):
        xT = torch.rand(shape) * 2 - 1
        expected, z = from_seed(rounded, xT, 3)
        assert largest(model(xT=xT, z=z), expected) <= 1e-4
    assert exported.difference <= 1e-4


def test_weights_of_half_precision_are_half_the_bytes_and_the_rounding_is_told(pictures, exported, tmp_path):
    import onnx

    stored = onnx.load(exported.path).graph.initializer
    kinds = {x.data_type for x in stored if len(x.raw_data) > 200}
    assert kinds == {onnx.TensorProto.FLOAT16}
    xT = torch.rand(1, 3, 8, 8) * 2 - 1
    assert 0 < exported.rounding < 0.01
    expected, z = from_seed(pictures, xT, 0)
    assert largest(OnnxModel.read(exported.path)(xT=xT, z=z), expected) > 1e-6, "the weights were rounded"


def test_a_program_reads_from_the_file_what_it_needs(exported):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(exported.path), providers=["CPUExecutionProvider"])
    about = json.loads(session.get_modelmeta().custom_metadata_map["about"])
    assert about == exported.about
    assert about["kind"] == "student"
    assert about["grid"] == [1.0, 0.0]
    assert about["bridge"] == {"name": "Brownian", "eps": 0.1, "T": 1.0}
    assert about["multiple"] == 2
    assert about["values"] == [-1.0, 1.0]
    assert about["licence"] == "CC0"
    assert about["inputs"]["xT"]["shape"] == ["batch", 3, "height", "width"]
    assert [x.name for x in session.get_inputs()] == list(about["inputs"]) == ["xT", "z"]
    assert [x.name for x in session.get_outputs()] == [about["output"]["name"]] == ["x0"]


def test_the_file_names_no_place_on_this_machine(exported):
    assert b".py" not in exported.path.read_bytes()


def test_every_input_and_every_draw_in_the_documented_order(points):
    student, source, written = points
    model = OnnxModel.read(written.path)
    assert written.about["inputs"]["z"]["shape"] == ["batch", 3 + 2 + 3 + 2]
    assert written.about["inputs"]["label"]["classes"] == 4
    assert written.about["hole"] == "noise"
    expected, z = from_seed(student, source, 7)
    given = {"xT": source.xT, "mask": source.mask, "label": source.label}
    assert largest(model(**given, z=z), expected) <= 1e-5
    for name, x in given.items():
        moved = {"label": (x + 1) % 4, "mask": 1 - x}.get(name, x + 1)
        assert largest(model(**given | {name: moved}, z=z), expected) > 1e-3, f"{name} matters"
    for channel in range(z.shape[1]):
        other = z.clone()
        other[:, channel] += 1
        assert largest(model(**given, z=other), expected) > 1e-4, f"draw {channel} matters"
    known = source.mask[:, 0] == 0
    assert torch.equal(model(**given, z=z)[known], source.xT[known])


def test_a_teacher_walks_outside_of_torch(tmp_path):
    """On a bridge of tables; xt and xT differ by a capital alone."""
    teacher = random(BridgeModel(MLP(2, width=8, depth=1, conditional=True), I2SB(n=20), conditional=True))
    xT = torch.randn(4, 2, generator=torch.Generator().manual_seed(2))
    written = export_onnx(teacher, tmp_path / "teacher.onnx", xT)
    model, grid, xt = OnnxModel.read(written.path), teacher.bridge.grid(5), xT
    assert list(written.about["inputs"]) == ["xt", "t", "xT"]
    noise = torch.randn(4, 4, 2, generator=torch.Generator().manual_seed(3))
    for step, (t, s) in enumerate(pairwise(grid)):
        from_xt, from_x0, std = (weight.item() for weight in teacher.bridge.posterior(t, s))
        xt = from_xt * xt + from_x0 * model(xt=xt, t=t.float().repeat(4), xT=xT)
        xt = xt + std * noise[step] if step < 4 else xt
    assert largest(xt, sample(teacher, xT, grid, noise=noise).x0) <= 1e-5


def test_a_program_of_torch_answers_the_same(points, tmp_path):
    student, source, _ = points
    written = export_program(student, tmp_path / "student.pt2", source)
    extra = {"about.json": ""}
    program = torch.export.load(written.path, extra_files=extra)
    expected, z = from_seed(student, source, 7)
    answer = program.module()(xT=source.xT, z=z, mask=source.mask, label=source.label)
    assert largest(answer, expected) <= 1e-6
    assert json.loads(extra["about.json"]) == written.about


class Branching(nn.Module):
    """Decides by values."""

    def forward(self, xt, time):
        return xt if bool(xt.sum() > 0) else -xt


class Forgetful(nn.Module):
    """Answers otherwise the second time: a graph holds but one answer."""

    calls = 0

    def forward(self, xt, time):
        self.calls += 1
        return self.calls * xt


@pytest.mark.parametrize(
    ("network", "told"), [(Branching(), "cannot follow Branching"), (Forgetful(), "differ from torch's by up to")]
)
def test_what_a_graph_cannot_keep_is_refused_and_not_written(network, told, tmp_path, capfd):
    model = BridgeModel(network, Brownian())
    with pytest.raises(ValueError, match=told):
        export_onnx(model, tmp_path / "model.onnx", torch.ones(3, 2))
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", ""), "the error says it all"


def test_wrong_arguments_are_refused_with_what_to_do(pictures, tmp_path):
    path, xT = tmp_path / "x.onnx", torch.zeros(1, 3, 8, 8)
    with pytest.raises(TypeError, match="a Student or a BridgeModel is exported, got UNet"):
        export_onnx(UNet(width=4), path, xT)
    with pytest.raises(TypeError, match=r"weights in float32 are exported, got torch\.float64"):
        export_onnx(BridgeModel(MLP().double(), Brownian()), path, xT.double())
    with pytest.raises(TypeError, match=r"the example must be float32, got torch\.float64"):
        export_onnx(pictures, path, xT.double())
    with pytest.raises(ValueError, match="the first to be smaller"):
        export_onnx(pictures, path, xT, values=(1.0, 0.0))
    with pytest.raises(ValueError, match="takes xT of 3 channels"):
        export_onnx(pictures, path, xT[:, :1])
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., 2:5, 2:5] = 1
    for hole, example, told in [
        ("grey", Source(xT, mask=mask), "hole is 'grey'; expected 'noise' or 'zeros'"),
        ("zeros", xT, "speaks of a mask, and the example has none"),
        ("zeros", Source(xT + mask, mask=mask), "the example has other numbers in its holes.*hole='noise'"),
        ("noise", Source(xT + 1 - mask, mask=mask), "the example has zeros in its holes.*hole='zeros'"),
    ]:
        with pytest.raises(ValueError, match=told):
            export_onnx(pictures, path, example, hole=hole)
    big = BridgeModel(MLP(2, width=4, depth=1), Brownian())
    big.network.output_layer.weight.data.fill_(1e5)
    with pytest.raises(ValueError, match="beyond float16's 65504; export it without half_weights"):
        export_onnx(big, path, torch.zeros(2, 2), half_weights=True)
    assert not path.exists()


def test_a_file_of_another_kind_or_inputs_that_do_not_fit_are_told(points, tmp_path):
    _, source, written = points
    with pytest.raises(FileNotFoundError, match="no exported student"):
        OnnxModel.read(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("no graph")
    with pytest.raises(ValueError, match="is no ONNX file that onnxruntime can run"):
        OnnxModel.read(tmp_path / "text.onnx")
    model = OnnxModel.read(written.path)
    with pytest.raises(ValueError, match="takes xT, z, mask, label; got xT"):
        model(xT=source.xT)
    with pytest.raises(ValueError, match="do not fit this file"):
        model(xT=source.xT, z=source.xT, mask=source.mask, label=source.label)


def test_a_student_without_noise_takes_xT_alone():
    student = Student.of(BridgeModel(MLP(width=8, depth=1), Brownian()), noise_channels=0)
    assert draws(student, torch.zeros(2, 2)) is None


def test_a_model_that_changes_its_networks_answer_is_refused(tmp_path):
    network = MLP(2, 8, 1, conditional=True)
    pulled = Pulled(BridgeModel(network, Brownian(), conditional=True), 0.5)
    with pytest.raises(TypeError, match="a Pulled answers otherwise than its network; export a student"):
        export_onnx(pulled, tmp_path / "pulled.onnx", Source(torch.randn(2, 2)))
