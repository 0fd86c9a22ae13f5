"""Nothing from outside is executed, and nothing writes outside of its folder.

Checked here by doing: hostile files for every reader of the package, hostile parameters, hostile archives, and a scan
of the sources.  Beside it: checkpoints of a run and code in them (`test_faults.py`), published checkpoints
(`teachers/test_checkpoints.py`, `teachers/test_diffusers_unet.py`), downloads with another checksum
(`data/test_official.py`), images that claim to be huge (`data/test_images.py`).
"""

from __future__ import annotations

import ast
import base64
import hashlib
import io
import json
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import assets
import pytest
import torch
import yaml
from links import ROOT
from pictures import picture
from PIL import Image
from trials import notebook

import ibmd_lite
from ibmd_lite.data import Images, cifar10
from ibmd_lite.data.cache import cache_folder, keep, kept
from ibmd_lite.data.official import Published
from ibmd_lite.distillation import Student
from ibmd_lite.experiments.__main__ import main
from ibmd_lite.experiments.runs import execute
from ibmd_lite.experiments.sweep import Sweep
from ibmd_lite.model import BridgeModel
from ibmd_lite.networks import MLP
from ibmd_lite.training import load_weights, read_weights


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IBMD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


# Pickles.


class Hostile:
    """Unpickled, it would create a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


FORMS: dict[str, Callable[[object, Path], object]] = {
    "torch": lambda state, path: torch.save(state, path),
    "torch legacy": lambda state, path: torch.save(state, path, _use_new_zipfile_serialization=False),
    "pickle": lambda state, path: path.write_bytes(pickle.dumps(state)),
}
READERS: dict[str, Callable[[Path], object]] = {
    "student": lambda path: Student.load(path, MLP(2, 8, 1)),
    "model": lambda path: BridgeModel.load(path, MLP(2, 8, 1)),
    "weights": lambda path: load_weights(path, MLP(2, 8, 1)),
    "tensors": read_weights,
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("reader", READERS)
def test_a_pickle_under_the_name_of_weights_is_not_read(tmp_path: Path, form: str, reader: str) -> None:
    path, harm = tmp_path / "student.safetensors", tmp_path / "harm"
    FORMS[form]({"network.weight": Hostile(harm)}, path)
    with pytest.raises(ValueError, match="no whole safetensors file"):
        READERS[reader](path)
    assert not harm.exists()


@pytest.mark.parametrize("form", FORMS)
def test_a_pickle_in_the_cache_is_as_good_as_nothing(tmp_path: Path, form: str) -> None:
    keep("key", {}, {"pixels": torch.zeros(3)})
    (path,) = (cache_folder() / "images").iterdir()
    assert kept("key") is not None
    FORMS[form]({"pixels": Hostile(tmp_path / "harm")}, path)
    assert kept("key") is None
    assert not (tmp_path / "harm").exists()


def test_an_exported_student_names_no_file_outside_of_its_folder(tmp_path: Path) -> None:
    """An ONNX file may keep its weights in a second file; one that names a secret elsewhere is refused."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from ibmd_lite.export import OnnxModel

    (tmp_path / "secret").write_bytes(bytes(8))
    weight = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=[2])
    weight.data_location = onnx.TensorProto.EXTERNAL
    place = weight.external_data.add()
    place.key, place.value = "location", "../secret"
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2]) for name in ("x", "y")]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Add", ["x", "w"], ["y"])], "g", ends[:1], ends[1:], [weight])
    (tmp_path / "students").mkdir()
    path = tmp_path / "students" / "student.onnx"
    path.write_bytes(onnx.helper.make_model(graph, ir_version=10).SerializeToString())
    with pytest.raises(ValueError, match="no ONNX file that onnxruntime can run"):
        OnnxModel.read(path)


# Archives.


def png() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture(1, 8)).save(stream, "PNG")
    return stream.getvalue()


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("name", "becomes"),
    [
        ("../../outside.png", ("good.png",)),  # hidden, like every name that begins with a dot
        ("a/../../../outside.png", ("good.png",)),
        ("C:\\outside.png", ("C:\\outside.png", "good.png")),  # a name, never a place
        ("/tmp/outside.png", "lie at several depths"),
        ("link.png", "cannot be used: link.png"),
    ],
)
def test_a_zip_of_images_is_read_where_it_is(tmp_path: Path, cache: Path, name: str, becomes: tuple | str) -> None:
    place = tmp_path / "deep" / "deeper"
    place.mkdir(parents=True)
    info = zipfile.ZipInfo(name)
    if name == "link.png":
        info.external_attr = 0o120777 << 16  # a symbolic link, whose content is where it leads
    with zipfile.ZipFile(place / "images.zip", "w") as archive:
        archive.writestr("good.png", png())
        archive.writestr(info, "/etc/hostname" if name == "link.png" else png())
    before = files_below(tmp_path)
    if isinstance(becomes, str):
        with pytest.raises(ValueError, match=becomes):
            Images.read(place / "images.zip", size=8)
    else:
        assert Images.read(place / "images.zip", size=8).names == becomes
    assert {added.partition("/")[0] for added in files_below(tmp_path) - before} <= {cache.name}
    assert not Path("/tmp/outside.png").exists()


