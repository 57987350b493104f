"""Commands, networks and secrets: what a stranger writes runs nowhere and is told to nobody.

A script of Slurm is held to what bash and sbatch make of it: bash runs it with commands in place of
Slurm's, and every option is read back by `shlex`, as sbatch reads it.
"""

import contextlib
import json
import os
import shlex
import socket
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
import torch.distributed as dist

from dwf import distributed, meeting
from dwf.cluster import backend, ranked, slurm, submit
from dwf.cluster.config import ClusterLaunch, SiteConfig, read_site
from dwf.cluster.ranked import RankedJob
from dwf.errors import ConfigError, DwfError, WrongLaunch
from dwf.ranks import TORCHRUN, Ranks
from dwf.run_folder import RunFolder
from dwf.stages import Work
from dwf.zoo import care
from tests.ranked import launch

EVIL = "a\ntouch ran\n#"
NASTY = 'it\'s; touch ran; $(touch ran) `touch ran` "x" && touch ran #'
PATIENT = timedelta(minutes=4)
"""Longer than anything takes that does not hang."""
WORDS = ("partition", "account", "qos", "constraint", "time", "scratch")


def work_in(folder: Path, count: int = 1) -> Work:
    return Work(
        folder,
        count,
        unit=print,
        finished=lambda folder: set(),
        progress=lambda folder: (0.0, ""),
        what="x",
        size=1,
        unit_name="networks",
    )


def script_of(folder: Path, site: SiteConfig) -> str:
    work = work_in(folder)
    return submit.script(work, submit.cut_units(work, [0], nodes=1, site=site))


# --- scripts and their words --------------------------------------------------------------------


@pytest.mark.parametrize("key", WORDS)
def test_a_line_more_in_a_sites_words_is_refused(key, tmp_path):
    for text in (EVIL, "a\rb", "a\x1b[2J", "a\x00", "a\u2028b", "a\x85"):
        with pytest.raises((ValueError, ConfigError), match=f"{key} = .* has the control charac"):
            SiteConfig(**{key: "10" + text})
    (tmp_path / "site.yaml").write_text(json.dumps({key: "10" + EVIL}))
    with pytest.raises(ConfigError, match=f"site.yaml.*{key} = .* control character"):
        read_site(ClusterLaunch(Path("x"), cluster=tmp_path / "site.yaml"))


def test_flags_and_further_options_are_held_to_the_same():
    with pytest.raises(ConfigError, match=r"partition = .* control character"):
        read_site(ClusterLaunch(Path("x"), partition=EVIL))
    with pytest.raises(ValueError, match=r"sbatch.comment = .* control character"):
        SiteConfig(sbatch={"comment": EVIL})
    for option in ("a\ntouch ran", "a b", "-wrap", "", "a=b", "a;b", "$(a)"):
        with pytest.raises(ValueError, match="expected the name of an option"):
            SiteConfig(sbatch={option: "1"})


def test_a_folder_with_a_line_more_in_its_name_is_never_submitted(tmp_path):
    folder = tmp_path / EVIL
    with pytest.raises(ConfigError, match=r"the folder = .* control character"):
        script_of(folder, SiteConfig())
    with pytest.raises(ConfigError, match=r"the folder = .* control character"):
        RankedJob(folder, 1, site=SiteConfig())


def test_nothing_but_set_up_lines_and_the_program_runs_in_a_job(tmp_path):
    """Whatever printable text stands in names, paths and values."""
    site = SiteConfig(
        **dict.fromkeys(("partition", "account", "qos", "constraint"), NASTY),
        setup=("touch set_up",),
        scratch=tmp_path / NASTY.replace("/", ""),
        sbatch={"comment": NASTY},
    )
    folder = tmp_path / "zoos" / NASTY
    text = script_of(folder, site)
    options = [shlex.split(line)[1:] for line in text.splitlines() if line.startswith("#SBATCH")]
    told = dict(
        option[0].removeprefix("--").split("=", 1) for option in options if "=" in option[0]
    )
    for key in ("partition", "account", "qos", "constraint", "comment", "job-name"):
        assert told[key] == NASTY
    assert told["output"] == f"{folder}/run/jobs/%j_0_log.out"
    (tmp_path / "srun").write_text('#!/bin/sh\nprintf "%s\\n" "$@" > words\n')
    (tmp_path / "srun").chmod(0o755)
    (tmp_path / "job.sh").write_text(text)
    path = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    subprocess.run(["bash", "job.sh"], cwd=tmp_path, env=path, check=True, timeout=60)
    assert (tmp_path / "set_up").exists() and not (tmp_path / "ran").exists()
    assert (tmp_path / "words").read_text().splitlines()[-1] == f"{folder}/run/jobs"


