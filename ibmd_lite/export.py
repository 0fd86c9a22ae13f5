"""Students and models leave torch: graphs whose random draws are inputs, checked against torch when written.

Lives here: ``export_onnx`` and ``export_program``, which write one; ``draws``, the normals that a student would have
drawn itself; ``OnnxModel``, which runs an ONNX file without any of this package's networks.
Imports torch, ``model``, ``student``, the condition tables of the networks and the training files.  onnx, onnxscript
and onnxruntime load when used.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import io
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ibmd_lite import __version__
from ibmd_lite.model import BridgeModel, Source
from ibmd_lite.networks.embedding import Conditions
from ibmd_lite.student import Student
from ibmd_lite.training.files import writing

if TYPE_CHECKING:
    from onnx import ModelProto
    from onnxruntime import InferenceSession
    from torch.onnx import ONNXProgram

__all__ = ["Exported", "OnnxModel", "draws", "export_onnx", "export_program"]

Inputs = dict[str, Tensor]
Hole = Literal["noise", "zeros"]


@dataclass(frozen=True)
class Exported:
    """A file that was written, after its answers were compared with torch's.

    difference: the largest, over the example and over another batch of another size.  rounding: how much the answers
    to the example moved when the weights were rounded to float16; 0 where they were not.  about: what the file says
    of itself.
    """

    path: Path
    difference: float
    rounding: float
    about: dict[str, Any]


@dataclass(frozen=True, eq=False)
class OnnxModel:
    """An ONNX file of ``export_onnx``, run by onnxruntime: ``model(xT=xT, z=z) -> x0``, tensors in, a tensor out.

    ``about`` is what the file says of itself, ``about["inputs"]`` its inputs by name.
    """

    session: InferenceSession
    about: dict[str, Any]

    @classmethod
    def read(cls, path: str | os.PathLike, *, threads: int | None = None) -> OnnxModel:
        """Open a file.  threads: of one call, torch's number by default.

        Raises FileNotFoundError, and ValueError for a file that ``export_onnx`` did not write.
        """
        onnxruntime = _imported("onnxruntime")
        if not Path(path).is_file():
            raise FileNotFoundError(f"no exported student or model at {path}")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads() if threads is None else threads
        options.log_severity_level = 3  # errors only: what it says of its optimiser is no concern of the caller
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            told = session.get_modelmeta().custom_metadata_map["about"]
        except KeyError:
            raise ValueError(f"{path} does not say what it is; write it with ibmd_lite.export.export_onnx") from None
        except Exception as error:  # onnxruntime has a kind for each fault
            raise ValueError(f"{path} is no ONNX file that onnxruntime can run: {_first_line(error)}") from error
        return cls(session, json.loads(told))

    def __call__(self, **inputs: Tensor) -> Tensor:
        """The answer to inputs of the names, types and shapes that ``about["inputs"]`` lists; ValueError for others."""
        if inputs.keys() != self.about["inputs"].keys():
            raise ValueError(f"this file takes {', '.join(self.about['inputs'])}; got {', '.join(inputs) or 'nothing'}")
        try:
            (answer,) = self.session.run(None, {name: x.detach().cpu().numpy() for name, x in inputs.items()})
        except Exception as error:
            given = ", ".join(f"{name} {x.dtype} {tuple(x.shape)}" for name, x in inputs.items())
            raise ValueError(f"the inputs {given} do not fit this file: {_first_line(error)}") from error
        return torch.from_numpy(answer)


def draws(
    student: Student, xT: Float[Tensor, "batch *dims"], generator: torch.Generator | None = None
) -> Float[Tensor, "batch normals *dims"] | None:
    """The standard normals that ``student(xT, generator=generator)`` draws, side by side on the channels.

    They are an exported student's input ``z``.  Their order is that of use: the start's noise where the bridge is
    not pinned at xT; then for each call its z, and after each but the last call the noise of the posterior
    (eq:few-step).  None where the student draws nothing.
    """
    widths = _widths(student)
    if not widths:
        return None
    shapes = [(len(xT), width, *xT.shape[2:]) for width in widths]
    return torch.cat([torch.randn(shape, generator=generator, device=xT.device, dtype=xT.dtype) for shape in shapes], 1)


def export_program(
    what: Student | BridgeModel,
    path: str | os.PathLike,
    example: Source | Tensor,
    *,
    any_size: bool = True,
    hole: Hole = "noise",
    licence: str | None = None,
    tolerance: float = 1e-4,
) -> Exported:
    """Write a ``torch.export`` program (.pt2), which runs in torch without this package.

    Arguments and errors as those of ``export_onnx``.  ``torch.export.load(path).module()(xT=xT, z=z)`` answers; what
    the file says of itself is its extra file ``about.json``.  Load such files only where you trust the writer.
    """
    graph = _graph(what, example, any_size, half=False)
    about = graph.about(licence, hole)
    with writing(path) as temporary:
        with temporary.open("wb") as file:
            torch.export.save(_traced(graph), file, extra_files={"about.json": json.dumps(about)})
        with temporary.open("rb") as file:
            again = torch.export.load(file).module()
        difference = _compared(graph, again, tolerance)
    return Exported(Path(path), difference, 0.0, about)


def export_onnx(
    what: Student | BridgeModel,
    path: str | os.PathLike,
    example: Source | Tensor,
    *,
    any_size: bool = True,
    half_weights: bool = False,
    values: tuple[float, float] = (-1.0, 1.0),
    hole: Hole = "noise",
    licence: str | None = None,
    tolerance: float = 1e-4,
) -> Exported:
    """Write one self-contained ONNX file of a student, or of one call of a model (a teacher).

    A student's file takes xT, and where it has them z (see ``draws``), mask and label, and answers x0.  A model's takes
    xt, t, and where it has them xT and label, and answers x0_hat.  All are float32 but label (int64).  Times are not
    checked in the file.

    Args:
        what: weights in float32.
        path: of the file; it appears when the comparison has passed.
        example: a batch as it will be given: it tells the channels, and by its mask, label and task which inputs there
            are.  A task becomes a constant of the file.
        any_size: height and width are open (multiples of ``network.downsampling``, where the network has that);
            otherwise they are the example's.  The batch is always open.
        half_weights: store weights as float16, half the size, and compute in float32 as before.
        values: of black and white, for programs that make images of the answers.
        hole: what stood in the holes of xT in training, and must stand there again: ``"noise"`` of N(0, 1), as
            ``data.Inpainting`` draws it, or ``"zeros"``, as DBIM's teacher has it (``teachers.PUBLISHED``).
        licence: a line on who may use the weights.
        tolerance: the largest difference to torch, with the same weights and draws, that is not an error.

    Raises:
        TypeError: neither a student nor a BridgeModel, weights or images that are not float32.
        ValueError: what torch.export cannot follow, an example that does not fit or whose holes hold something else,
            weights too large for float16, answers that differ from torch's.
        ImportError: onnx, onnxscript or onnxruntime is not installed.
    """
    for name in ("onnx", "onnxscript", "onnxruntime"):
        _imported(name)
    if not values[0] < values[1]:
        raise ValueError(f"values are those of black and white, expected the first to be smaller, got {values}")
    graph = _graph(what, example, any_size, half_weights)
    about = graph.about(licence, hole) | {"values": list(values), "weights": "float16" if half_weights else "float32"}
    proto = _onnx(graph)
    if half_weights:
        _store_half(proto)
    entry = proto.metadata_props.add()
    entry.key, entry.value = "about", json.dumps(about)
    if proto.ByteSize() >= 2**31:
        raise ValueError(f"a single ONNX file holds less than 2 GiB, this one has {proto.ByteSize():,} bytes")
    with writing(path) as temporary:
        temporary.write_bytes(proto.SerializeToString())
        difference = _compared(graph, OnnxModel.read(temporary), tolerance)
    return Exported(Path(path), difference, graph.rounding, about)


class _Generator(nn.Module):
    """A student as a function of xT and of all that it draws; ``Student.walk`` draws for itself."""

    def __init__(self, student: Student, task: int | None) -> None:
        super().__init__()
        self.model, self.task = _traceable(student.model_of(task)), task
        self.sees_noise, self.widths = student.noise_channels > 0, _widths(student)
        times = list(pairwise(student.grid_of(task)))
        self.times = [t.item() for t, _ in times]
        self.weights = [[w.item() for w in student.model_of(task).bridge.posterior(t, s)] for t, s in times[:-1]]

    def forward(
        self, xT: Tensor, z: Tensor | None = None, mask: Tensor | None = None, label: Tensor | None = None
    ) -> Tensor:
        normals: Iterator[Tensor] = iter(() if z is None else z.split(self.widths, 1))
        bridge, source = self.model.bridge, Source(xT, mask, label)
        xt = bridge.start(xT) if bridge.end_std == 0 else bridge.start(xT, next(normals))
        for t, (from_xt, from_x0, std) in zip(self.times, self.weights, strict=False):
            x0 = self._call(xt, t, source, normals)
            xt = from_xt * xt + from_x0 * x0 + std * next(normals)
        return self._call(xt, self.times[-1], source, normals)

    def _call(self, xt: Tensor, t: float, source: Source, normals: Iterator[Tensor]) -> Tensor:
        z, time = next(normals) if self.sees_noise else None, torch.full(xt.shape[:1], t)
        given = self.model.given(source) | _task(self.task, xt)
        return source.compose(self.model(xt, time, z=z, **given))


class _Call(nn.Module):
    """One call of a model: (xt, t[, xT][, label]) -> x0_hat."""

    def __init__(self, model: BridgeModel, task: int | None) -> None:
        super().__init__()
        self.model, self.task = _traceable(model), task

    def forward(self, xt: Tensor, t: Tensor, xT: Tensor | None = None, label: Tensor | None = None) -> Tensor:
        return self.model(xt, t, xT, label=label, **_task(self.task, xt))


class _Told(nn.Module):
    """``Conditions`` without its look at the values, which no graph can take, and without ``len``, which fixes it."""

    def __init__(self, conditions: Conditions) -> None:
        super().__init__()
        self.tables = conditions.tables

    def forward(self, h: Tensor, label: Tensor | None, task: Tensor | None) -> Tensor:
        for name, given in {"label": label, "task": task}.items():
            if given is not None:
                h = h + self.tables[name](given)
        return h


class _Unseen(nn.Module):
    """A network that may see xT and is not shown it: zeros in its place, as it does itself, but of any batch."""

    def __init__(self, network: nn.Module, channels: int) -> None:
        super().__init__()
        self.network, self.channels = network, channels

    def forward(self, xt: Tensor, time: Tensor, **conditions: Tensor) -> Tensor:
        return self.network(xt, time, torch.zeros_like(xt[:, : self.channels]), **conditions)


@dataclass(frozen=True, eq=False)
class _Graph:
    """What is to be written: the module to trace, and what it was made of, to compare with."""

    what: Student | BridgeModel
    module: _Generator | _Call
    source: Source
    open_sizes: tuple[str, ...]
    multiple: int
    rounding: float

    @property
    def output(self) -> str:
        return "x0" if isinstance(self.what, Student) else "x0_hat"

    def about(self, licence: str | None, hole: Hole) -> dict[str, Any]:
        """What a reader of the file must know, in words and as data."""
        _check_hole(self.source, hole)
        model = self.module.model
        sizes: tuple[str | int, ...] = self.open_sizes or tuple(self.source.xT.shape[2:])
        steps = self.what.nfe if isinstance(self.what, Student) else 0
        kind = f"a student of {steps} network call{'s' * (steps > 1)}" if steps else "one call of a bridge model"
        seeing = "seeing xT" if model.conditional else "not seeing xT"
        listed: dict[str, dict[str, Any]] = {
            name: {
                "type": str(x.dtype).removeprefix("torch."),
                "shape": ["batch", *x.shape[1:2], *sizes][: x.ndim],
                "meaning": MEANINGS[name],
            }
            for name, x in _inputs(self.what, self.source).items()
        }
        classes = _classes(_network(self.what))
        if "label" in listed and classes:
            listed["label"]["classes"] = classes
        return {
            "kind": "student" if steps else "model",
            "words": f"{kind} on {model.bridge!r}, {seeing}, prediction {model.prediction!r}",
            "grid": self.what.grid_of(self.source.task).tolist() if isinstance(self.what, Student) else None,
            "task": self.source.task,
            **model.about,
            "inputs": listed,
            "output": {"name": self.output, "type": "float32", "shape": ["batch", self.source.xT.shape[1], *sizes]},
            "multiple": self.multiple,
            **({} if self.source.mask is None else {"hole": hole}),
            "licence": licence,
            "written by": f"ibmd_lite {__version__}",
        }

    def other(self) -> Source:
        """Another source of the same kind: one more in the batch, and where sizes are open, other ones."""
        xT, label = self.source.xT, self.source.label
        grown = [size + self.multiple * (2 - axis) for axis, size in enumerate(xT.shape[2:])]
        shape = (len(xT) + 1, xT.shape[1], *(grown if self.open_sizes else xT.shape[2:]))
        uniform = torch.rand(shape, generator=torch.Generator().manual_seed(1))
        return Source(
            xT.min() + (xT.max() - xT.min()) * uniform,
            None if self.source.mask is None else (uniform[:, :1] > 0.5).float(),
            None if label is None else torch.cat([label, label[:1]]),
            self.source.task,
        )


MEANINGS = {
    "xT": "the corrupted batch",
    "xt": "the state at time t; at t = T the corrupted batch itself where the bridge is pinned",
    "t": "the time of each state, from 0 to T of the bridge; whole numbers for a bridge of tables",
    "z": "standard normals, in order of use: the start's noise where the bridge is not pinned, then for each call its "
    "noise and, after each but the last, that of the posterior",
    "mask": "1 in the hole, 0 where xT is known",
    "label": "the class of each image",
}


def _graph(what: Student | BridgeModel, example: Source | Tensor, any_size: bool, half: bool) -> _Graph:
    """Check what was given and put together what both formats need; the caller's modules stay as they are."""
    if not isinstance(what, Student | BridgeModel):
        raise TypeError(f"a Student or a BridgeModel is exported, got {type(what).__name__}")
    found = {str(p.dtype) for p in what.parameters()} - {"torch.float32"}
    if found:
        raise TypeError(f"weights in float32 are exported, got {', '.join(sorted(found))}: use .float() before")
    source = Source.of(example).to("cpu")
    if source.xT.dtype != torch.float32:
        raise TypeError(f"the example must be float32, got {source.xT.dtype}: use xT.float()")
    if source.xT.ndim > 4:
        raise ValueError(f"vectors, signals and images are exported, got an example of shape {tuple(source.xT.shape)}")
    own = copy.deepcopy(what).cpu().eval()
    exactly = _answer(own, source)  # refuses an example that does not fit, and fills what bridges keep of their tables
    if half:
        _round(own)
    rounding = (_answer(own, source) - exactly).abs().max().item() if half else 0.0
    task = source.task
    module = _Generator(own, task) if isinstance(own, Student) else _Call(own, task)
    sizes: tuple[str, ...] = {3: ("length",), 4: ("height", "width")}.get(source.xT.ndim, ())
    multiple = int(getattr(_network(own), "downsampling", 1)) if sizes else 1
    return _Graph(own, module.eval(), source, sizes if any_size else (), multiple, rounding)


