"""Weights & Biases: one W&B run a model, written so that nothing that happens there can stop training.

What a process may do is a ceiling, online > offline > off, that starts at what the config asks for and only ever
sinks: online without a key or an answer becomes offline, and whatever else goes wrong switches tracking off, each with
one line for the whole process. A stack of 64 models would otherwise wait and warn 64 times.

Two settings keep a dead server from holding a run up: W&B waits 90 s in `init` and for ever in `finish` by default.
`log` never waits. Finishing is done in threads, so that a model that leaves the stack early costs the others nothing
and the waits of many models do not add up.
"""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from scaling.config.tracking import Mode, TrackingConfig
from scaling.console.terminal import note
from scaling.console.tracking.files import await_exit, last_step
from scaling.console.tracking.names import config, quantizations

if TYPE_CHECKING:
    from scaling.config.pretrained.measured_run import MeasuredRun
    from scaling.config.run import Run

_ORDER: tuple[Mode, ...] = ("off", "offline", "online")


@dataclass(frozen=True, kw_only=True)
class Tracked:
    """A run that W&B records."""

    run_id: str
    study: str
    tracking: TrackingConfig
    settings: Mapping[str, Any]
    """Its resolved config and what it was made with, as a plain nested dict."""
    continues: bool
    """Whether it goes on from what W&B has of it already. What begins anew asks not to be resumed."""

    @classmethod
    def of(cls, run: "Run | MeasuredRun", made: Mapping[str, Any], *, continues: bool) -> "Tracked":
        return cls(
            run_id=run.run_id,
            study=run.study,
            tracking=run.tracking,
            settings=config(run, made),
            continues=continues,
        )


class Trackers:
    """The W&B runs of one stack, one a model. Use as a context: what is open at its end is finished as failed.

    Opening costs 0.5 s to import W&B and some 40 ms a run; `log` costs 0.4 ms and never waits.

    A run that goes on is the same W&B run. Offline it writes a second file under the same id, which `wandb sync`
    appends to the first: so it holds no step that is in the first, and, at its end, the whole summary, which replaces
    the first one's.

    Args:
        folder: the study's folder; files go to `folder/wandb`.

    Raises:
        InputError: WANDB_MODE has an unknown value. No other fault of W&B gets out of here.
    """

    def __init__(self, folder: Path, runs: Sequence[Tracked]):
        self._folder = folder
        self._pool = ThreadPoolExecutor(max_workers=max(1, len(runs)), thread_name_prefix="wandb")
        self._ending: list[Future] = []
        self._open: dict[str, Any] = {}
        self._told: dict[str, int] = {}
        """The last step that earlier files have of a run."""
        wanted = [(run, run.tracking.wanted()) for run in runs]
        while starting := [(run, mode) for run, most in wanted if (mode := _ceiling.under(most)) != "off"]:
            try:
                self._open = {run.run_id: self._start(mode, run) for run, mode in starting}
                break
            except Exception as fault:
                online = any(mode == "online" for _, mode in starting)
                _ceiling.lower("offline" if online else "off", fault)
                _release()

    def __enter__(self) -> "Trackers":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def log(self, run_id: str, tokens: int, values: Mapping[str, float]) -> None:
        """Write the values of a model that has seen `tokens` tokens.

        The W&B step is the token count, so W&B itself drops what an online run measures a second time.
        """
        run = self._open.get(run_id)
        if run is None or _ceiling.under("offline") == "off" or tokens <= self._told.get(run_id, -1):
            return
        try:
            run.log({**values, "tokens": tokens}, step=tokens)
        except Exception as fault:
            _ceiling.lower("off", fault)

    def finish(
        self,
        run_id: str,
        tokens: int,
        summary: Mapping[str, Any],
        ptq_rows: Sequence[Mapping] = (),
        failed: bool = False,
    ) -> None:
        """End a model's run without waiting for it.

        Args:
            tokens: that it has seen.
            summary: final values; they replace what `log` left in the summary under these names.
            ptq_rows: all its quantizations, also those of snapshots. They become the W&B table `ptq`, whose columns are
                all names that occur, absent values are null; those of the model at its end are scalars as well. Their
                step is `tokens` and one more for each: rows that are added later come behind the last step then, where
                W&B takes them.
            failed: sets the run's exit code to 1.
        """
        run = self._open.pop(run_id, None)
        if run is None:
            return
        final: dict[str, Any] = {}
        if ptq_rows:
            last = [row for row in ptq_rows if row["tokens_seen"] == tokens]
            final = {"tokens": tokens, **quantizations(last)}
        rows = [dict(row) for row in ptq_rows]
        self._ending.append(self._pool.submit(self._end, run, tokens, dict(summary), final, rows, failed))

    def close(self) -> None:
        """Finish what is open as failed and wait for all runs. With a dead server that takes `finish_timeout`, and up
        to 20 s more for tables, which W&B asks the server about first (WANDB_HTTP_TIMEOUT shortens it)."""
        for run_id in list(self._open):
            self.finish(run_id, 0, {}, failed=True)
        late = wait(self._ending, timeout=2).not_done
        if late:
            note(f"W&B: waiting for {len(late)} runs to upload")
        self._pool.shutdown()

    def _start(self, mode: Mode, tracked: Tracked) -> Any:
        files, tracking = self._folder / "wandb", tracked.tracking
        wandb = ready(files)
        if tracked.continues and mode == "offline":
            self._told[tracked.run_id] = last_step(files, tracked.run_id)
        run = wandb.init(
            mode=mode,
            project=tracking.in_project(),
            entity=tracking.entity,
            group=tracking.in_group(tracked.study),
            job_type=tracking.job_type,
            tags=list(tracking.tags) or None,
            notes=tracking.notes,
            id=tracked.run_id,
            name=tracking.name or tracked.run_id,
            config=dict(tracked.settings),
            dir=self._folder,
            reinit="create_new",
            resume="allow" if tracked.continues else None,
            settings=quiet(tracking.init_timeout, tracking.finish_timeout),
        )
        run.define_metric("tokens")
        run.define_metric("*", step_metric="tokens")
        return run

    def _end(self, run: Any, tokens: int, summary: dict, final: dict, rows: list[dict], failed: bool) -> None:
        fault: object = None
        try:
            try:
                if rows:
                    run.log({**final, "ptq": _table(rows)}, step=tokens + len(rows))
            finally:  # a dead server may refuse the table
                run.summary.update(summary)
        except Exception as caught:
            fault = caught
        try:
            finish(run, failed)
        except TimeoutError as late:
            fault = f"not uploaded in time ({late}), `wandb sync --include-online` can do it later"
        except Exception as caught:
            fault = caught
        if fault is not None:
            _ceiling.lower("off" if run.offline else "offline", fault)


