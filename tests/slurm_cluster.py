#!/usr/bin/env python3
"""A real Slurm cluster of virtual nodes on one Debian 12 machine, for tests. Run as root.

  tests/slurm_cluster.py start [--nodes 16]   bring it up (idempotent; installs missing packages)
  eval "$(tests/slurm_cluster.py env)"        then sinfo, srun, sbatch, sacct, submitit ... use it
  tests/slurm_cluster.py status
  tests/slurm_cluster.py kill-node n03        crash: SIGKILL everything on that node
  tests/slurm_cluster.py cut-node n03         its network link goes down (--net ns only)
  tests/slurm_cluster.py revive-node n03      boot / reconnect it and resume it in Slurm
  tests/slurm_cluster.py stop                 end every process, remove links and host names

Every subcommand takes --dir (default $SLURM_CLUSTER_DIR or slurm-cluster in the temporary folder);
two clusters at once need their own --dir, --port and --prefix. With --net ns (taken where it can
be had) a node has its own host name, network, IP address and loopback, and shares all files but
DIR/local, its own scratch; this machine is the login node, called `login` on the nodes. With
--net host nodes share this machine's host name, ports and DIR/local. GPUs are fakes: Slurm
allocates them and sets CUDA_VISIBLE_DEVICES, no more.
"""

import argparse
import contextlib
import fcntl
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

PMIX = "/usr/lib/x86_64-linux-gnu/pmix2/lib"
PACKAGES = {  # a file that must be there -> the Debian package that has it
    "/usr/sbin/munged": "munge",
    "/usr/sbin/slurmctld": "slurmctld",
    "/usr/sbin/slurmd": "slurmd",
    "/usr/bin/srun": "slurm-client",
    "/usr/sbin/slurmdbd": "slurmdbd",
    "/usr/lib/x86_64-linux-gnu/slurm-wlm/accounting_storage_mysql.so": "slurm-wlm-mysql-plugin",
    "/usr/sbin/mariadbd": "mariadb-server-core",
    "/bin/ip": "iproute2",
    f"{PMIX}/libpmix.so.2": "libpmix2",
}
LOGIN = socket.gethostname().split(".")[0]


def sh(*cmd, check=True, **kw):
    r = subprocess.run(cmd, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **kw)
    if check and r.returncode:
        sys.exit(f"slurm-cluster: {' '.join(cmd)}: {r.stdout.strip()}")
    return r.stdout


def install():
    missing = [pkg for path, pkg in PACKAGES.items() if not os.path.exists(path)]
    if missing:
        print("installing", *missing, flush=True)
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
        sh("apt-get", "update", env=env)
        sh(
            "apt-get",
            "install",
            "-y",
            "-o",
            "DPkg::Lock::Timeout=120",
            "--no-install-recommends",
            *missing,
            env=env,
        )
    if not os.path.exists(
        f"{PMIX}/libpmix.so"
    ):  # what Slurm's plugin loads; Debian has it in libpmix-dev
        os.symlink("libpmix.so.2", f"{PMIX}/libpmix.so")


def namespaces():
    probe = "ip netns add slprobe && ip link add slprobe type bridge && unshare --uts true"
    ok = subprocess.run(probe, shell=True, stderr=subprocess.DEVNULL).returncode == 0
    subprocess.run(
        "ip link del slprobe; ip netns del slprobe", shell=True, stderr=subprocess.DEVNULL
    )
    return ok


def listening(addr, port):
    try:
        socket.create_connection((addr, port), 1).close()
        return True
    except OSError:
        return False


