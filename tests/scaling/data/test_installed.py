"""The Python corpus on a made-up environment, and once on the real one."""

import platform
import sys
from pathlib import Path

import pytest

from scaling.config.data import PythonCorpus
from scaling.data.installed import InstalledSource, is_table, library_files, required, select
from scaling.data.shards import prepare
from scaling.errors import InputError

CODE = "def name_{0}(argument):\n    '''What it returns is its argument.'''\n    return argument\n"


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Puts a distribution into a made-up environment."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))

    def make(name: str, requires=(), files=None, version="1.0"):
        files = {f"{name}/__init__.py": CODE.format(name)} if files is None else files
        info = f"{name.replace('-', '_')}-{version}.dist-info"
        lines = [f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {r}" for r in requires)]
        everything = {**files, f"{info}/METADATA": "\n".join(["Metadata-Version: 2.1", *lines]) + "\n"}
        everything[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in everything)
        for path, content in everything.items():
            (site / path).parent.mkdir(parents=True, exist_ok=True)
            (site / path).write_bytes(content.encode() if isinstance(content, str) else content)

    return make


def scanned(root: str, seed: int = 0, held: int = 2, notes=None) -> InstalledSource:
    source = InstalledSource(PythonCorpus(root=root, standard_library=False), seed, held)
    source.scan((notes if notes is not None else []).append)
    return source


def texts(source: InstalledSource) -> list[str]:
    return [document.text for document in source.documents()]


def test_requirements_are_followed_and_extras_are_not(install):
    install("fake-root", ["Fake.One>=1", "fake-extra; extra == 'more'", "fake-windows; sys_platform == 'none'"])
    install("fake_one", ["fake-two[speed]", "fake-absent"])
    install("fake-two", ["fake-three; extra == 'speed'", "fake-four; extra == 'other'", "fake-root", "nvidia-fake"])
    for name in ("fake-three", "fake-four", "fake-extra", "fake-windows", "nvidia-fake"):
        install(name)
    assert sorted(required("Fake_Root")) == ["fake-one", "fake-three", "fake-two"]
    with pytest.raises(InputError, match=r"data.corpus.root=fake-nothing: not installed here"):
        required("fake-nothing")


def test_files_that_are_read(install):
    keep = {f"pkg/m{i}.py": CODE.format(i) for i in range(4)}
    drop = {
        "pkg/version.py": "version = 'of this build'\n",
        "pkg/_version.py": "version = 'of this build as well'\n",
        "pkg/__config__.py": "compiler = 'some compiler'\n",
        "pkg/notes.txt": "words and words\n",
        "../../bin/script.py": "print('outside')\n",
        "pkg/copy.py": CODE.format(2),
        "pkg/empty.py": "\n",
        "pkg/latin.py": b"name = 'caf\xe9 and more words'\n",
        "pkg/table.py": "TABLE = [" + "0.125, 0.25, 17, 32768, " * 30 + "]\n",
    }
    install("fake-root", ["fake-package"])
    install("fake-package", files=keep | drop, version="1.0+cpu")
    notes = []
    source = scanned("fake-root", notes=notes)
    assert sorted(texts(source)) == sorted(keep.values())
    origin = source.describe()
    assert origin["sources"] == {"fake-package": {"version": "1.0", "files": 4, "bytes": sum(map(len, keep.values()))}}
    assert {reason: count["files"] for reason, count in origin["dropped"].items()} == {
        "duplicate": 1,
        "table": 1,
        "not_utf8": 1,
        "empty": 1,
    }
    assert len(notes) == 1 and "only 0.0 MB" in notes[0]


def test_listed_files_that_are_absent(install, tmp_path):
    install("fake-root", ["fake-package"])
    install("fake-package", files={f"pkg/m{i}.py": CODE.format(i) for i in range(4)})
    (tmp_path / "site/pkg/m1.py").unlink()
    assert len(texts(scanned("fake-root"))) == 3


def test_order_comes_from_the_seed_alone(install):
    files = {f"pkg/m{i}.py": CODE.format(i) for i in range(40)}
    install("fake-root", ["fake-package"])
    install("fake-package", files=files)
    one = scanned("fake-root", held=5)
    reseeded = scanned("fake-root", seed=1, held=5)
    install("fake-package", files=dict(reversed(files.items())))
    again = scanned("fake-root", held=5)
    assert texts(one) == texts(again) != texts(reseeded)
    assert texts(one) != sorted(texts(one))
    assert [d.held_out for d in one.documents()] == [True] * 5 + [False] * 35


def test_shards(install, settings, tmp_path):
    install("fake-root", ["fake-package"])
    install("fake-package", files={f"pkg/m{i}.py": CODE.format(i) for i in range(40)})
    corpus = prepare(settings(PythonCorpus(root="fake-root", standard_library=False)), tmp_path / "cache")
    assert corpus.manifest["splits"]["validation"]["documents"] == 8
    assert corpus.manifest["sources"]["fake-package"]["files"] == 40


def test_standard_library_files(tmp_path):
    names = ["os.py", "json/tool.py", "test/test_os.py", "json/tests/a.py", "idlelib/idle_test/b.py"]
    names += ["site-packages/torch/c.py", "_sysconfigdata_x.py", "config-3.11-x86/python-config.py"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert sorted(p.relative_to(tmp_path).as_posix() for p in library_files(tmp_path)) == ["json/tool.py", "os.py"]


def test_tables():
    assert not is_table(CODE.format(1).encode())
    assert not is_table(b"assert roots(x**2 - 3*x + 2) == [1, 2] and gamma(5) == 24\n" * 50)
    assert is_table(b"    (0.267004, 0.004874, 0.329415),\n" * 50)
    assert is_table(b"DESCRIPTOR = pool.AddSerializedFile(b'" + b"google.protobuf.any" * 50 + b"')\n")
    # 2 letters of 5 solid bytes are exactly the share that is asked for.
    assert not is_table(b"a b 1 2 3\n") and is_table(b"a b 1 2 3 4\n")


def test_duplicates_keep_the_first_name():
    raw = CODE.format(0).encode()
    kept, dropped = select(iter([("a", raw), ("b", raw), ("c", raw + b"\n")]))
    assert [name for name, _ in kept] == ["a", "c"] and dropped["duplicate"] == {"files": 1, "bytes": len(raw)}


def test_this_environment():
    source = InstalledSource(PythonCorpus(root="precision-scaling", standard_library=True), 0, 1200)
    notes = []
    source.scan(notes.append)
    origin = source.describe()["sources"]
    assert {"python", "torch", "numpy", "scipy", "pandas", "hydra-core", "wandb"} <= set(origin)
    assert not {"precision-scaling", "setuptools", "pip", "pytest", "ruff", "transformers"} & set(origin)
    assert origin["python"]["version"] == platform.python_version()
    assert source.size > 100_000_000 and not notes
    library = Path(sys.modules["json"].__file__).read_text()
    assert library in {document.text for document in source.documents()}
