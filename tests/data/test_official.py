"""Public data sets in their publishers' formats, small, from a real local server."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import signal
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy
import pytest
import torch
from pictures import picture
from PIL import Image

from ibmd_lite.data import cifar10, fashion_mnist, tiny_imagenet
from ibmd_lite.data.cache import keep
from ibmd_lite.data.official import CIFAR10, FASHION_MNIST, TINY_IMAGENET, Published, listed_digests, listed_names


class Server:
    """Serves a folder; counts what it was asked for; can break off in the middle of an answer."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.asked, self.breaks_off = folder, [], False  # type: ignore[var-annotated]
        self.holds: threading.Event | None = None  # waited for in the middle of an answer
        self.half_sent = threading.Event()
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.asked.append(self.path)
                path = server.folder / self.path.strip("/")
                if not path.is_file():
                    self.send_error(404)
                    return
                data = path.read_bytes()
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if server.holds is not None:
                    self.wfile.write(data[: len(data) // 2])
                    server.half_sent.set()
                    server.holds.wait()
                    return
                self.wfile.write(data[: len(data) // 2] if server.breaks_off else data)

            def log_message(self, *arguments: object) -> None:
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.http.server_port}/"
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def publish(self, name: str, data: bytes) -> None:
        (self.folder / name).write_bytes(data)

    def offers(self, *names: str) -> Published:
        """What lies there now, with its checksums."""
        sums = {name: hashlib.md5((self.folder / name).read_bytes()).hexdigest() for name in names}
        return Published(self.address, {name: f"md5:{value}" for name, value in sums.items()})

    def close(self) -> None:
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    folder = tmp_path / "published"
    folder.mkdir()
    server = Server(folder)
    yield server
    server.close()


def tar(contents: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, data in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def cifar_archive() -> tuple[bytes, dict[str, list[tuple[int, numpy.ndarray]]]]:
    """Six files of records (label, 1024 red, 1024 green, 1024 blue), and what is in each split."""
    contents, truth = {}, {"train": [], "test": []}  # type: ignore[var-annotated]
    for number, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        records = [((3 * number + i) % 10, picture(100 * number + i, 32)) for i in range(4)]
        truth["test" if name == "test_batch" else "train"] += records
        planes = [bytes([label]) + image.transpose(2, 0, 1).tobytes() for label, image in records]
        contents[f"cifar-10-batches-bin/{name}.bin"] = b"".join(planes)
    contents["cifar-10-batches-bin/batches.meta.txt"] = b"airplane\n"
    return tar(contents), truth


def rows(pixels: torch.Tensor) -> numpy.ndarray:
    return pixels.permute(1, 2, 0).numpy()


def test_cifar10(server: Server, tmp_path: Path) -> None:
    archive, truth = cifar_archive()
    server.publish("cifar-10-binary.tar.gz", archive)
    published = server.offers("cifar-10-binary.tar.gz")
    for split, records in truth.items():
        images = cifar10(split, published=published)  # type: ignore[arg-type]
        assert images.pixels.shape == (len(records), 3, 32, 32)
        assert images.labels.tolist() == [label for label, _ in records]
        assert (images.classes[0], images.classes[9], len(images.classes)) == ("airplane", "truck", 10)
        assert images.names[-1] == f"{split}/{len(records) - 1:05d}"
        for place, (_, image) in enumerate(records):
            assert (rows(images.pixels[place]) == image).all()
    assert server.asked == ["/cifar-10-binary.tar.gz"], "fetched once"


def cifar_list(split: str, chosen: dict[str, tuple[int, numpy.ndarray]]) -> str:
    """A list that names these images, in the order given."""
    lines = []
    for name, (label, image) in chosen.items():
        digest = hashlib.blake2b(image.transpose(2, 0, 1).tobytes()).hexdigest()[:16]
        lines += [f"{split}/{cifar_classes()[label]}", f"{name} {digest}"]
    return "\n".join(lines)


def test_a_subset_of_cifar10_is_known_by_its_bytes(server: Server, tmp_path: Path) -> None:
    archive, truth = cifar_archive()
    server.publish("cifar-10-binary.tar.gz", archive)
    published = server.offers("cifar-10-binary.tar.gz")
    chosen = {"zebra_s_1": truth["train"][17], "ant_s_2": truth["train"][3], "bee_s_3": truth["train"][8]}
    listing = tmp_path / "list.txt"
    listing.write_text(f"{cifar_list('train', chosen)}\ntest/cat\nother_s_4 0123456789abcdef")
    kinds = cifar_classes()
    expected = sorted((f"train/{kinds[label]}/{name}.png", label, image) for name, (label, image) in chosen.items())
    for _ in ("from the archive", "from the cache"):
        images = cifar10("train", subset=listing, published=published)
        assert images.classes == kinds
        assert images.names == tuple(name for name, _, _ in expected)
        assert images.labels.tolist() == [label for _, label, _ in expected]
        for place, (_, _, image) in enumerate(expected):
            assert (rows(images.pixels[place]) == image).all()
    with pytest.raises(ValueError, match=r"1 of the 1 listed images are not in .*: test/cat/other_s_4\.png"):
        cifar10("test", subset=listing, published=published)
    with pytest.raises(ValueError, match="of the 10000 listed images are not in"):
        cifar10("train", subset=True, published=published)


def test_a_subset_of_cifar10_is_kept_without_its_archive(server: Server, cache: Path, tmp_path: Path) -> None:
    archive, truth = cifar_archive()
    server.publish("cifar-10-binary.tar.gz", archive)
    published = server.offers("cifar-10-binary.tar.gz")
    listing = tmp_path / "list.txt"
    of_test = cifar_list("test", {"c_s_3": truth["test"][0]})
    listing.write_text(f"{cifar_list('train', {'b_s_1': truth['train'][9], 'a_s_2': truth['train'][4]})}\n{of_test}")
    first = cifar10("train", subset=listing, published=published)
    other = tmp_path / "other.txt"
    other.write_text(cifar_list("train", {"d_s_4": truth["train"][1]}))
    assert len(cifar10("train", subset=other, published=published)) == 1
    server.close()
    (cache / "downloads/cifar-10-binary.tar.gz").unlink()
    assert len(cifar10("train", subset=other, published=published)) == 1, "each list is kept"
    again = cifar10("train", subset=listing, published=published)
    assert again.names == first.names
    assert torch.equal(again.pixels, first.pixels)
    assert torch.equal(again.labels, first.labels)
    assert again.labels.dtype == first.labels.dtype
    with pytest.raises(OSError, match="could not be fetched"):
        cifar10("train", subset=listing, cache=False, published=published)
    with pytest.raises(OSError, match="could not be fetched"):
        cifar10("test", subset=listing, published=published)
    listing.write_text(cifar_list("train", {"b_s_1": truth["train"][9]}))
    with pytest.raises(OSError, match="could not be fetched"):
        cifar10("train", subset=listing, published=published)


@pytest.mark.parametrize("damage", ["a pixel", "the order", "one too many", "a byte of the file"])
def test_a_kept_subset_that_was_tampered_with_is_read_again(
    server: Server, cache: Path, tmp_path: Path, damage: str
) -> None:
    archive, truth = cifar_archive()
    server.publish("cifar-10-binary.tar.gz", archive)
    published = server.offers("cifar-10-binary.tar.gz")
    listing = tmp_path / "list.txt"
    listing.write_text(cifar_list("train", {"b_s_1": truth["train"][9], "a_s_2": truth["train"][4]}))
    first = cifar10("train", subset=listing, published=published)
    (file,) = (cache / "images").iterdir()
    wrong = first.pixels.clone()
    if damage == "a byte of the file":
        file.write_bytes(file.read_bytes()[:-1] + bytes([file.read_bytes()[-1] ^ 1]))
    else:
        wrong[1, 2, 31, 31] ^= 1
        wrong = {"a pixel": wrong, "the order": first.pixels.flip(0), "one too many": first.pixels[[0, 1, 1]]}[damage]
        keep(file.stem, {}, {"pixels": wrong})  # whole, as the cache's own checksum says
    again = cifar10("train", subset=listing, published=published)
    assert torch.equal(again.pixels, first.pixels)
    (cache / "downloads/cifar-10-binary.tar.gz").unlink()
    server.close()
    assert torch.equal(cifar10("train", subset=listing, published=published).pixels, first.pixels), "and kept again"


@pytest.mark.parametrize(
    ("contents", "told"),
    [
        ({"cifar-10-batches-py/data_batch_1": b"cos\nsystem\n(S'false'\ntR."}, "does not hold data_batch_1.bin"),
        ({f"c/data_batch_{i}.bin": bytes(3072) for i in range(1, 6)}, "has 3,072 bytes; expected"),
        ({f"c/data_batch_{i}.bin": b"\x0a" + bytes(3072) for i in range(1, 6)}, "a label 10; expected 0 to 9"),
    ],
)
def test_other_archives_are_not_cifar10(server: Server, contents: dict[str, bytes], told: str) -> None:
    server.publish("cifar-10-binary.tar.gz", tar(contents))
    with pytest.raises(ValueError, match=told):
        cifar10("train", published=server.offers("cifar-10-binary.tar.gz"))


def idx(array: numpy.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return gzip.compress(header + array.tobytes())


def test_fashion_mnist(server: Server) -> None:
    generator = numpy.random.default_rng(0)
    truth = {}
    for prefix, split, n in (("train", "train", 7), ("t10k", "test", 3)):
        pixels = generator.integers(0, 256, (n, 28, 28), dtype=numpy.uint8)
        labels = generator.integers(0, 10, n, dtype=numpy.uint8)
        truth[split] = pixels, labels
        server.publish(f"{prefix}-images-idx3-ubyte.gz", idx(pixels))
        server.publish(f"{prefix}-labels-idx1-ubyte.gz", idx(labels))
    published = server.offers(*FASHION_MNIST.checksums)
    for split, (pixels, labels) in truth.items():
        images = fashion_mnist(split, published=published)  # type: ignore[arg-type]
        assert (images.pixels.numpy() == pixels[:, None]).all()
        assert images.labels.tolist() == labels.tolist()
        assert images.draw(2)[0].shape == (2, 1, 28, 28)
    server.publish("t10k-labels-idx1-ubyte.gz", idx(labels[:-1]))
    with pytest.raises(ValueError, match=r"images \(3, 28, 28\) and 2 labels"):
        fashion_mnist("test", published=server.offers(*FASHION_MNIST.checksums))
    server.publish("t10k-labels-idx1-ubyte.gz", gzip.compress(gzip.decompress(idx(labels))[:-1]))
    with pytest.raises(ValueError, match="is no idx file of bytes with 1 axes and 10 bytes"):
        fashion_mnist("test", published=server.offers(*FASHION_MNIST.checksums))


def tiny_archive() -> tuple[bytes, dict[str, bytes]]:
    """Two classes of three images and two to validate, as the publisher lays them out; the JPEGs by name."""
    stream, files = io.BytesIO(), {}
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("tiny-imagenet-200/wnids.txt", "n02\nn01\n")
        places = {}
        for number, kind in enumerate(("n01", "n02")):
            for i in range(3):
                places[f"train/{kind}/{kind}_{i}.JPEG"] = (f"train/{kind}/images/{kind}_{i}.JPEG", 10 * number + i)
        places["val/n02/val_0.JPEG"] = ("val/images/val_0.JPEG", 50)
        places["val/n01/val_1.JPEG"] = ("val/images/val_1.JPEG", 51)
        for name, (place, seed) in places.items():
            jpeg = io.BytesIO()
            Image.fromarray(picture(seed, 64)).save(jpeg, "JPEG")
            files[name] = jpeg.getvalue()
            archive.writestr(f"tiny-imagenet-200/{place}", files[name])
        notes = "val_0.JPEG\tn02\t0\t0\t9\t9\nval_1.JPEG\tn01\t0\t0\t9\t9\n"
        archive.writestr("tiny-imagenet-200/val/val_annotations.txt", notes)
        archive.writestr("tiny-imagenet-200/test/images/test_0.JPEG", files["val/n02/val_0.JPEG"])
    return stream.getvalue(), files


def test_tiny_imagenet(server: Server, tmp_path: Path) -> None:
    archive, files = tiny_archive()
    server.publish("tiny-imagenet-200.zip", archive)
    published = server.offers("tiny-imagenet-200.zip")
    listing = tmp_path / "list.txt"
    listing.write_text("train/n01 2 0\ntrain/n02 1\nval/n01 1\n")
    chosen = ["train/n01/n01_0.JPEG", "train/n01/n01_2.JPEG", "train/n02/n02_1.JPEG", "val/n01/val_1.JPEG"]
    for subset, expected in ((False, sorted(files)), (listing, chosen)):
        for split in ("train", "val"):
            images = tiny_imagenet(split, subset=subset, published=published)  # type: ignore[arg-type]
            assert list(images.names) == [name for name in expected if name.startswith(split)]
            assert images.classes == ("n01", "n02")
            assert [images.classes[label] for label in images.labels] == [name.split("/")[1] for name in images.names]
            for place, name in enumerate(images.names):
                jpeg = numpy.asarray(Image.open(io.BytesIO(files[name])))
                assert (rows(images.pixels[place]) == jpeg).all()
    with pytest.raises(ValueError, match="of the 2000 listed images are not in"):
        tiny_imagenet("val", subset=True, published=published)


def test_another_zip_is_not_tiny_imagenet(server: Server) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("train/n01/1.JPEG", b"")
    server.publish("tiny-imagenet-200.zip", stream.getvalue())
    with pytest.raises(ValueError, match="is not the published archive of Tiny ImageNet"):
        tiny_imagenet("val", published=server.offers("tiny-imagenet-200.zip"))


def test_what_was_tampered_with_is_not_kept(server: Server, cache: Path) -> None:
    archive, _ = cifar_archive()
    server.publish("cifar-10-binary.tar.gz", archive)
    published = server.offers("cifar-10-binary.tar.gz")
    server.publish("cifar-10-binary.tar.gz", archive[:-9] + b"X" + archive[-8:])
    with pytest.raises(ValueError, match=r"\.tar\.gz sent is not the published file \(md5:\w+ expected"):
        cifar10("train", published=published)
    assert list((cache / "downloads").iterdir()) == []
    server.publish("cifar-10-binary.tar.gz", archive)
    assert len(cifar10("train", published=published)) == 20
    (cache / "downloads/cifar-10-binary.tar.gz").write_bytes(archive[:-1])
    assert len(cifar10("train", published=published)) == 20
    assert len(server.asked) == 3, "a damaged download is fetched again"


def test_a_failed_download_is_told(server: Server, cache: Path) -> None:
    server.publish("cifar-10-binary.tar.gz", cifar_archive()[0])
    published = server.offers("cifar-10-binary.tar.gz")
    server.breaks_off = True
    with pytest.raises((OSError, ValueError), match=r"cifar-10-binary\.tar\.gz (could not|sent is not)"):
        cifar10("train", published=published)
    (server.folder / "cifar-10-binary.tar.gz").unlink()
    with pytest.raises(OSError, match=r"could not be fetched \(404 .*'downloads' of the cache, .* IBMD_CACHE"):
        cifar10("train", published=published)
    server.close()
    with pytest.raises(OSError, match=r"could not be fetched"):
        cifar10("train", published=published)
    assert list((cache / "downloads").iterdir()) == []


FETCH = """
import hashlib, sys
from ibmd_lite.data import cifar10
from ibmd_lite.data.official import Published

name = "cifar-10-binary.tar.gz"
print(len(cifar10("test", published=Published(sys.argv[1], {name: "md5:" + sys.argv[2]}))))
"""


def test_a_download_that_was_killed_is_fetched_again(server: Server, cache: Path) -> None:
    """Signal 9 in the middle of a real download: nothing under its name, and the next call has the whole file."""
    archive, truth = cifar_archive()
    server.publish("cifar-10-binary.tar.gz", archive)
    digest = server.offers("cifar-10-binary.tar.gz").checksums["cifar-10-binary.tar.gz"].removeprefix("md5:")
    words = [sys.executable, "-W", "ignore", "-c", FETCH, server.address, digest]
    server.holds = threading.Event()
    fetching = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert server.half_sent.wait(60)
    assert fetching.poll() is None
    fetching.kill()
    assert fetching.wait() == -signal.SIGKILL
    fetching.communicate()
    server.holds.set()
    server.holds = None
    assert not (cache / "downloads" / "cifar-10-binary.tar.gz").exists()
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, f"{len(truth['test'])}\n"), done.stderr
    assert (cache / "downloads" / "cifar-10-binary.tar.gz").read_bytes() == archive
    assert len(server.asked) == 2


def test_a_download_is_kept_for_days_without_a_network(server: Server) -> None:
    server.publish("tiny-imagenet-200.zip", tiny_archive()[0])
    published = server.offers("tiny-imagenet-200.zip")
    first = tiny_imagenet("train", published=published)
    server.close()
    assert torch.equal(tiny_imagenet("train", published=published).pixels, first.pixels)


def test_the_lists_name_what_they_say() -> None:
    for split, count in (("train", 1000), ("test", 200)):
        listing = listed_digests(split)
        assert Counter(kind for kind, _ in listing.values()) == dict.fromkeys(cifar_classes(), count)
        assert len(set(listing.values())) == len(listing)
        assert {len(digest) for _, digest in listing.values()} == {16}
    assert "train/airplane/stealth_fighter_s_001692.png" in listed_digests("train")
    for split, count in (("train", 105), ("val", 10)):
        names = listed_names(split)
        assert set(Counter(name.split("/")[1] for name in names).values()) == {count}
        assert len(names) == 200 * count
    assert "train/n01443537/n01443537_81.JPEG" in listed_names("train")
    assert "val/n01443537/val_1551.JPEG" in listed_names("val")


def cifar_classes() -> tuple[str, ...]:
    return ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def test_checksums_are_the_publishers() -> None:
    assert CIFAR10.checksums == {"cifar-10-binary.tar.gz": "md5:c32a1d4ab5d03f1284b67883e8d87530"}
    assert TINY_IMAGENET.checksums == {"tiny-imagenet-200.zip": "md5:90528d7ca1a48142e341f4ef8d21d0de"}
    assert FASHION_MNIST.checksums["train-images-idx3-ubyte.gz"] == "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d"


def test_refusals() -> None:
    with pytest.raises(ValueError, match="split is 'val'; expected 'train' or 'test'"):
        cifar10("val")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="split is 'test'; expected 'train' or 'val'"):
        tiny_imagenet("test")  # type: ignore[arg-type]