class Cluster:
    def __init__(self, root, opts):
        self.root, self.opts = Path(root), opts
        self.conf, port = self.root / "slurm.conf", opts["port"]
        self.ns = opts["net"] == "ns"
        # the bridge; nodes' links and namespaces are named after it
        self.link = f"sl{zlib.crc32(str(self.root).encode()):08x}"
        self.subnet = f"10.{port >> 8}.{port & 255}"
        self.host = f"{self.subnet}.1" if self.ns else "127.0.0.1"
        self.nodes = [f"{opts['prefix']}{i:02d}" for i in range(opts["nodes"])]
        self.env = {
            **os.environ,
            "SLURM_CONF": str(self.conf),
            "SLURM_CLUSTER_DAEMON": str(self.root),
        }

    def addr(self, i):
        return f"{self.subnet}.{i + 10}" if self.ns else f"127.0.1.{i + 1}"

    def port(self, i):
        return self.opts["port"] + (3 if self.ns else 3 + i)

    # ---- processes: each daemon runs in the foreground, its pid in DIR/pids/NAME
    def spawn(self, name, *cmd, node=None):
        if self.alive(name):
            return
        env = {**self.env, **({"SLURMD_NODENAME": node} if node else {})}
        with open(self.root / "log" / f"{name}.out", "ab") as out:
            p = subprocess.Popen(
                cmd,
                env=env,
                cwd=self.root,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        (self.root / "pids" / name).write_text(str(p.pid))

    @staticmethod
    def environ(pid):
        try:
            return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            return []

    def alive(self, name):
        """The pid of this cluster's daemon of that name, or None."""
        try:
            pid = int((self.root / "pids" / name).read_text())
            for _ in range(500):
                if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX":
                    return None
                if any(env := self.environ(pid)):  # else it is within an exec
                    return pid if f"SLURM_CLUSTER_DAEMON={self.root}".encode() in env else None
                time.sleep(0.01)
        except (OSError, ValueError):
            pass

    def wait(self, name, test):
        end = time.time() + 60
        while not test():
            if time.time() > end or not self.alive(name):
                tail = (self.root / "log" / f"{name}.out").read_text().splitlines()[-8:]
                sys.exit(
                    "\n".join(
                        [f"slurm-cluster: {name} did not come up; log/{name}.out ends:", *tail]
                    )
                )
            time.sleep(0.05)

    def kill(self, node=None):
        """SIGKILL what runs on a node (slurmd, slurmstepd, jobs), or the whole cluster."""
        conf, ours = (
            f"SLURM_CONF={self.conf}".encode(),
            f"SLURM_CLUSTER_DAEMON={self.root}".encode(),
        )
        on_node = f"SLURMD_NODENAME={node or ''}".encode()
        for _ in range(100):
            pids = set()
            for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
                env = self.environ(pid)
                if (node and on_node in env and (conf in env or ours in env)) or (
                    not node
                    and (ours in env or (conf in env and any(e.startswith(on_node) for e in env)))
                ):
                    pids.add(pid)
            for ns in Path("/run/netns").glob(f"{self.link}-{node or '*'}"):
                pids |= {int(p) for p in sh("ip", "netns", "pids", ns.name).split()}
            pids.discard(os.getpid())
            if not pids:
                return
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
        sys.exit(f"slurm-cluster: could not kill {sorted(pids)}")

    # ---- network
    def net_up(self):
        if not self.ns:
            return
        names = [(self.host, "login"), *((self.addr(i), n) for i, n in enumerate(self.nodes))]
        lines = "".join(f"{addr} {name} # {self.link}\n" for addr, name in names)
        hosts = Path("/etc/hosts").read_text()
        Path("/etc/hosts").write_text(hosts + ("" if hosts.endswith("\n") else "\n") + lines)
        for n in self.nodes:  # what `ip netns exec` puts in the place of /etc/hosts
            own = Path(f"/etc/netns/{self.link}-{n}/hosts")
            own.parent.mkdir(parents=True, exist_ok=True)
            own.write_text(f"127.0.0.1 localhost\n{self.host} {LOGIN}\n{lines}")
        batch = [
            f"link add {self.link} type bridge",
            f"addr add {self.host}/24 dev {self.link}",
            f"link set {self.link} up",
        ]
        for i, n in enumerate(self.nodes):
            batch += [
                f"netns add {self.link}-{n}",
                f"link add {self.link}.{i} type veth peer name eth0 netns {self.link}-{n}",
                f"link set {self.link}.{i} master {self.link} up",
            ]
        sh("ip", "-batch", "-", input="\n".join(batch) + "\n")
        for i, n in enumerate(self.nodes):
            sh(
                "ip",
                "-n",
                f"{self.link}-{n}",
                "-batch",
                "-",
                input=f"link set lo up\naddr add {self.addr(i)}/24 dev eth0\nlink set eth0 up\n",
            )

    def net_down(self):
        for ns in Path("/run/netns").glob(f"{self.link}-*"):
            sh("ip", "netns", "del", ns.name, check=False)
        for own in Path("/etc/netns").glob(f"{self.link}-*"):
            shutil.rmtree(own)
        sh("ip", "link", "del", self.link, check=False)
        hosts = Path("/etc/hosts").read_text().splitlines(True)
        kept = [h for h in hosts if not h.endswith(f" # {self.link}\n")]
        if kept != hosts:
            Path("/etc/hosts").write_text("".join(kept))

    # ---- configuration
    def write_conf(self):
        o, d, port = self.opts, self.root, self.opts["port"]
        for sub in ("log", "pids", "state", "spool", "db", "dev", "local"):
            (d / sub).mkdir(parents=True, exist_ok=True)
        (d / "munge.key").write_bytes(secrets.token_bytes(128))
        os.chmod(d / "munge.key", 0o600)
        for g in range(o["gpus"]):
            (d / "dev" / f"gpu{g}").symlink_to("/dev/null")  # Slurm asks for a device
        gres = f" Gres=gpu:{o['gpu_type']}:{o['gpus']}" if o["gpus"] else ""
        (d / "gres.conf").write_text(
            f"Name=gpu Type={o['gpu_type']} File={d}/dev/gpu[0-{o['gpus'] - 1}]\n"
            if o["gpus"]
            else ""
        )
        (d / "mpi.conf").write_text(f"PMIxCliTmpDirBase={d}/local\n")  # nodes must not share it
        (d / "cgroup.conf").write_text(
            "CgroupPlugin=cgroup/v1\n"
        )  # unused, but autodetection may fail
        (d / "slurmdbd.conf").write_text(f"""\
AuthType=auth/munge
AuthInfo=socket={d}/munge.sock
DbdHost={LOGIN}
DbdAddr={self.host}
DbdPort={port + 1}
SlurmUser=root
PidFile={d}/slurmdbd.pid
LogFile={d}/log/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={port + 2}
StorageUser=root
StorageLoc=slurm
""")
        os.chmod(d / "slurmdbd.conf", 0o600)
        nodes = "".join(
            f"NodeName={n} NodeHostname={n if self.ns else LOGIN} NodeAddr={self.addr(i)}"
            f" Port={self.port(i)}\n"
            for i, n in enumerate(self.nodes)
        )
        self.conf.write_text(f"""\
ClusterName={self.link}
SlurmctldHost={LOGIN}({self.host})
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={d}/munge.sock
StateSaveLocation={d}/state
SlurmdSpoolDir={d}/spool/%n
SlurmctldPidFile={d}/slurmctld.pid
SlurmdPidFile={d}/slurmd-%n.pid
SlurmctldLogFile={d}/log/slurmctld.log
SlurmdLogFile={d}/log/slurmd-%n.log
# no cgroups, no binding; nodes are as large as declared, whatever the machine has
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=5
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU={o["mem"] // o["cpus"]}
GresTypes=gpu
MpiDefault={o["mpi"]}
SchedulerParameters=bf_interval=1,sched_interval=1,batch_sched_delay=0
# short timeouts: a dead node is noticed within about 15 s
SlurmdTimeout=5
MessageTimeout=5
SlurmctldTimeout=10
MinJobAge=3600
KillWait=5
ReturnToService=2
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost={self.host}
AccountingStoragePort={port + 1}
AccountingStoragePass={d}/munge.sock
AccountingStorageTRES=gres/gpu
NodeName=DEFAULT CPUs={o["cpus"]} RealMemory={o["mem"]}{gres} State=UNKNOWN
{nodes}# jobs in main preempt (requeue) those in low, which have GraceTime to checkpoint
PartitionName=main Nodes=ALL Default=YES State=UP PriorityTier=10 PreemptMode=OFF
PartitionName=low Nodes=ALL State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=20
""")

    # ---- commands
    def slurmd(self, i):
        node, cmd = self.nodes[i], ["slurmd", "-D", "-N", self.nodes[i]]
        (self.root / "spool" / node).mkdir(exist_ok=True)
        if self.ns:
            cmd = [
                "ip",
                "netns",
                "exec",
                f"{self.link}-{node}",
                "unshare",
                "--uts",
                "sh",
                "-ec",
                'hostname "$0"; mount --bind "spool/$0" local; exec "$@"',
                node,
                *cmd,
            ]
        self.spawn(node, *cmd, node=node)

    def start(self):
        d, o, t0 = self.root, self.opts, time.time()
        saved = load(d)
        if saved and saved.opts != o:
            if saved.alive("slurmctld"):
                print("options differ from the running cluster's: starting afresh")
            saved.stop()
        if not self.alive("slurmctld"):
            if d.exists() and any(d.iterdir()) and not saved:
                sys.exit(f"slurm-cluster: {d} is not empty and not a cluster's")
            self.stop()
            try:
                socket.create_server(("", o["port"])).close()
            except OSError as e:
                sys.exit(
                    f"slurm-cluster: port {o['port']}: {e.strerror}; choose another --port "
                    "and --prefix"
                )
            shutil.rmtree(d, ignore_errors=True)
            d.mkdir(parents=True)
            (d / "cluster.json").write_text(json.dumps(o))
            self.write_conf()
            self.net_up()
        self.spawn(
            "munged",
            "munged",
            "-F",
            "--force",
            f"--socket={d}/munge.sock",
            f"--key-file={d}/munge.key",
            f"--pid-file={d}/munged.pid",
            f"--log-file={d}/log/munged.log",
            f"--seed-file={d}/munge.seed",
        )
        self.spawn(
            "mariadbd",
            "mariadbd",
            "--no-defaults",
            "--user=root",
            f"--datadir={d}/db",
            f"--socket={d}/db.sock",
            "--bind-address=127.0.0.1",
            f"--port={o['port'] + 2}",
            "--skip-grant-tables",
            "--performance-schema=off",
            "--innodb-buffer-pool-size=32M",
            "--innodb-log-file-size=16M",
            "--innodb-flush-log-at-trx-commit=0",
            "--innodb-lock-wait-timeout=900",
            "--skip-networking=0",
        )
        self.wait("munged", (d / "munge.sock").exists)
        self.wait("mariadbd", lambda: listening("127.0.0.1", o["port"] + 2))
        self.spawn("slurmdbd", "slurmdbd", "-D")
        self.wait("slurmdbd", lambda: listening(self.host, o["port"] + 1))
        self.spawn("slurmctld", "slurmctld", "-D")
        self.wait("slurmctld", lambda: listening(self.host, o["port"]))
        for i in range(len(self.nodes)):
            self.slurmd(i)
        self.wait(self.nodes[-1], lambda: self.ready() == len(self.nodes))
        print(
            f"{len(self.nodes)} nodes up in {time.time() - t0:.1f} s; now: "
            f'eval "$({sys.argv[0]} env --dir {d})"'
        )

    def ready(self):
        states = sh("sinfo", "-hN", "-p", "main", "-o", "%t", env=self.env, check=False).split()
        return sum(s in ("idle", "mix", "alloc", "comp") for s in states)

    def revive(self, node):
        i = self.nodes.index(node)
        if self.ns:
            sh("ip", "link", "set", f"{self.link}.{i}", "up")
        self.slurmd(i)
        self.wait(node, lambda: listening(self.addr(i), self.port(i)))
        end = time.time() + 30
        while time.time() < end:
            state = sh("sinfo", "-hn", node, "-p", "main", "-o", "%t", env=self.env).strip()
            if state in ("idle", "mix", "alloc", "comp"):
                return print(node, state)
            sh("scontrol", "update", f"nodename={node}", "state=resume", env=self.env, check=False)
            time.sleep(0.5)
        sys.exit(f"slurm-cluster: {node} is {state}")

    def stop(self):
        self.kill()  # no need of anything gentler: start makes everything afresh
        self.net_down()

    def status(self):
        daemons = ["munged", "mariadbd", "slurmdbd", "slurmctld", *self.nodes]
        dead = [n for n in daemons if not self.alive(n)]
        print(
            f"{self.root}: {len(daemons) - len(dead)} of {len(daemons)} daemons run",
            f"(not {' '.join(dead)})" if dead else "",
        )
        if not self.alive("slurmctld"):
            return 1
        print(
            sh("sinfo", env=self.env, check=False) + sh("squeue", env=self.env, check=False), end=""
        )
        return int(bool(dead))


def load(root):
    try:
        return Cluster(root, json.loads((Path(root) / "cluster.json").read_text()))
    except FileNotFoundError:
        return None


def main():
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sub = p.add_subparsers(dest="cmd", required=True)
    for name in ("start", "env", "status", "kill-node", "cut-node", "revive-node", "stop"):
        s = sub.add_parser(name)
        s.add_argument(
            "--dir",
            default=os.environ.get(
                "SLURM_CLUSTER_DIR", os.path.join(tempfile.gettempdir(), "slurm-cluster")
            ),
        )
        if name.endswith("-node"):
            s.add_argument("node")
        if name == "start":
            s.add_argument("--nodes", type=int, default=16)
            s.add_argument("--cpus", type=int, default=64, help="declared per node")
            s.add_argument("--mem", type=int, default=512000, help="declared MB per node")
            s.add_argument("--gpus", type=int, default=8, help="fake GPUs per node")
            s.add_argument("--gpu-type", default="h100")
            s.add_argument("--mpi", default="none", help="MpiDefault: none, pmix or pmi2")
            s.add_argument("--net", choices=["auto", "ns", "host"], default="auto")
            s.add_argument("--port", type=int, default=26800, help="first of the ports used")
            s.add_argument("--prefix", default="n", help="of node names")
    args = vars(p.parse_args())
    cmd, root = args.pop("cmd"), os.path.realpath(args.pop("dir"))
    if os.geteuid():
        sys.exit("slurm-cluster: run it as root")
    if len(root) > 80 or root == "/":
        sys.exit(
            "slurm-cluster: --dir must be a short path, 80 characters at most (it holds sockets)"
        )
    if cmd == "start":
        if not 1 <= args["nodes"] <= 200:
            sys.exit("slurm-cluster: --nodes must be 1 to 200")
        lock = open(__file__)  # noqa: SIM115  one start at a time
        fcntl.flock(lock, fcntl.LOCK_EX)
        install()
        if args["net"] == "auto":
            args["net"] = "ns" if namespaces() else "host"
        return Cluster(root, args).start()
    cluster = load(root)
    if not cluster:
        sys.exit(0 if cmd == "stop" else f"slurm-cluster: no cluster in {root}")
    if "node" in args and args["node"] not in cluster.nodes:
        sys.exit(f"slurm-cluster: no node {args['node']}")
    if cmd == "env":
        print(f"export SLURM_CONF={cluster.conf} SLURM_CLUSTER_DIR={root}")
    elif cmd == "status":
        sys.exit(cluster.status())
    elif cmd == "kill-node":
        cluster.kill(args["node"])
    elif cmd == "cut-node":
        if not cluster.ns:
            sys.exit("slurm-cluster: cut-node needs --net ns")
        sh("ip", "link", "set", f"{cluster.link}.{cluster.nodes.index(args['node'])}", "down")
    elif cmd == "revive-node":
        cluster.revive(args["node"])
    elif cmd == "stop":
        cluster.stop()


if __name__ == "__main__":
    main()
