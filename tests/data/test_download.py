"""Downloads succeed or fail cleanly against a local server that can misbehave."""

import hashlib
import os
import re
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import requests

from normlab.data import download as download_module
from normlab.data.download import PIECE_BYTES, download
from normlab.errors import UserError
from tests.shared.waiting import GENEROUS, wait_until

ROOT = Path(__file__).parents[2]
BODY = np.random.default_rng(0).bytes(5 * PIECE_BYTES + 123)
HASH = "md5:" + hashlib.md5(BODY, usedforsecurity=False).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `BODY`.

    Attributes:
        ranges: whether it supports the Range header.
        early: number of bytes by which its ranges start too early.
        drops: for each coming request, the number of bytes after which the connection drops.
        statuses: for each coming request, a status to respond with and nothing else.
        gate: if set, every response stops half-way until the gate is opened.
        requested: the Range header of every request so far.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.ranges = True
        self.early = 0
        self.drops, self.statuses, self.requested = [], [], []
        self.gate = None
        self.url = f"http://127.0.0.1:{self.server_port}/folder/file.bin"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *args):
        pass

    def do_GET(self):
        wanted = self.headers.get("Range")
        self.server.requested.append(wanted)
        self.close_connection = True
        if self.server.statuses:
            return self.head(self.server.statuses.pop(0), {"Content-Length": "0"})
        start = 0
        if wanted and self.server.ranges:
            start = int(wanted.removeprefix("bytes=").removesuffix("-")) - self.server.early
            if start >= len(BODY):
                range_of_none = {"Content-Range": f"bytes */{len(BODY)}", "Content-Length": "0"}
                return self.head(416, range_of_none)
            whole = f"bytes {start}-{len(BODY) - 1}/{len(BODY)}"
            self.head(206, {"Content-Range": whole, "Content-Length": str(len(BODY) - start)})
        else:
            self.head(200, {"Content-Length": str(len(BODY))})
        self.send(BODY[start:])

    def head(self, status, headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def send(self, rest):
        end = self.server.drops.pop(0) if self.server.drops else len(rest)
        half = 3 * PIECE_BYTES
        try:
            if self.server.gate is not None:
                self.wfile.write(rest[:half])
                self.server.gate.wait(20)
                self.wfile.write(rest[half:end])
            else:
                self.wfile.write(rest[:end])
        except OSError:
            pass  # the client was killed, as it was meant to be


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download_module, "PAUSE_SECONDS", 0)
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        if server.gate is not None:
            server.gate.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def target(tmp_path):
    return tmp_path / "new" / "folder" / "file.bin"


def part_of(target):
    return target.with_name(target.name + ".part")


def write_part(target, contents):
    target.parent.mkdir(parents=True)
    part_of(target).write_bytes(contents)


def assert_whole(target):
    assert target.read_bytes() == BODY
    left = {file.name for file in target.parent.iterdir()}
    assert left <= {target.name, target.name + ".lock"}


def test_downloads_once(server, target):
    assert download(server.url, target, HASH, progress=False) == target
    assert_whole(target)
    download(server.url, target, HASH, progress=False)
    assert server.requested == [None]


def test_a_file_with_another_checksum_is_replaced(server, target):
    target.parent.mkdir(parents=True)
    target.write_bytes(b"an old edition")
    download(server.url, target, HASH, progress=False)
    assert_whole(target)


@pytest.mark.parametrize("ranges", [True, False])
def test_a_dropped_connection_is_taken_up_again(server, target, ranges):
    server.ranges = ranges
    server.drops = [2 * PIECE_BYTES, PIECE_BYTES]
    download(server.url, target, HASH, progress=False)
    assert_whole(target)
    assert server.requested[0] is None and len(server.requested) == 3
    starts = [int(header.removeprefix("bytes=")[:-1]) for header in server.requested[1:]]
    assert starts[0] == 2 * PIECE_BYTES
    assert starts[1] == (3 if ranges else 1) * PIECE_BYTES


def test_what_came_is_kept_when_the_connection_drops_every_time(server, target):
    server.drops = [PIECE_BYTES] * download_module.ATTEMPTS
    with pytest.raises(UserError, match="continues where it stopped") as raised:
        download(server.url, target, HASH, progress=False)
    assert server.url in str(raised.value) and str(target.parent) in str(raised.value)
    assert len(server.requested) == download_module.ATTEMPTS
    assert part_of(target).read_bytes() == BODY[: download_module.ATTEMPTS * PIECE_BYTES]
    assert not target.exists()
    download(server.url, target, HASH, progress=False)
    assert_whole(target)


@pytest.mark.parametrize(
    ("part", "ranges", "asked"),
    [
        pytest.param(BODY[:1000], True, ["bytes=1000-"], id="begun"),
        pytest.param(BODY[:1000], False, ["bytes=1000-"], id="begun, no ranges"),
        pytest.param(BODY, True, [f"bytes={len(BODY)}-"], id="whole"),
        pytest.param(BODY, False, [f"bytes={len(BODY)}-"], id="whole, no ranges"),
        pytest.param(BODY + b"!", True, [f"bytes={len(BODY) + 1}-", None], id="too long"),
        pytest.param(BODY + b"!", False, [f"bytes={len(BODY) + 1}-"], id="too long, no ranges"),
        pytest.param(b"", True, [None], id="empty"),
    ],
)
def test_a_part_that_is_there_already(server, target, part, ranges, asked):
    write_part(target, part)
    server.ranges = ranges
    download(server.url, target, HASH, progress=False)
    assert_whole(target)
    assert server.requested == asked


