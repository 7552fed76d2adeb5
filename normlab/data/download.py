"""Downloads files; pooch checks them, and an interrupted download is continued.

pooch guarantees that a file under its final name is whole: it compares the checksum before it moves
the file there. But pooch starts from nothing each time, and CIFAR's archives are 160 MB from one
slow server. The downloader in this file writes to a `.part` file beside the target. If that file
exists already, it requests only the rest from the server (RFC 9110, section 14).
"""

import re
import socket
import time
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pooch
import requests  # pooch downloads with it too, so it is always installed
from filelock import FileLock

from normlab.data.progress import Show, in_bytes
from normlab.errors import UserError

ATTEMPTS = 4
PAUSE_SECONDS = 1.0  # after the first failed attempt; each later pause is twice as long
TIMEOUT_SECONDS = (10, 60)  # to connect; between two pieces
PIECE_BYTES = 1 << 16


def download(url: str, target: Path, known_hash: str, progress: bool = True) -> Path:
    """Download `url` to `target`, unless it is there already, and return `target`.

    Any number of processes may call this at once: one downloads, and the others wait.

    Args:
        url: an http or https address.
        target: the file to write; its folder is created if necessary.
        known_hash: the expected checksum, as `md5:...` or `sha256:...`.
        progress: whether to show the progress on stderr.

    Raises:
        UserError: the server cannot be reached or has no such file, the file has another checksum
            (it is then removed), or the folder cannot be written.
    """
    part = target.with_name(target.name + ".part")
    by_hand = f"Or put the file there by hand: {url} goes into the folder {target.parent}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(target.with_name(target.name + ".lock"))
        with lock, in_bytes(target.name, progress) as show:
            # Any: pooch annotates this argument with the signature of something else.
            downloader: Any = partial(_download, part, show)
            pooch.retrieve(url, known_hash, target.name, target.parent, downloader=downloader)
    except requests.RequestException as error:
        raise UserError(
            f"{url} cannot be downloaded: {_reason(url, error)}. Check the network and run the "
            f"same command again; it continues where it stopped. {by_hand}"
        ) from error
    except ValueError as error:  # pooch raises this if the checksum differs
        raise UserError(
            f"{url} did not come as it was published: {error} Run the same command again. {by_hand}"
        ) from error
    except OSError as error:
        raise UserError(
            f"{target} cannot be written: {error}. Set NORMLAB_DATA to a folder with room that "
            "you may write to"
        ) from error
    return target


def _download(part: Path, show: Show, url: str, output: str, _: pooch.Pooch | None) -> None:
    """Complete `part`, in several attempts if the connection drops, and move it to `output`.

    pooch calls a downloader with the last three arguments.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            if _extend(url, part, show):
                part.replace(output)
                return
        except requests.RequestException as error:
            refused = error.response is not None and error.response.status_code < 500
            if refused or attempt == ATTEMPTS:
                raise
            time.sleep(PAUSE_SECONDS * 2 ** (attempt - 1))
    raise requests.ConnectionError(f"no whole file after {ATTEMPTS} attempts")


def _reason(url: str, error: requests.RequestException) -> str:
    """Return why a download failed in a few words, without the inner text of the libraries."""
    host = urlsplit(url).hostname
    if error.response is not None:
        return f"the server answered {error.response.status_code} {error.response.reason}".rstrip()
    if isinstance(error, requests.exceptions.SSLError):
        return f"the certificate of {host} was not accepted"
    if isinstance(error, requests.exceptions.ProxyError):
        return "the proxy that HTTPS_PROXY or HTTP_PROXY names did not connect"
    if isinstance(error, requests.Timeout):
        return f"{host} did not answer in time"
    if isinstance(error, requests.ConnectionError):
        cause = error.args[0] if error.args else None
        if isinstance(cause, str):  # of this file
            return cause
        if given_up := getattr(cause, "reason", None):  # as urllib3 gives up
            if isinstance(given_up.__context__, socket.gaierror):
                return f"the host {host} was not found"
            return f"{host} did not accept the connection"
        return f"the connection to {host} was lost"
    return str(error)


def _extend(url: str, part: Path, show: Show) -> bool:
    """Request what `part` lacks once, append it, and return whether `part` may be complete.

    False means that `part` was useless and has been removed, so the caller should try again.
    """
    have = part.stat().st_size if part.exists() else 0
    # If the server compressed the response, ranges would count compressed bytes.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_SECONDS) as response:
        range_start, total = _sizes(response)
        if have and response.status_code == requests.codes.requested_range_not_satisfiable:
            if have == total:  # interrupted after the last byte, before the file was moved
                return True
            part.unlink()
            return False
        response.raise_for_status()
        if response.status_code == requests.codes.partial_content and range_start != have:
            part.unlink()
            return False
        # A server that does not support ranges responds with 200 and the whole file.
        done = have if response.status_code == requests.codes.partial_content else 0
        with part.open("ab" if done else "wb") as file:
            for piece in response.iter_content(PIECE_BYTES):
                file.write(piece)
                done += len(piece)
                show(done, total)
    if total is not None and done < total:
        raise requests.ConnectionError(f"the connection dropped after {done} of {total} bytes")
    return True


def _sizes(response: requests.Response) -> tuple[int | None, int | None]:
    """Return the offset at which this response starts and the size of the file, if given."""
    content_range = response.headers.get("Content-Range", "")
    if match := re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(?:(\d+)|\*)", content_range):
        start, total = (int(number) if number else None for number in match.groups())
        return start, total
    length = response.headers.get("Content-Length")
    return 0, int(length) if length and response.ok else None