def test_a_job_of_ranks_gets_words_not_lines(tmp_path):
    job = RankedJob(tmp_path / "runs" / NASTY, 1, site=SiteConfig(account=NASTY))
    words = list(map(str, job.command()))
    assert f"--account={NASTY}" in words and f"--job-name={NASTY}" in words
    assert shlex.split(shlex.join(words)) == words
    told = ranked._look_again(job, "7").splitlines()[0].partition(": ")[2]
    assert shlex.split(told)[:5] == ["dwf", "generator", "--resume", "--name", NASTY]


# --- what folders say ---------------------------------------------------------------------------


def test_a_record_of_a_launch_is_taken_from_the_user_alone(tmp_path):
    """Its set-up lines are run by jobs, so a stranger's folder submits nothing."""
    jobs = tmp_path / "run" / "jobs"
    jobs.mkdir(parents=True)
    told = {"nodes": 1, "workers": 1, "site": {"setup": ["touch ran"]}}
    for forged in (told, told | {"signed": ""}, told | {"signed": "0" * 64}):
        (jobs / "launch.json").write_text(json.dumps(forged))
        with pytest.raises(ConfigError, match="you have not signed it"):
            backend.runner(ClusterLaunch(Path("x"), resume=True), tmp_path)


@pytest.mark.parametrize("job", ["1; touch ran", "-1", "$(touch ran)", "", 7, None, "٣"])
def test_jobs_that_are_no_numbers_become_no_words_of_a_command(job, tmp_path):
    for folder in (tmp_path / "run" / "jobs", tmp_path / "jobs"):
        folder.mkdir(parents=True)
    record = {"job": job, "elements": [[0]]}
    (tmp_path / "run" / "jobs" / "submitted.json").write_text(json.dumps([record]))
    with pytest.raises(ConfigError, match=r"submitted.json names .* expected a number"):
        submit.elements(tmp_path)
    (tmp_path / "jobs" / "submitted.json").write_text(json.dumps([job]))
    with pytest.raises(ConfigError, match=r"submitted.json names .* expected a number"):
        ranked.refuse_while_submitted(tmp_path)


DAMAGED_RECORDS = [
    *(b"", b"[{", b"{}", b"7", b"[7]", b"[{}]", b"[" * 100_000, b"\xff"),
    *(b'[{"job": "7"}]', b'[{"job": "7", "elements": [7]}]'),
    b'[{"job": "7", "elements": [["a"]]}]',
]


@pytest.mark.parametrize("text", DAMAGED_RECORDS)
def test_damaged_records_of_jobs_are_told_in_one_line(text, tmp_path):
    for folder in (tmp_path / "run" / "jobs", tmp_path / "jobs"):
        folder.mkdir(parents=True)
        (folder / "submitted.json").write_bytes(text)
    with pytest.raises(DwfError, match=r"submitted\.json .*no job of this folder lives") as told:
        submit.elements(tmp_path)
    assert "\n" not in str(told.value)
    with contextlib.suppress(DwfError):
        ranked.refuse_while_submitted(tmp_path)


def test_what_slurm_says_is_wrong_is_one_sentence(tmp_path, monkeypatch, caplog):
    squeue = tmp_path / "squeue"
    squeue.write_text(
        "#!/bin/sh\nprintf 'squeue: a\\nsqueue: error: no \\033[1m host\\n' >&2; exit 1\n"
    )
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert slurm.living() is None
    said = "`squeue` gives no answer, dwf goes on without it (no \\x1b[1m host)"
    assert caplog.messages == [said]


def test_a_strangers_command_is_never_shown_to_be_pasted(make_zoo):
    """A zoo that was imported says where its command stands; others are told by their kind."""
    zoo = make_zoo(4)
    (zoo.path / "run").mkdir(exist_ok=True)
    (zoo.path / "run" / "command.txt").write_text("dwf zoo; touch ran\n\x1b[2Jtouch ran\n")
    told = care._command_that_made(zoo.path)
    assert "touch" not in told and "\x1b" not in told


# --- networks ---------------------------------------------------------------------------------


