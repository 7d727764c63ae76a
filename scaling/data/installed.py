"""The `python` corpus: sources of the interpreter and of what this project requires, as they lie in the environment.

Some 180 MB of real text without a download, and the same text wherever constraints.txt was installed under the same
interpreter. To keep it the same, nothing is read that differs between builds of one release or between two ways of
installing it: version and build-configuration modules, what comes with CUDA builds of torch only, packaging tools, the
interpreter's record of its own build. Extras are not read either, so they may be installed or not.

Three kinds of file are left out: exact duplicates, what is not UTF-8, and tables. A file is a table if fewer than 40%
of its bytes (blanks aside) are ASCII letters, or if its lines have more than 100 bytes on average. That is what colour
maps, Unicode tables, coefficients of quadrature rules and serialized protocol buffers have in common; tests with many
numeric literals stay.
"""

import hashlib
import importlib.metadata
import platform
import string
import sysconfig
from collections.abc import Callable, Iterator
from importlib.metadata import Distribution, PackageNotFoundError
from pathlib import Path, PurePath

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from scaling.config.data import PythonCorpus
from scaling.data.documents import Document, held_out_count, shuffled_places
from scaling.errors import InputError

MIN_LETTERS = 0.4
MAX_MEAN_LINE = 100.0
SMALL = 20_000_000
"""Bytes below which the environment is probably not a whole one."""

_OTHER_BUILDS = ("nvidia", "triton", "cuda", "pip", "setuptools", "wheel")
_TOOLS = ("hydra-joblib-launcher", "joblib")  # required, but were extras when the text of the first studies was fixed
_BUILD_FILES = ("version.py", "_version.py", "__config__.py")
_NOT_LIBRARY = frozenset({"test", "tests", "idle_test", "site-packages", "dist-packages"})


class InstalledSource:
    """Documents are files, in an order drawn from the seed; the first ones are held out. All are held in memory."""

    max_tokens = None

    def __init__(self, config: PythonCorpus, seed: int, validation_documents: int):
        self.config, self.seed, self.validation_documents = config, seed, validation_documents

    def fingerprint(self) -> list:
        # An upgraded package does not change a corpus that was built: a study goes on with the text it began with, and
        # a machine with another environment takes the same shards. The manifest has the versions.
        return []

    def scan(self, note: Callable[[str], None]) -> None:
        packages = required(self.config.root)
        files = {
            f"{name}/{path}": Path(package.locate_file(path))
            for name, package in packages.items()
            for path in package.files or ()
            if _wanted(path)
        }
        self.sources = {name: {"version": package.version.split("+")[0]} for name, package in packages.items()}
        if self.config.standard_library:
            root = Path(sysconfig.get_path("stdlib"))
            files |= {f"python/{p.relative_to(root).as_posix()}": p for p in library_files(root)}
            self.sources["python"] = {"version": platform.python_version()}
        for entry in self.sources.values():
            entry |= {"files": 0, "bytes": 0}

        # A distribution may list files that its packager left out.
        present = (name for name in sorted(files) if files[name].is_file())
        texts, self.dropped = select((name, files[name].read_bytes()) for name in present)
        for name, text in texts:
            entry = self.sources[name.split("/")[0]]
            entry["files"] += 1
            entry["bytes"] += len(text.encode())
        self.size = sum(entry["bytes"] for entry in self.sources.values())
        if self.size < SMALL:
            note(f"data: only {self.size / 1e6:.1f} MB of Python sources found; is the environment complete?")
        held = held_out_count(len(texts), self.validation_documents, "check data.corpus.root")
        places = shuffled_places(len(texts), self.seed)
        order = sorted(range(len(texts)), key=places.__getitem__)
        self.ordered = [(rank < held, texts[i][1]) for rank, i in enumerate(order)]

    def documents(self) -> Iterator[Document]:
        for held_out, text in self.ordered:
            yield Document(text=text, size=len(text.encode()), held_out=held_out)

    def describe(self) -> dict:
        """Version, files and bytes of each distribution that contributes; what was dropped, by reason."""
        sources = {name: entry for name, entry in self.sources.items() if entry["files"]}
        return {"sources": sources, "dropped": self.dropped}


def required(root: str) -> dict[str, Distribution]:
    """Installed distributions that `root` requires, directly or not, by normalized name; `root` itself excluded.

    Requirements whose marker does not hold here, and those of extras that nobody asks for, are not followed.

    Raises:
        InputError: `root` is not installed.
    """
    distributions: dict[str, Distribution] = {}
    followed: set[tuple[str, str]] = set()

    def follow(name: str, extras: set[str]) -> None:
        name = canonicalize_name(name)
        news = {extra for extra in {"", *extras} if (name, extra) not in followed}
        if name.startswith(_OTHER_BUILDS) or name in _TOOLS or not news:
            return
        followed.update((name, extra) for extra in news)
        try:
            distributions[name] = importlib.metadata.distribution(name)
        except PackageNotFoundError:
            return
        for requirement in map(Requirement, distributions[name].requires or ()):
            if requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in news):
                follow(requirement.name, requirement.extras)

    follow(root, set())
    if not distributions:
        raise InputError(f"data.corpus.root={root}: not installed here; install this project, or name another package")
    del distributions[canonicalize_name(root)]
    return distributions


def library_files(root: Path) -> Iterator[Path]:
    """Modules of a standard library, without its tests and without what describes the build."""
    for path in root.rglob("*.py"):
        folders = path.relative_to(root).parts[:-1]
        build = path.name.startswith("_sysconfigdata") or (folders and folders[0].startswith("config-"))
        if not build and not _NOT_LIBRARY.intersection(folders):
            yield path


def select(files: Iterator[tuple[str, bytes]]) -> tuple[list[tuple[str, str]], dict[str, dict]]:
    """Keep (name, text) of the files that are text to learn from; the second part counts the others by reason."""
    kept, seen = [], set()
    dropped = {reason: {"files": 0, "bytes": 0} for reason in ("duplicate", "table", "not_utf8", "empty")}
    for name, raw in files:
        reason, text, digest = None, "", hashlib.sha256(raw).digest()
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            reason = "not_utf8"
        if not reason and not raw.strip():
            reason = "empty"
        elif not reason and digest in seen:
            reason = "duplicate"
        elif not reason and is_table(raw):
            reason = "table"
        seen.add(digest)
        if reason:
            dropped[reason]["files"] += 1
            dropped[reason]["bytes"] += len(raw)
        else:
            kept.append((name, text))
    return kept, dropped


def is_table(raw: bytes) -> bool:
    """Whether a file is mostly data (see the head of this module)."""
    solid = raw.translate(None, string.whitespace.encode())
    letters = len(solid) - len(solid.translate(None, string.ascii_letters.encode()))
    return letters < MIN_LETTERS * len(solid) or len(raw) > MAX_MEAN_LINE * (raw.count(b"\n") + 1)


def _wanted(path: PurePath) -> bool:
    return path.suffix == ".py" and path.name not in _BUILD_FILES and ".." not in path.parts
