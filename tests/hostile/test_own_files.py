"""Files that dwf adds to are its own: what a stranger puts in their place neither grows nor waits.

A folder that is passed on may hold a link at the place of its lock or its log. What lies behind the
link must stay as it is.
"""

import errno
import os
import socket
from pathlib import Path

import pytest

from dwf.errors import DwfError
from dwf.evaluation.report import index
from dwf.evaluation.report.index import renew_index, write_index
from dwf.files import open_own
from dwf.metrics import MetricsLog
from dwf.run_folder import RunFolder, hold, holder
from dwf.screen import kept, kept_in, note
from dwf.zoo.facts import Facts

PRIVATE = '{"step": 0}\n'


def _link(path):
    (path.parent / "private").write_text(PRIVATE)
    path.symlink_to("private")


def _socket(path, monkeypatch):
    monkeypatch.chdir(path.parent)  # paths of sockets are short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name)


PLACED = {
    "link": _link,
    "link in a circle": lambda path: path.symlink_to(path.name),
    "link to nothing": lambda path: path.symlink_to("new"),
    "device": lambda path: path.symlink_to("/dev/zero"),
    "pipe": os.mkfifo,
    "folder": os.mkdir,
}


def _log(folder):
    with kept(), kept_in(folder):
        note("a line")


WRITERS = {
    "lock": lambda folder: hold(folder).__enter__(),
    "command.txt": lambda folder: RunFolder(folder, {}),
    "metrics.jsonl": lambda folder: MetricsLog(folder / "metrics.jsonl"),
    "log.txt": _log,
}


@pytest.mark.parametrize("how", PLACED)
@pytest.mark.parametrize("name", WRITERS)
def test_no_line_is_added_to_what_is_no_file_of_dwfs(name, how, tmp_path):
    PLACED[how](tmp_path / name)
    if name == "log.txt":  # what is told of work must not end it
        WRITERS[name](tmp_path)
    else:
        with pytest.raises(DwfError, match=name):
            WRITERS[name](tmp_path)
    if how == "link":
        assert (tmp_path / "private").read_text() == PRIVATE
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("how", PLACED)
def test_who_holds_a_folder_is_not_asked_of_a_pipe_or_link(how, tmp_path):
    PLACED[how](tmp_path / "lock")
    assert holder(tmp_path) is None


def test_a_socket_is_no_file_either(tmp_path, monkeypatch):
    _socket(tmp_path / "lock", monkeypatch)
    for mode in ("r", "a", "a+"):
        with pytest.raises(DwfError, match="lock"):
            open_own(tmp_path / "lock", mode)


def test_own_files_are_read_and_added_to(tmp_path):
    file = tmp_path / "log.txt"
    for word in ("one", "two"):
        with open_own(file, "a") as opened:
            opened.write(word)
    with open_own(file, "r") as opened:
        assert opened.read() == "onetwo"
    with open_own(file, "a+") as opened:
        opened.seek(0)
        assert opened.read() == "onetwo"


def test_a_page_of_pages_passes_by_what_is_no_page(tmp_path):
    for name, content in {"pipe": None, "bytes": b"<title>Report: \xff</title>"}.items():
        place = tmp_path / "reports" / name / "report.html"
        place.parent.mkdir(parents=True)
        os.mkfifo(place) if content is None else place.write_bytes(content)
    assert "bytes" in write_index(tmp_path).read_text()


RECORDS = [
    "[]",
    "null",
    "{",
    '{"rows": "x"}',
    '{"rows": [1]}',
    '{"headline": {"a": 1}}',
    '{"headline": 1}',
]


def test_a_folder_that_cannot_be_looked_into_is_named_beside_the_rest(tmp_path, monkeypatch):
    for name in ("mine", "theirs"):
        (tmp_path / "reports" / name).mkdir(parents=True)
    exists = Path.exists

    def refusing(path):
        if path.parent.name == "theirs":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return exists(path)

    monkeypatch.setattr(Path, "exists", refusing)
    text = write_index(tmp_path).read_text()
    assert ">mine</a>" in text and ">theirs</a>" in text


def test_a_page_of_pages_names_what_was_altered_without_words(make_zoo):
    root = make_zoo(widths=(64, 4, 10)).path.parent.parent
    for record in RECORDS:
        for folder in ("zoos/small/run", "runs/r", "reports/e", "audits/a/run"):
            (root / folder).mkdir(parents=True, exist_ok=True)
            (root / folder / "done.json").write_text(record)
        text = write_index(root).read_text()
        assert all(f">{name}</a>" in text for name in ("small", "r", "e", "a"))


def test_a_page_of_pages_that_is_anothers_ends_no_work(tmp_path, monkeypatch, caplog):
    def denied(path, *args, **named):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(index, "replacing_alone", denied)
    renew_index(tmp_path)
    assert "index.html is as it was: Permission denied" in caplog.text
    with pytest.raises(PermissionError):
        write_index(tmp_path)


def test_a_page_of_pages_passes_by_folders_that_may_not_be_read(make_zoo, monkeypatch):
    root = make_zoo(widths=(64, 4, 10)).path.parent.parent

    def denied(folder):
        raise PermissionError(errno.EACCES, "Permission denied", str(folder))

    monkeypatch.setattr(Facts, "read", denied)
    assert ">small</a>" in write_index(root).read_text()