def meet(file: Path, address: str = "127.0.0.1") -> tuple[dist.Store, dist.Store]:
    """Let two ranks meet in this process."""
    with ThreadPoolExecutor() as pool:
        first = pool.submit(meeting.open_store, file, address, port=0, world=2, timeout=PATIENT)
        return meeting.join_store(file, 1, timeout=PATIENT), first.result()


def test_ranks_meet_at_the_named_address_alone_by_a_file_that_is_gone_then(tmp_path):
    file = tmp_path / ".run.ranks"
    second, first = meet(file)
    second.set("word", "told")
    assert first.get("word") == b"told" and not list(tmp_path.iterdir())
    port = first.underlying_store.port
    assert listeners()[port] == {"127.0.0.1"}
    stranger = dist.TCPStore("127.0.0.1", port, wait_for_workers=False)
    stranger.set("word", "forged")  # who has no secret has other keys
    assert first.get("word") == b"told" and not stranger.check(["dwf-first"])


def outward() -> str:
    """Return the address from which this machine reaches others, as the kernel's routes say."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        try:
            asked.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no way to others")
        return asked.getsockname()[0]


@pytest.fixture
def two_nodes(monkeypatch):
    """This is n1, whose own name leads back to it, as in Debian's /etc/hosts; n2 is elsewhere."""
    known = {"n1": "127.0.1.1", "n2": "192.0.2.1"}
    ask = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda name, *rest, **how: ask(known.get(name, name), *rest, **how)
    )
    monkeypatch.setattr(socket, "gethostname", lambda: "n1")
    for name in (*distributed._RANKS_HERE, "SLURM_STEP_NUM_NODES", "GLOO_SOCKET_IFNAME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"SLURM_STEP_NODELIST": "n[1-2]", "GLOO_SOCKET_IFNAME": ""}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("GLOO_SOCKET_IFNAME")  # and what is set in the test goes with it
    monkeypatch.setattr(distributed, "_node_address", lambda nodes, place: ("n1", "n2")[place])


def test_a_first_node_whose_name_leads_back_to_it_is_met_where_others_reach_it(tmp_path, two_nodes):
    reached, ranks = outward(), Ranks(0, 2, launcher="srun")
    address = distributed._own_address("n1", ranks)
    assert address == reached
    second, first = meet(tmp_path / ".run.ranks", address)
    second.set("word", "told")
    assert first.get("word") == b"told"
    assert listeners()[first.underlying_store.port] == {reached}  # and on no other
    assert second.underlying_store.host == reached
    distributed._take_interface(ranks, address)
    assert meeting.interface_of(reached) == os.environ["GLOO_SOCKET_IFNAME"] != "lo"


def test_an_address_that_was_asked_for_or_serves_is_taken_as_it_is(two_nodes, monkeypatch):
    several, one = Ranks(0, 2, launcher="mpirun"), {"OMPI_COMM_WORLD_LOCAL_SIZE": "2"}
    for asked in ("127.0.0.1", "127.0.1.1", "localhost", "10.1.2.3"):
        assert distributed._own_address(asked, several) == asked
    assert distributed._own_address("n2", several) == "192.0.2.1"
    monkeypatch.setenv(*next(iter(one.items())))
    assert distributed._own_address("n1", several) == "n1"  # all ranks are here
    distributed._take_interface(several, "n1")
    assert "GLOO_SOCKET_IFNAME" not in os.environ


def listeners() -> dict[int, set[str]]:
    """Return which ports of this machine listen at which addresses."""
    found: dict[int, set[str]] = {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        address, state = line.split()[1], line.split()[3]
        number, port = address.split(":")
        if state == "0A":
            at = ".".join(str(byte) for byte in bytes.fromhex(number)[::-1])
            found.setdefault(int(port, 16), set()).add(at)
    for line in Path("/proc/net/tcp6").read_text().splitlines()[1:]:
        if line.split()[3] == "0A":
            found.setdefault(int(line.split()[1].split(":")[1], 16), set()).add("tcp6")
    return found


def test_a_rank_passes_by_what_a_killed_attempt_left_and_who_took_its_port(tmp_path):
    file = tmp_path / ".run.ranks"
    other = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    meeting._write(file, meeting.Place("127.0.0.1", other.port, "old"))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with pytest.raises(RuntimeError, match="the first rank is not at"):
        meeting.join_store(file, 1, timeout=timedelta(0))
    second, first = meet(file)
    second.set("word", "told")
    assert first.get("word") == b"told" and other.list_keys() == []


def test_a_file_that_others_may_write_or_read_brings_no_ranks_together(tmp_path):
    file = tmp_path / ".run.ranks"
    meeting._write(file, meeting.Place("127.0.0.1", 1, "s"))
    file.chmod(0o644)
    with pytest.raises(WrongLaunch, match=r"mode 644 and owner .* expected 600"):
        meeting.join_store(file, 1, timeout=PATIENT)
    link = tmp_path / "link"
    link.symlink_to(file)
    with pytest.raises(OSError, match="symbolic links"):
        meeting.join_store(link, 1, timeout=PATIENT)


def test_attempts_have_files_of_their_own(tmp_path):
    job = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0"}
    files = {
        meeting.file_of(tmp_path / "run", told)
        for told in (job, job | {"SLURM_RESTART_COUNT": "1"}, job | {"SLURM_STEP_ID": "1"}, {})
    }
    assert len(files) == 4 and {file.parent for file in files} == {tmp_path}
    assert meeting.file_of(tmp_path / "run", job | {"SLURM_PROCID": "1"}) in files


@pytest.mark.parametrize(
    ("told", "address"),
    [
        ({"LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "login.site"}, "127.0.0.1"),
        ({"LOCAL_WORLD_SIZE": "1", "MASTER_ADDR": "10.0.0.3"}, "10.0.0.3"),
    ],
)
def test_ranks_of_one_machine_listen_within_it(told, address, monkeypatch):
    """Torchrun's port is taken by its own; gloo and NCCL follow the address."""
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    for name, value in (told | {"MASTER_PORT": "29500"}).items():
        monkeypatch.setenv(name, value)
    ranks = Ranks(1, 2, launcher=TORCHRUN)
    distributed._find_place(ranks)
    assert os.environ["MASTER_ADDR"] == address and distributed._asked_port(ranks) == 0
    is_within = address == "127.0.0.1" and sys.platform == "linux"
    assert os.environ.get("GLOO_SOCKET_IFNAME") == ("lo" if is_within else None)
    assert distributed._asked_port(Ranks(1, 2, launcher="mpiexec")) == 29500


@pytest.mark.deepspeed
def test_real_ranks_of_one_machine_listen_at_no_other_address(tmp_path):
    program = tmp_path / "program.py"
    program.write_text("""
import psutil, sys
from pathlib import Path
from dwf import distributed
from dwf.ranks import world
distributed.begin(Path(sys.argv[0]))
found = {one.laddr.ip for one in psutil.Process().net_connections() if one.status == "LISTEN"}
found = list(world().in_order(2, lambda _: found))
world().on_first(lambda: print(found))  # one writes: two at once could mix their words
""")
    ran = launch(2, program, timeout=240)
    assert ran.stdout == "[{'127.0.0.1'}, {'127.0.0.1'}]\n", ran.stderr


@pytest.mark.ray
def test_a_ray_of_one_machine_is_reached_from_no_other_and_its_folder_by_no_other_user():
    program = """
import os, stat
from dwf.cluster import ray_cluster
ray_cluster.connect(1)
import psutil, ray
ray.get(ray.remote(lambda: 0).remote())
for one in [psutil.Process(), *psutil.Process().children(recursive=True)]:
    for each in one.net_connections("inet"):
        if each.status == psutil.CONN_LISTEN:
            print("listens", each.laddr.ip.removeprefix("::ffff:"))
folder = os.path.dirname(ray._private.worker._global_node.get_temp_dir_path())
print("mode", oct(stat.S_IMODE(os.stat(folder).st_mode)))
"""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    ran = subprocess.run(
        [sys.executable, "-c", program], env=clean, capture_output=True, text=True, timeout=240
    )
    assert set(ran.stdout.splitlines()) == {"listens 127.0.0.1", "mode 0o700"}, ran.stderr


# --- secrets ------------------------------------------------------------------------------------


def test_records_hold_no_secret_of_the_environment(tmp_path, monkeypatch):
    for name in ("SLURM_JWT", "SLURM_SECRET", "WANDB_API_KEY", "RAY_AUTH_TOKEN", "MUNGE_TOKEN"):
        monkeypatch.setenv(name, "hunter2")
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    run = RunFolder(tmp_path / "run", {"seed": 0})
    assert json.loads(run.environment_path.read_text())["job"] == {"SLURM_JOB_ID": "77"}
    for file in run.path.rglob("*"):
        assert not file.is_file() or "hunter2" not in file.read_text()