def _check_hole(source: Source, hole: Hole) -> None:
    """What is said of the holes is what the example shows."""
    if hole not in ("noise", "zeros"):
        raise ValueError(f"hole is {hole!r}; expected 'noise' or 'zeros'")
    if source.mask is None:
        if hole == "zeros":
            raise ValueError("hole='zeros' speaks of a mask, and the example has none: give Source(xT, mask=mask)")
        return
    hidden = source.xT[(source.mask > 0.5).expand_as(source.xT)]
    zeros = not bool(hidden.any())
    if len(hidden) and zeros != (hole == "zeros"):
        found = "zeros" if zeros else "other numbers"
        raise ValueError(
            f"hole={hole!r}, but the example has {found} in its holes: give an example as the student saw them in "
            f"training, or hole={'zeros' if zeros else 'noise'!r}"
        )


def _classes(network: nn.Module) -> int | None:
    """How many labels a network knows, where it says so."""
    for part in network.modules():
        if isinstance(part, Conditions) and "label" in part.tables:
            return len(part.tables["label"].weight)  # type: ignore[arg-type]
        count = getattr(getattr(part, "architecture", part), "labels", None)  # an ADM, a U-Net of diffusers
        if isinstance(count, int) and count > 0:
            return count
    return None


def _inputs(what: Student | BridgeModel, source: Source) -> Inputs:
    """Inputs for a source by name, with draws of a fixed seed."""
    generator, xT = torch.Generator().manual_seed(0), source.xT
    inputs: dict[str, Tensor | None]
    if isinstance(what, Student):
        inputs = {"xT": xT, "z": draws(what, xT, generator), "mask": source.mask, "label": source.label}
    else:
        t = what.bridge.draw_times(len(xT), generator).float()
        xt = xT + torch.randn(xT.shape, generator=generator)
        inputs = {"xt": xt, "t": t, "xT": xT if what.conditional else None, "label": source.label}
    return {name: x for name, x in inputs.items() if x is not None}


