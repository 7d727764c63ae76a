"""The two sides of the comparison: a commit that is checked out below cache/, and the working tree."""

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.unchanged.workload import Task, prepare, tasks

WHERE = "import importlib.util as u; print(*(u.find_spec(m).origin for m in ('scaling', 'analysis')))"
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class FailedError(Exception):
    """One line: what could not be run."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Side:
    """Code, and the folder where its commands run and write."""

    name: str
    code: Path
    out: Path

    def run(self, task: Task) -> None:
        """Raises FailedError, with the end of its log, where a command of the task fails."""
        log = self.out / "logs" / f"{task.name.replace(' ', '-')}.txt"
        log.parent.mkdir(exist_ok=True)
        with open(log, "w", encoding="utf-8") as errors:
            for command in task.commands:
                done = subprocess.run(
                    [sys.executable, "-m", *command],
                    cwd=self.out,
                    env=environment(self.code),
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    text=True,
                    check=False,
                )
                if done.returncode:
                    errors.flush()
                    end = (log.read_text(encoding="utf-8").strip() or "no message").splitlines()[-1]
                    raise FailedError(f"{self.name}: python -m {' '.join(command)}: status {done.returncode}: {end}")
        if task.printed:
            path = self.out / task.printed
            path.parent.mkdir(exist_ok=True)
            path.write_text(done.stdout, encoding="utf-8")

    def check(self) -> None:
        """Raises FailedError where the commands would run other code than this side's."""
        command = [sys.executable, "-c", WHERE]
        paths = subprocess.run(
            command, cwd=self.out, env=environment(self.code), capture_output=True, text=True, check=False
        ).stdout.split()
        if len(paths) != 2 or any(not Path(path).is_relative_to(self.code) for path in paths):
            raise FailedError(f"{self.name}: {' and '.join(paths) or 'nothing'} would run in place of {self.code}")


def environment(code: Path) -> dict[str, str]:
    """Of commands that run the code in `code`: its packages come before installed ones."""
    return {**os.environ, "PYTHONPATH": str(code), **dict.fromkeys(ONE_THREAD, "1")}


def base(repository: Path, commit: str) -> tuple[Side, Path]:
    """The side of a commit, checked out below cache/, and the path of the mark that its output is whole.

    Output is kept by commit and by what else could change it: processor, installed versions, the commands.

    Raises:
        FailedError: no such commit.
    """
    resolved = _git(repository, "rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}")
    if resolved.returncode:
        raise FailedError(f"BASE={commit}: no such commit")
    sha = resolved.stdout.decode().strip()
    folder = repository / "cache" / "unchanged" / f"{sha[:12]}-{_surroundings()}"
    side = Side(name=sha[:7], code=folder / "code", out=folder / "out")
    if not side.code.exists():
        # Not a git worktree: one whose folder `make clean` deletes would stay registered.
        packed = _git(repository, "archive", sha)
        with _whole(side.code) as code:
            subprocess.run(["tar", "-x", "-C", code], input=packed.stdout, check=True)
    return side, folder / "done"


def tree(repository: Path) -> Side:
    """The side of the working tree, with whatever is not committed in it."""
    return Side(name="tree", code=repository, out=repository / "cache" / "unchanged" / "tree")


def run(sides: Sequence[Side], at_once: int, say: Callable[[str], None]) -> None:
    """Run the workload of each side from nothing, `at_once` processes at a time.

    Raises:
        FailedError: a command failed; the others that were under way have ended.
    """
    for side in sides:
        prepare(side.code, side.out)
        side.check()
    todo = [(side, task) for pair in zip(*(_of(side) for side in sides), strict=False) for side, task in pair]
    todo += [work for side in sides for work in _of(side) if work not in todo]
    finished: set[tuple[str, str]] = set()
    lock, began = threading.Lock(), time.monotonic()

    def one(side: Side, task: Task) -> None:
        start = time.monotonic()
        side.run(task)
        with lock:
            finished.add((side.name, task.name))
            say(
                f"{len(finished)} of {len(todo)} after {time.monotonic() - began:.0f} s: "
                f"{side.name}: {task.name}, {time.monotonic() - start:.0f} s"
            )

    waiting, running = list(todo), set()
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        while waiting or running:
            for side, task in list(waiting):
                if len(running) < at_once and all((side.name, name) in finished for name in task.after):
                    waiting.remove((side, task))
                    running.add(pool.submit(one, side, task))
            ended, running = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
            for future in ended:
                future.result()


def _of(side: Side) -> list[tuple[Side, Task]]:
    return [(side, task) for task in tasks(side.code, side.out)]


def _git(repository: Path, *words: str) -> subprocess.CompletedProcess:
    return subprocess.run(["git", "-C", repository, *words], capture_output=True, check=False)


@contextlib.contextmanager
def _whole(path: Path):
    """A folder beside `path` that is given its name when the block ends well."""
    partial = path.with_name(f"{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    partial.rename(path)


def _surroundings() -> str:
    """Short hash of what output depends on apart from the commit."""
    processor = platform.processor()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        processor += "".join(sorted({line for line in lines if line.startswith(("model name", "flags"))}))
    # A set: this project may be there twice.
    installed = sorted({f"{d.name}=={d.version}" for d in importlib.metadata.distributions()})
    here = Path(__file__).parent
    commands = "".join((here / name).read_text(encoding="utf-8") for name in ("workload.py", "sweeps/unchanged.yaml"))
    parts = (sys.version, processor, str(os.cpu_count()), *installed, commands)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]