def finish(run: Any, failed: bool = False) -> None:
    """End a W&B run with its files on disk: what comes next reads them."""
    path = Path(run.settings.sync_file)
    run.finish(exit_code=1 if failed else 0)
    await_exit(path)


def ready(files: Path) -> Any:
    """The module `wandb`, set to write its files there and to say nothing."""
    files.mkdir(parents=True, exist_ok=True)
    # Tables are staged in the user's home otherwise, where `wandb sync` on another machine would miss them.
    os.environ.setdefault("WANDB_DATA_DIR", str(files.resolve()))
    import wandb

    # Silent for the process, not only for the run: it is what keeps W&B from asking a terminal for a key.
    wandb.setup(wandb.Settings(silent=True))
    return wandb


def quiet(init_timeout: float, finish_timeout: float) -> Any:
    """Settings of a W&B run that says nothing, records nothing by itself, and waits no longer than this."""
    import wandb

    return wandb.Settings(
        silent=True,
        console="off",  # else each run of the stack records the whole terminal
        disable_code=True,
        disable_git=True,
        disable_job_creation=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_save_requirements=False,
        init_timeout=init_timeout,
        finish_timeout=finish_timeout,
        finish_timeout_raises=True,
    )


def _table(rows: list[dict]) -> Any:
    import wandb

    columns = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[row.get(name) for name in columns] for row in rows]
    # Mixed types, because a column may hold a name in one row and a number in the next (formats, block sizes).
    return wandb.Table(columns=columns, data=cells, allow_mixed_types=True)


def _release() -> None:
    """End what a failed start has left: W&B's service holds the id of such a run as taken for as long as it lives."""
    try:
        import wandb

        wandb.teardown()
    except Exception as fault:
        _ceiling.lower("off", fault)


class _Ceiling:
    """The most that tracking may do in this process."""

    def __init__(self):
        self._mode: Mode = "online"
        self._lock = Lock()

    def under(self, mode: Mode) -> Mode:
        return min(mode, self._mode, key=_ORDER.index)

    def lower(self, mode: Mode, why: object) -> None:
        """Sink to `mode` and say why in one line; silent when that deep already, as other threads may be first."""
        with self._lock:
            if self.under(mode) == self._mode:
                return
            self._mode = mode
        reason = " ".join(str(why).split()) or type(why).__name__
        outcome = "tracking is off" if mode == "off" else f"tracking goes on {mode}"
        note(f"W&B: {reason}; {outcome}, training is not affected")


_ceiling = _Ceiling()
