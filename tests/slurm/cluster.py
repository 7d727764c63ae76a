"""A SLURM of one node in a folder of its own: started without systemd, on free ports, and stopped again.

    python -m tests.slurm.cluster FOLDER      starts one, says how to use it, stops it at Ctrl-C

Two partitions share the node. Jobs of `high` preempt those of `low`, which get `GRACE` seconds to save themselves.
There is no accounting daemon: what SLURM knows of a job is gone some minutes after its end.
"""

import ctypes
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue")
PATH = os.pathsep.join(
    (os.environ["PATH"], "/usr/sbin", "/sbin")
)  # other users than root may lack the daemons' folders
CPUS = min(4, os.cpu_count() or 1)
GRACE = 10
MAX_ARRAY_SIZE = 5

CONF = """
ClusterName=scratch
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SwitchType=switch/none
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/affinity
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/builtin
SchedulerParameters=sched_interval=1,batch_sched_delay=1,sched_min_interval=100000
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
MaxArraySize={arrays}
ReturnToService=2
KillWait=5
OverTimeLimit=0
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=low Nodes=ALL Default=YES MaxTime=INFINITE PriorityTier=1 PreemptMode=REQUEUE GraceTime={grace}
PartitionName=high Nodes=ALL MaxTime=INFINITE PriorityTier=10 PreemptMode=OFF
"""


def missing() -> list[str]:
    """The programs that are not installed here."""
    return [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]


class Cluster:
    """From `start` to `stop` jobs can be sent to it with `environment`."""

    cpus = CPUS

    def __init__(self, folder: Path):
        self.folder, self.daemons = folder, []
        self.environment = {**os.environ, "PATH": PATH, "SLURM_CONF": str(folder / "slurm.conf")}

    def start(self) -> "Cluster":
        for name in ("state", "spool"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)
        controller, node = _free_ports(2)
        self.host = socket.gethostname().split(".")[0]
        (self.folder / "slurm.conf").write_text(
            CONF.format(
                folder=self.folder,
                host=self.host,
                user=getpass.getuser(),
                controller=controller,
                node=node,
                cpus=CPUS,
                grace=GRACE,
                arrays=MAX_ARRAY_SIZE,
            )
        )
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        files = {name: self.folder / f"munge.{name}" for name in ("socket", "log-file", "pid-file", "seed-file")}
        options = [f"--{name}={path}" for name, path in {"key-file": key, **files}.items()]
        self._run("munged", "--foreground", "--force", *options)
        self._wait(lambda: (self.folder / "munge.socket").exists(), "munged")
        self._run("slurmctld", "-D")
        self._run("slurmd", "-D", "-N", self.host)
        self._wait(lambda: "idle" in self.ask("sinfo", "-h", "-o", "%T", check=False), "slurmctld and slurmd")
        return self

    def empty(self) -> None:
        """End all jobs."""
        for more in ("--state=PENDING",), ("--signal=KILL", "--full"), ():
            self.ask("scancel", f"--user={getpass.getuser()}", *more, check=False)
        deadline = time.monotonic() + 20
        while self.ask("squeue", "-h", check=False).strip() and time.monotonic() < deadline:
            time.sleep(0.2)

    def stop(self) -> None:
        """End all jobs and daemons that were started here."""
        self.empty()
        for process in reversed(self.daemons):
            process.send_signal(signal.SIGTERM)
        for process in reversed(self.daemons):
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.daemons.clear()

    def states(self) -> dict[str, str]:
        """Job that waits or runs -> its state."""
        lines = self.ask("squeue", "-h", "--array", "-o", "%i %T").splitlines()
        return dict(line.split() for line in lines)

    def hurry(self) -> None:
        """Let jobs that were queued again begin now: SLURM makes them wait for two minutes."""
        for job in self.states():
            self.ask("scontrol", "update", f"JobId={job}", "StartTime=now", check=False)

    def preempt(self) -> None:
        """Take the whole node for an instant, ahead of all jobs of `low`."""
        self.ask("srun", "--partition=high", f"--ntasks={CPUS}", "true")

    def ask(self, *command: str, check: bool = True) -> str:
        """What a command of SLURM prints."""
        return subprocess.run(command, env=self.environment, check=check, capture_output=True, text=True).stdout

    def _run(self, *command: str) -> None:
        log = open(self.folder / f"{command[0]}.out", "ab")  # noqa: SIM115, the daemon keeps it
        program = shutil.which(command[0], path=PATH)
        process = subprocess.Popen(
            [program, *command[1:]],
            env=self.environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )
        self.daemons.append(process)

    def _wait(self, is_there, what: str, seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while not is_there():
            if time.monotonic() > deadline or any(process.poll() is not None for process in self.daemons):
                said = "\n".join(path.read_text(errors="replace")[-2000:] for path in self.folder.glob("*.[lo]*"))
                self.stop()
                raise RuntimeError(f"{what} did not start\n{said}")
            time.sleep(0.2)


def _end_with_parent() -> None:
    """Let this process get SIGTERM when the one that started it has gone, however it went."""
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def main() -> None:
    lacking = missing()
    if lacking:
        sys.exit(f"{', '.join(lacking)}: not here; on Debian: apt-get install --no-install-recommends slurm-wlm munge")
    cluster = Cluster(Path(sys.argv[1]).absolute()).start()
    print(f"export SLURM_CONF={cluster.folder / 'slurm.conf'}", flush=True)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    signal.pause()
    cluster.stop()


if __name__ == "__main__":
    main()
