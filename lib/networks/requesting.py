"""Requests to servers that may be slow, busy, broken or hostile, with retries and limits."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, TypeVar

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError, InvalidHeader
from urllib3.util import Retry

RETRIES = 4  # after the first attempt, each after a longer pause
TIMEOUT = (15, 60)  # seconds: for a connection, and without a byte
LONGEST_WAIT = 120  # seconds, even if a server asks for more
PROGRESS = 2**20  # bytes, after which an attempt does not count as a failure
CHUNK = 2**16  # bytes; a broken connection loses fewer
_TOLD = 300  # characters of an error in a message
Result = TypeVar("Result")


class DownloadError(RuntimeError):
    """The error for files that could not be fetched; the message says which and why."""


class CutError(ValueError):
    """The error for a download that broke off; the next attempt may resume it."""


# Errors that concern the request for one file, and no other file.
FAILURES = (requests.RequestException, HTTPError, ValueError, DownloadError)


class _Patience(Retry):
    """Retries if that may help, at the time that the server asks for, within limits."""

    def increment(
        self, method: Any = None, url: Any = None, response: Any = None, *rest: Any, **more: Any
    ) -> Retry:
        if response is not None:
            response.close()  # otherwise its body, which may be endless, would be read
        return super().increment(method, url, response, *rest, **more)

    def parse_retry_after(self, retry_after: str) -> float:
        try:
            return min(super().parse_retry_after(retry_after), LONGEST_WAIT)
        except (InvalidHeader, ValueError, OverflowError):
            return 0  # our own pauses then apply


class _Adapter(HTTPAdapter):
    """Does not read the body of a redirect, which may be endless."""

    def build_response(self, req: Any, resp: Any) -> requests.Response:
        answer = super().build_response(req, resp)
        if answer.is_redirect:
            answer.close()
        return answer


def new_session() -> requests.Session:
    session = requests.Session()
    session.headers["Accept-Encoding"] = "identity"
    session.request = partial(session.request, timeout=TIMEOUT)
    again = _Patience(
        RETRIES, backoff_factor=1, status_forcelist=(429, 500, 502, 503, 504),
        raise_on_status=False,
    )  # fmt: skip
    for scheme in ("https://", "http://"):
        session.mount(scheme, _Adapter(max_retries=again))
    return session


def tried(attempt: Callable[[], Result], came: Callable[[], int] = lambda: 0) -> Result:
    """Return what the attempt returns; if the data are wrong or cut, retry after a pause.

    came : returns the number of bytes received; an attempt that brought many does not count
           among the `RETRIES`
    """
    tries = most = 0
    while True:
        try:
            return attempt()
        except ValueError:
            have = came()
            tries = 0 if have - most >= PROGRESS else tries
            most = max(most, have)
            if tries == RETRIES:
                raise
            time.sleep(2**tries)
            tries += 1


def number_in(headers: Mapping[str, str], name: str) -> int:
    """Return a header's number, 0 if there is no such header."""
    text = headers.get(name, "0").strip()
    if not re.fullmatch("[0-9]{1,15}", text):
        raise ValueError(f"{name} is not a number of bytes: {text}")
    return int(text)


def content_range(answer: requests.Response) -> tuple[int, ...]:
    """Return the first byte's number, the last one's, and the whole file's size."""
    text = answer.headers.get("Content-Range", "")
    numbers = re.fullmatch("bytes ([0-9]{1,15})-([0-9]{1,15})/([0-9]{1,15})", text.strip())
    if answer.status_code != 206 or not numbers:
        raise ValueError(f"{status_of(answer)}, and not with the requested part {text}")
    return tuple(map(int, numbers.groups()))


def status_of(answer: requests.Response) -> str:
    return f"the server answers {answer.status_code} {answer.reason}"


def reason_of(error: Exception) -> str:
    """Return the error as one printable line, whatever a server has put into it."""
    if isinstance(error, DownloadError):
        return str(error)  # it contains a reason
    if isinstance(error, requests.HTTPError) and error.response is not None:
        text = status_of(error.response)
    elif isinstance(error, requests.RequestException | HTTPError):
        cause = getattr(error.args[0] if error.args else None, "reason", None)  # urllib3's
        text = f"{type(error).__name__}: {cause or error}"
    else:
        text = str(error)
    return "".join(c if c.isprintable() else "?" for c in text)[:_TOLD]


def body_of(answer: requests.Response, most: int) -> Iterator[bytes]:
    """Yield the data. Raises CutError if the connection breaks off, ValueError for too much."""
    came = 0
    try:
        for chunk in answer.iter_content(CHUNK):
            came += len(chunk)
            if came > most:
                raise ValueError(f"the server sends more than the expected {most} bytes")
            yield chunk
    except (requests.RequestException, HTTPError) as error:
        raise CutError(f"the connection broke off: {reason_of(error)}") from None