@torch.no_grad()
def _answer(what: Student | BridgeModel, source: Source) -> Tensor:
    """What torch answers to those inputs."""
    if isinstance(what, Student):
        return what(source, generator=torch.Generator().manual_seed(0))
    return what(**_inputs(what, source), **_task(source.task, source.xT))


def _network(what: Student | BridgeModel) -> nn.Module:
    return what.model.network if isinstance(what, Student) else what.network


def _widths(student: Student) -> list[int]:
    """Channels of each draw of a student, in order of use."""
    own = [student.noise_channels] if student.noise_channels else []
    start = [student.channels] if student.model.bridge.end_std > 0 else []
    return start + [*own, student.channels] * (student.nfe - 1) + own


def _task(task: int | None, x: Tensor) -> Inputs:
    return {} if task is None else {"task": torch.full(x.shape[:1], task)}


def _traceable(model: BridgeModel) -> BridgeModel:
    """The model without looks at values: times and conditions are checked where a batch is at hand, not in a graph."""
    if type(model) is not BridgeModel:
        raise TypeError(f"a {type(model).__name__} answers otherwise than its network; export a student made of it")
    bridge, network = copy.copy(model.bridge), copy.deepcopy(model.network)
    object.__setattr__(bridge, "check_times", lambda t: None)  # of this copy alone, which is frozen
    for name, part in list(network.named_modules()):
        if isinstance(part, Conditions):
            network.set_submodule(name, _Told(part))
    if getattr(network, "conditional", None) == "optional" and not model.conditional:
        channels: Any = network.channels
        network = _Unseen(network, channels)
    return BridgeModel(network, bridge, conditional=model.conditional, prediction=model.prediction)


