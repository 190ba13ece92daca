"""What a few kilobytes can do to a reader: it ends soon, in little memory, with an error.

Each kind is read in a process of its own that the system stops beyond 1 GiB or 20 seconds.
"""

import gzip
import json
import os
import resource
import struct
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

READ = """
import json, sys
from pathlib import Path
from analogtl.errors import ExperimentError
from analogtl.tasks.archives import read_files
from analogtl.tasks.sources import read_cifar

ends = {}
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        if path.is_dir():
            read_cifar("cifar100", path, download=False)
        else:
            read_files(path, "cifar-100-python", ("train", "test"), "it")
        ends[path.name] = "read"
    except ExperimentError as error:
        (ends[path.name],) = error.problems
print(json.dumps(ends))
"""


def ends(folder: Path) -> dict[str, str]:
    """How reading each file or CIFAR-100 in a folder ends."""

    def bounded() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
        resource.setrlimit(resource.RLIMIT_CPU, (20, 20))

    command = [sys.executable, "-c", READ, str(folder)]
    done = subprocess.run(command, preexec_fn=bounded, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    return found


def doubled(levels: int = 40) -> bytes:
    """A tuple of twice the same tuple of twice the same tuple ..."""
    return b"U\x01x" + b"".join(b"q%ch%c\x86" % (level, level) for level in range(levels))


def dicts(levels: int = 40) -> bytes:
    """The same with dicts."""
    inner = (b"}(U\x01ah%cU\x01bh%cuq%c" % (i, i, i + 1) for i in range(levels))
    return b"}q\x00" + b"".join(inner)


LONG_TEXT = b"X" + struct.pack("<I", 300_000) + b"a" * 300_000
ENCODED = b"c_codecs\nencode\nh\x00h\x01\x86R"
PICKLES = {
    "bytes claimed": b"\x96" + struct.pack("<Q", 4 << 30),
    "a key to hash": b"}" + doubled() + b"K\x01s",
    "members to hash": b"\x8f(" + doubled() + b"\x90",
    "a set to hash": b"(" + doubled() + b"\x91",
    "a type to print": b"cnumpy\ndtype\n(" + doubled() + b"K\x00K\x01tR",
    "names to print": b"}U\x10fine_label_names](" + doubled() + b"es",
    "dicts to walk": dicts(),
    "text encoded often": LONG_TEXT + b"q\x00X\x06\0\0\0latin1q\x01(" + ENCODED * 10_000 + b"t",
    "text as arguments": b"cnumpy\ndtype\n" + LONG_TEXT + b"R",
    "many lists": b"(" + b"]" * 20_000_000 + b"t",
    "many levels": b"]" * 500_000 + b"a" * 499_999,
    "a number as a key": b"}\x8b" + struct.pack("<i", 200_000) + b"\x7f" * 200_000 + b"K\x01s",
    "a long name": b"c" + b"a" * 5_000_000 + b"\nb\n",
}


def test_pickles(tmp_path: Path) -> None:
    for name, content in PICKLES.items():
        folder = tmp_path / name / "cifar-100-python"
        folder.mkdir(parents=True)
        for file in ("train", "test", "meta"):
            (folder / file).write_bytes(b"\x80\x04" + content + b".")
    found = ends(tmp_path)
    assert found.keys() == PICKLES.keys()
    assert [name for name, end in found.items() if end == "read" or len(end) > 1000] == []


def header(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


ZEROS = bytes(1 << 20)
HEADER = tarfile.XHDTYPE
TARS = {
    "zeros at the end": [ZEROS] * 300,
    "a member of zeros": [header("cifar-100-python/train", 1 << 31), ZEROS],
    "members of zeros": [header("x", 1 << 27), *[ZEROS] * 128] * 2,
    "many members": [header("x") * 1000] * 100,
    "digits in a header": [header("x", 1 << 20, HEADER), b"1" * (1 << 20), header("y")],
    "a long header": [header("x", 1 << 33, HEADER), ZEROS],
    "headers of headers": [(header("x", 512, HEADER) + bytes(512)) * 10_000],
    "sparse": [header("cifar-100-python/train", 0, tarfile.GNUTYPE_SPARSE)],
    "backwards": [header("x", -1024, HEADER)],
}


def test_tars(tmp_path: Path) -> None:
    for name, blocks in TARS.items():
        with gzip.open(tmp_path / name, "wb", compresslevel=1) as file:
            for block in blocks:
                file.write(block)
    os.mkfifo(tmp_path / "a pipe")
    found = ends(tmp_path)
    assert found.keys() == {*TARS, "a pipe"}
    assert "read" not in found.values()
    (tmp_path / "large").touch()
    os.truncate(tmp_path / "large", 1 << 40)
    assert "large" in ends(tmp_path)["large"]


def test_files_of_a_folder(tmp_path: Path) -> None:
    for name in ("pipe", "large"):
        (tmp_path / name / "cifar-100-python").mkdir(parents=True)
    os.mkfifo(tmp_path / "pipe" / "cifar-100-python" / "train")
    (tmp_path / "large" / "cifar-100-python" / "train").touch()
    os.truncate(tmp_path / "large" / "cifar-100-python" / "train", 1 << 40)
    found = ends(tmp_path)
    assert "train" in found["pipe"]
    assert str(1 << 40) in found["large"]


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_headers_about_the_next_member_are_passed_over(tmp_path: Path, kind: bytes) -> None:
    from analogtl.tasks.archives import read_files

    pieces = (header("x", 3, kind), b"abc".ljust(512, b"\0"), header("f/a", 2), b"hi".ljust(512))
    (tmp_path / "it").write_bytes(gzip.compress(b"".join(pieces)))
    assert read_files(tmp_path / "it", "f", ("a",), "it") == {"a": b"hi"}