def test_an_answer_with_another_range_is_not_appended(server, target):
    write_part(target, BODY[:1000])
    server.early = 10
    download(server.url, target, HASH, progress=False)
    assert_whole(target)
    assert server.requested == ["bytes=1000-", None]


def test_a_corrupt_part_is_found_out_and_removed(server, target):
    write_part(target, b"?" * 1000)
    with pytest.raises(UserError, match="does not match the known hash"):
        download(server.url, target, HASH, progress=False)
    assert not target.exists() and not part_of(target).exists()
    download(server.url, target, HASH, progress=False)
    assert_whole(target)


def test_a_wrong_checksum_names_both_and_leaves_nothing(server, target):
    wrong = "md5:" + "0" * 32
    with pytest.raises(UserError) as raised:
        download(server.url, target, wrong, progress=False)
    for text in (server.url, "0" * 32, HASH.removeprefix("md5:"), str(target.parent)):
        assert text in str(raised.value)
    assert {file.name for file in target.parent.iterdir()} <= {"file.bin.lock"}


def test_a_server_in_trouble_is_asked_again(server, target):
    server.statuses = [503, 500]
    download(server.url, target, HASH, progress=False)
    assert_whole(target)
    assert len(server.requested) == 3


def test_a_missing_file_is_not_asked_for_again(server, target):
    server.statuses = [404]
    with pytest.raises(UserError, match="404"):
        download(server.url, target, HASH, progress=False)
    assert len(server.requested) == 1


def test_no_network_says_how_to_do_it_by_hand(target, monkeypatch):
    monkeypatch.setattr(download_module, "PAUSE_SECONDS", 0)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/file.bin"
        with pytest.raises(UserError) as raised:
            download(url, target, HASH, progress=False)
    assert url in str(raised.value) and str(target.parent) in str(raised.value)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("https://no-such-host.invalid/a/file.bin", "the host no-such-host.invalid was not found"),
        ("http://127.0.0.1:1/file.bin", "127.0.0.1 did not accept the connection"),
    ],
)
def test_a_host_that_is_not_there_is_told_in_one_plain_sentence(target, monkeypatch, url, reason):
    monkeypatch.setattr(download_module, "PAUSE_SECONDS", 0)
    with pytest.raises(UserError) as raised:
        download(url, target, HASH, progress=False)
    assert str(raised.value).startswith(f"{url} cannot be downloaded: {reason}. Check the network ")
    assert not re.search("Pool|Max retries|Errno|Error", str(raised.value))


@pytest.mark.parametrize(
    ("status", "reason"), [(404, "404 Not Found"), (503, "503 Service Unavailable")]
)
def test_what_the_server_answered_is_told(server, target, status, reason):
    server.statuses = [status] * download_module.ATTEMPTS
    with pytest.raises(UserError) as raised:
        download(server.url, target, HASH, progress=False)
    told = f"{server.url} cannot be downloaded: the server answered {reason}. Check the network "
    assert str(raised.value).startswith(told)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (requests.exceptions.SSLError("x"), "the certificate of 127.0.0.1 was not accepted"),
        (requests.ConnectTimeout("x"), "127.0.0.1 did not answer in time"),
        (requests.ReadTimeout("x"), "127.0.0.1 did not answer in time"),
        (requests.exceptions.ProxyError("x"), "the proxy that HTTPS_PROXY or HTTP_PROXY names"),
        (requests.ConnectionError(ConnectionResetError()), "the connection to 127.0.0.1 was lost"),
    ],
)
def test_other_faults_of_the_network_are_told_plainly(server, target, monkeypatch, error, reason):
    def fail(*args, **settings):
        raise error

    monkeypatch.setattr(download_module.requests, "get", fail)
    with pytest.raises(UserError) as raised:
        download(server.url, target, HASH, progress=False)
    assert f"cannot be downloaded: {reason}" in str(raised.value)


def test_a_folder_that_cannot_be_made_is_a_users_mistake(server, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"cannot be written.*NORMLAB_DATA"):
        download(server.url, tmp_path / "file" / "file.bin", HASH, progress=False)
    assert server.requested == []


def downloading_process(server, target):
    program = (
        "import sys, pathlib\n"
        "from normlab.data.download import download\n"
        "print('ready', flush=True)\n"
        "url, target, checksum = sys.argv[1:]\n"
        "download(url, pathlib.Path(target), checksum, progress=False)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, server.url, str(target), HASH],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    return process


def test_a_killed_process_is_continued_by_the_next(server, target):
    server.gate = threading.Event()
    part = part_of(target)
    with downloading_process(server, target) as process:
        wait_until(lambda: part.exists() and part.stat().st_size >= 3 * PIECE_BYTES)
        process.kill()
    assert not target.exists()
    server.gate.set()
    download(server.url, target, HASH, progress=False)
    assert target.read_bytes() == BODY
    assert server.requested == [None, f"bytes={3 * PIECE_BYTES}-"]


def test_two_processes_share_one_download(server, target):
    server.gate = threading.Event()
    with downloading_process(server, target) as one, downloading_process(server, target) as other:
        wait_until(lambda: server.requested)
        time.sleep(0.3)  # time enough for the other to ask, too, were it not for the lock
        server.gate.set()
        assert (one.wait(GENEROUS), other.wait(GENEROUS)) == (0, 0)
    assert_whole(target)
    assert server.requested == [None]


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_goes_to_stderr(server, target, capsys, monkeypatch, terminal):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    download(server.url, target, HASH)
    out, err = capsys.readouterr()
    assert out == ""
    assert "file.bin" in err
    assert ("file.bin: 0.3 of 0.3 MB\n" in err) is not terminal


def test_no_progress_when_not_wanted(server, target, capsys):
    download(server.url, target, HASH, progress=False)
    assert " MB" not in capsys.readouterr().err
