"""A Slurm cluster on this machine: one controller and some nodes on loopback, all of it below one folder.

No root service, no munge, no accounting. Needs slurmctld, slurmd and the client commands (Debian: slurmctld, slurmd,
slurm-client).
"""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel", "srun")
_PATH = os.environ["PATH"] + ":/usr/sbin:/sbin"

CONF = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
AuthInfo=cred_expire=5
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool/%n
SlurmctldPidFile={root}/controller.pid
SlurmdPidFile={root}/%n.pid
SlurmctldLogFile={root}/controller.log
SlurmdLogFile={root}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=500
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1,requeue_setup_env_fail
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
SlurmdParameters=config_overrides
ReturnToService=2
SlurmdTimeout=15
KillWait=3
MinJobAge=300
{gres}
NodeName=n[1-{nodes}] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{first}-{last}] CPUs=2 CoresPerSocket=2 \\
  RealMemory=4000 {node_gres} State=UNKNOWN
PartitionName=debug Nodes=n[1-{nodes}] Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=20
PartitionName=short Nodes=n[1-{nodes}] MaxTime=1 State=UP PriorityTier=1
PartitionName=urgent Nodes=n[1-{nodes}] MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""


def missing() -> list[str]:
    """Programs of Slurm that are not here."""
    return [name for name in PROGRAMS if shutil.which(name, path=_PATH) is None]


class Cluster:
    """A controller and two nodes with two CPUs and two pretended GPUs each."""

    nodes = ("n1", "n2")

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environment = {"SLURM_CONF": str(root / "slurm.conf"), "PATH": _PATH}
        for folder in ("state", *(f"spool/{name}" for name in self.nodes)):
            (root / folder).mkdir(parents=True)
        port = _free_ports(1 + len(self.nodes))
        (root / "slurm.conf").write_text(
            CONF.format(
                root=root,
                host=socket.gethostname().split(".")[0],
                user=getpass.getuser(),
                port=port,
                first=port + 1,
                last=port + len(self.nodes),
                nodes=len(self.nodes),
                gres="GresTypes=gpu",
                node_gres="Gres=gpu:2",
            ).replace("\\\n", "")
        )
        (root / "gres.conf").write_text("NodeName=n[1-2] Name=gpu File=/dev/tty[0-1]\n")

    def start(self) -> None:
        """Start all, and wait until the nodes are idle."""
        self.start_controller()
        for name in self.nodes:
            self.start_node(name)
        self.until(lambda: self.run("sinfo", "-hN", "-p", "debug", "-t", "idle").count("\n") == len(self.nodes))

    def start_controller(self) -> None:
        """Start the controller, with the state that it left."""
        self.run("slurmctld", "-f", self.environment["SLURM_CONF"], cwd=self.root / "state")

    def start_node(self, name: str) -> None:
        """Start a node."""
        self.run("slurmd", "-f", self.environment["SLURM_CONF"], "-N", name)

    def kill_controller(self) -> None:
        """Kill the controller; the jobs go on."""
        _kill(self.root / "controller.pid")

    def kill_node(self, name: str) -> None:
        """Kill a node with everything that runs on it, as if its power had failed; tell the controller."""
        _kill(self.root / f"{name}.pid")
        jobs = {path.name[len(name) + 1 :].split(".")[0] for path in (self.root / "spool" / name).glob(f"{name}_*")}
        # First what would tell the controller of the jobs' end, then the jobs.
        for stepd in (True, False):
            for process, environment, arguments in self._processes():
                job = arguments.partition("[")[2].split(".")[0] if arguments.startswith("slurmstepd") else None
                if job in jobs if stepd else (job is None and f"SLURMD_NODENAME={name}" in environment):
                    with suppress(ProcessLookupError):
                        os.kill(process, signal.SIGKILL)
        for path in (self.root / "spool" / name).glob("*"):
            if path.name.startswith((f"{name}_", "job")):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        self.run("scontrol", "update", f"node={name}", "state=down", "reason=died")

    def stop(self) -> None:
        """Stop all, whatever state it is in, with every process that it started."""
        for pid in (self.root / "controller.pid", *(self.root / f"{name}.pid" for name in self.nodes)):
            _kill(pid)
        for process, environment, arguments in self._processes():
            in_job = any(each.startswith("SLURM_JOB_ID=") for each in environment)
            if process != os.getpid() and (in_job or arguments.startswith("slurm")):
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)

    def run(self, *command: str, cwd: Path | None = None) -> str:
        """Run a command of Slurm: what it prints."""
        environment = {**os.environ, **self.environment}
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=60, check=False, cwd=cwd
        )
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
        return done.stdout

    def jobs(self) -> dict[str, str]:
        """States of the tasks that wait or run, by their ids."""
        lines = self.run("squeue", "-h", "-r", "-o", "%i %T").split("\n")
        return dict(line.split() for line in lines if line)

    def until(self, holds: Callable[[], bool], seconds: float = 120.0) -> None:
        """Look again and again until it holds."""
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, (
                f"expected this within {seconds} s, got {self.run('sinfo')}{self.jobs()}"
            )
            time.sleep(0.1)

    def _processes(self) -> Iterator[tuple[int, list[str], str]]:
        """Processes that this cluster started: id, environment, command line."""
        mark = f"SLURM_CONF={self.environment['SLURM_CONF']}"
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                environment = (folder / "environ").read_text(errors="replace").split("\0")
                if mark in environment:
                    arguments = (folder / "cmdline").read_text(errors="replace").replace("\0", " ")
                    yield int(folder.name), environment, arguments


@contextmanager
def cluster(root: Path) -> Iterator[Cluster]:
    """Give a running cluster, and stop it whatever happens."""
    made = Cluster(root)
    try:
        made.start()
        yield made
    finally:
        made.stop()


def _free_ports(count: int) -> int:
    """The first of so many free ports in a row."""
    for first in range(17100, 30000, count):
        with suppress(OSError):
            for port in range(first, first + count):
                with socket.socket() as one:
                    one.bind(("127.0.0.1", port))
            return first
    raise RuntimeError("expected free ports, got none")


def _kill(pid: Path) -> None:
    """Kill the process that a file names, and wait until it is gone."""
    with suppress(FileNotFoundError, ValueError, ProcessLookupError):
        process = int(pid.read_text())
        pid.unlink()
        if not Path(f"/proc/{process}/comm").read_text().startswith("slurm"):
            return
        os.kill(process, signal.SIGKILL)
        for _ in range(100):
            if Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return
            time.sleep(0.05)