def _round(module: nn.Module) -> None:
    """Round weights to what float16 holds."""
    for name, parameter in module.named_parameters():
        rounded = parameter.detach().half().float()
        if not bool(rounded.isfinite().all()):
            raise ValueError(f"{name} has weights beyond float16's 65504; export it without half_weights")
        parameter.data = rounded


def _traced(graph: _Graph) -> torch.export.ExportedProgram:
    other = graph.other()  # of two or more, which a batch must be for tracing to leave it open
    inputs = _inputs(graph.what, other)
    batch, sizes = torch.export.Dim("batch"), [torch.export.Dim(name) for name in graph.open_sizes]
    spatial = dict(enumerate((size if graph.multiple == 1 else graph.multiple * size for size in sizes), start=2))
    shapes = {name: {0: batch} | (spatial if x.ndim > 2 else {}) for name, x in inputs.items()}
    try:
        with _quiet():
            program = torch.export.export(graph.module, (), inputs, dynamic_shapes=shapes, strict=False)
    except Exception as error:  # torch.export has many kinds, most of them its own
        network = type(_network(graph.what)).__name__
        hint = "; if its size must be fixed, use any_size=False" if graph.open_sizes else ""
        raise ValueError(f"torch.export cannot follow {network}: {_first_line(error)}{hint}") from error
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it names files of this machine
    return program