def tar(members: list[tarfile.TarInfo], data: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for member in members:
            member.size = len(data) if member.isreg() else 0
            archive.addfile(member, io.BytesIO(data))
    return stream.getvalue()


def linking(name: str, to: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, to
    return member


def published(folder: Path, archive: bytes) -> Published:
    """As if fetched: what lies in the folder of the downloads under its checksum is not asked for again."""
    name = "cifar-10-binary.tar.gz"
    (folder / "downloads").mkdir(parents=True)
    (folder / "downloads" / name).write_bytes(archive)
    return Published("http://127.0.0.1:9/", {name: f"md5:{hashlib.md5(archive).hexdigest()}"})


def test_a_tar_of_a_data_set_is_read_where_it_is(tmp_path: Path, cache: Path) -> None:
    archive = tar([tarfile.TarInfo("../../../test_batch.bin"), tarfile.TarInfo("/tmp/outside.bin")], bytes(3073))
    offer = published(cache, archive)
    before = files_below(tmp_path)
    assert len(cifar10("test", published=offer)) == 1
    assert files_below(tmp_path) == before
    assert not Path("/tmp/outside.bin").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_a_link_in_a_tar_leads_nowhere(cache: Path, tmp_path: Path, kind: bytes) -> None:
    (tmp_path / "secret").write_bytes(bytes(3073))
    archive = tar([linking("test_batch.bin", str(tmp_path / "secret"), kind)], b"")
    with pytest.raises(ValueError, match=r"test_batch\.bin"):
        cifar10("test", published=published(cache, archive))


# The scripts of the pages: the one place that unpacks.


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], assets.Package]:
    """An `npm` that hands out an archive, and the package that it stands for, with the right checksum."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, text in {"npm": f'cp "{tmp_path}/sent.tgz" .', "node": ""}.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)

    def sent(archive: bytes) -> assets.Package:
        (tmp_path / "sent.tgz").write_bytes(archive)
        digest = base64.b64encode(hashlib.sha512(archive).digest()).decode()
        return assets.Package("thing", "1", digest, "package", ("*.js", "sub/*.js"), "thing")

    return sent


def test_what_is_unpacked_stays_in_its_folder(tmp_path: Path, registry) -> None:
    names = [
        "package/good.js",
        "package/sub/good.js",
        "package/../../evil.js",
        "../evil.js",
        "package/sub/../../../e.js",
    ]
    names += ["/tmp/evil.js", "package//tmp/evil.js", "other/evil.js", "package/bad.txt"]
    members = [tarfile.TarInfo(name) for name in names]
    members += [linking("package/link.js", "/etc/hostname"), linking("package/sub", "/tmp")]
    package = registry(tar(members, b"x"))
    before = files_below(tmp_path)
    assets.fetch(package, tmp_path / "vendor")
    assert files_below(tmp_path) - before == {"vendor/thing/good.js", "vendor/thing/sub/good.js"}
    assert not Path("/tmp/evil.js").exists()


def test_an_archive_with_another_checksum_is_not_opened(tmp_path: Path, registry) -> None:
    package = registry(tar([tarfile.TarInfo("package/good.js")], b"x"))
    (tmp_path / "sent.tgz").write_bytes(tar([tarfile.TarInfo("package/good.js")], b"y"))
    with pytest.raises(SystemExit, match=r"thing@1 has SHA-512 .*; nothing was installed"):
        assets.fetch(package, tmp_path / "vendor")
    assert not (tmp_path / "vendor").exists()


# YAML and parameters.

TAGS = ["!!python/object/apply:os.mkdir [{}]", "!!python/object/new:os.mkdir [{}]", "!!python/name:os.mkdir {}"]


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("place", ["sweep", "file", "value"])
def test_tags_of_python_in_yaml_are_refused(tmp_path: Path, tag: str, place: str) -> None:
    harm, chapter = tmp_path / "harm", notebook(tmp_path / "chapter.ipynb")
    text, file = tag.format(harm), tmp_path / "given.yaml"
    file.write_text(f"notebook: chapter.ipynb\nparameters: {{seed: {text}}}" if place == "sweep" else f"seed: {text}")
    words = {"sweep": [str(file)], "file": [str(chapter), "-f", str(file)], "value": [str(chapter), "-p", "seed", text]}
    with pytest.raises(
        SystemExit, match=r"error: .* cannot be read as YAML: could not determine a constructor for the tag"
    ):
        main(["run", *words[place], "--out", str(tmp_path / "runs")])
    assert not harm.exists()
    assert not (tmp_path / "runs").exists()


@pytest.mark.notebook
@pytest.mark.filterwarnings("default")
def test_parameters_arrive_as_the_strings_they_are(tmp_path: Path) -> None:
    """Words that would be code in a cell, a shell, a template or a format, through a real run of a sweep."""
    harm = tmp_path / "harm"
    texts = [
        f"__import__('os').mkdir({str(harm)!r})",
        f'"; __import__("os").mkdir({str(harm)!r}); "',
        f"'''\n__import__('os').mkdir({str(harm)!r})\n'''",
        f"\\'; import os; os.mkdir({str(harm)!r}) #",
        f"!mkdir {harm}",
        f"%system mkdir {harm}",
        f"$(mkdir {harm}) `mkdir {harm}` ; mkdir {harm}",
        f"{{{{ {harm} }}}} {{harm}} %s \\x00 \\N{{BULLET}} \u2028 é",
    ]
    result = "import json\nprint(json.dumps({'got': words}))"
    notebook(tmp_path / "chapter.ipynb", result=result, parameters="seed = 0\nwords = ['none']")
    file = tmp_path / "hostile.yaml"
    file.write_text(yaml.safe_dump({"notebook": "chapter.ipynb", "parameters": {"words": texts}}), "utf8")
    (run,) = Sweep.read(file).runs(tmp_path / "runs")
    assert execute(run)["metrics"] == {"got": texts}
    assert json.loads((run.folder / "result.json").read_text("utf8"))["parameters"]["words"] == texts
    assert not harm.exists()


@pytest.mark.parametrize("name", ["seed = 1; import os", "__import__('os')", "seed\nimport os", "words[0]"])
def test_a_name_that_is_code_is_no_parameter(tmp_path: Path, name: str) -> None:
    chapter = notebook(tmp_path / "chapter.ipynb")
    with pytest.raises(ValueError, match="does not know"):
        Sweep("trial", chapter, {name: 1})


# The sources.

FORBIDDEN = {
    *("pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.load", "marshal.loads", "shelve.open"),
    *("joblib.load", "dill.load", "dill.loads", "cloudpickle.load", "cloudpickle.loads"),
    *("yaml.load", "yaml.load_all", "yaml.full_load", "yaml.unsafe_load", "yaml.unsafe_load_all"),
    *("eval", "exec", "compile", "__import__", "os.system", "os.popen", "torch.hub.load", "torch.jit.load"),
    *("subprocess.getoutput", "subprocess.getstatusoutput", "shutil.unpack_archive", "tempfile.mktemp"),
}
METHODS = {"extractall", "extract"}  # of archives, which could write anywhere
WORDS = {"shell": True, "allow_pickle": True, "trust_remote_code": True, "weights_only": False}


def dangers(source: str) -> Iterator[str]:
    """Calls that run, unpickle or unpack what they are given, by line."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        words = {word.arg: getattr(word.value, "value", None) for word in node.keywords}
        if name in FORBIDDEN or (isinstance(node.func, ast.Attribute) and node.func.attr in METHODS):
            yield f"{node.lineno}: {name}"
        if name == "torch.load" and words.get("weights_only") is not True:
            yield f"{node.lineno}: torch.load without weights_only=True"
        yield from (
            f"{node.lineno}: {name}({word}={value})" for word, value in WORDS.items() if words.get(word) is value
        )


@pytest.mark.parametrize("folder", ["ibmd_lite", "book/_ext", "book/_sweeps", "benchmarks", ".ci"])
def test_the_sources_run_nothing_that_they_are_given(folder: str) -> None:
    place = Path(ibmd_lite.__file__).parent if folder == "ibmd_lite" else ROOT / folder  # as it is installed
    files = sorted(place.rglob("*.py"))
    assert files
    found = [f"{path}:{danger}" for path in files for danger in dangers(path.read_text("utf8"))]
    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        "pickle.load(file)",
        "yaml.load(text, yaml.Loader)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=chosen)",
        "eval(text)",
        "exec(text)",
        "subprocess.run(words, shell=True)",
        "numpy.load(path, allow_pickle=True)",
        "tarfile.open(path).extractall(folder)",
        "archive.extract(member)",
        "os.system(text)",
    ],
)
def test_the_scan_sees_it(line: str) -> None:
    assert list(dangers(f"def f():\n    return {line}")) != []


def test_the_scan_lets_the_rest_be() -> None:
    fine = "model.eval()\nyaml.safe_load(x)\ntorch.load(x, weights_only=True)\nre.compile(x)\nsubprocess.run(['git'])"
    assert list(dangers(fine)) == []