def _onnx(graph: _Graph) -> ModelProto:
    program, names = _traced(graph), list(_inputs(graph.what, graph.source))
    try:
        with _quiet(), warnings.catch_warnings():
            # torch 2.13 copies its own LeafSpec, whose maker warns of the copy
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
            written = torch.onnx.export(
                program, (), dynamo=True, input_names=names, output_names=[graph.output], verbose=False
            )
    except Exception as error:  # torch.onnx has a kind for each of its steps
        raise ValueError(f"torch.onnx has no operators for this network: {_first_line(error)}") from error
    proto = cast("ONNXProgram", written).model_proto
    for part in (proto, proto.graph, *proto.graph.node, *proto.graph.value_info, *proto.graph.initializer):
        del part.metadata_props[:]  # where in torch and in whose files each came from
    return proto


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch logs and prints beside the errors that it raises: graphs, and operators of torchvision."""
    named = ("torch.fx.experimental.symbolic_shapes", "torch.onnx._internal.exporter._registration")
    levels = {logging.getLogger(name): logging.getLogger(name).level for name in named}
    try:
        for logger in levels:
            logger.setLevel(logging.ERROR)
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)


def _store_half(proto: ModelProto) -> None:
    """Every table of numbers that float16 holds exactly is stored so, with a cast to float32 before its use."""
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for stored in proto.graph.initializer:
        if stored.data_type != TensorProto.FLOAT:
            continue
        exact = numpy_helper.to_array(stored)
        half = exact.astype("float16")
        if exact.size >= 64 and (half == exact).all():
            name = stored.name
            stored.CopyFrom(numpy_helper.from_array(half, f"{name}.half"))
            casts.append(helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)


def _compared(graph: _Graph, again: Callable[..., Tensor], tolerance: float) -> float:
    """The largest difference between what torch and the file answer; ValueError where it exceeds the tolerance."""
    largest = 0.0
    for source in (graph.source, graph.other()):
        expected, got = _answer(graph.what, source), again(**_inputs(graph.what, source))
        difference = (got - expected).abs().max().item()
        if not difference <= tolerance:
            raise ValueError(
                f"the file's answers differ from torch's by up to {difference:.2g} for a batch of shape "
                f"{tuple(source.xT.shape)}, more than {tolerance:g}: nothing was written. "
                "The network does something that a graph does not keep, such as a branch on values"
            )
        largest = max(largest, difference)
    return largest


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"{name} is needed for ONNX files: pip install 'ibmd_lite[export]'") from error


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
