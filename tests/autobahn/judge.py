"""Runs Autobahn's cases against a server that never echoes, and judges it by what each case means for one.

    judge.py <host:port> <file>    one request target a line, each for one connection
    judge.py --counter-proof       against servers that are wrong on purpose, see `wrong.py`

A valid message leaves the connection open: a ping behind it is answered, and so is the client's close. What
breaks a rule ends the connection with the right code: not before the first byte that breaks it, and before
anything behind that byte's frame is sent. Pings are answered with their payload, in order. Nothing else comes,
and the server ends the connection, in good order.

What is right is said twice: by the case itself and by `rfc6455.Reader`. They have to agree, but for what
`exceptions.py` lists.

Each case runs twice: as it is written, and broken off at the very byte that ends the connection. Prints one
JSON object.
"""

import asyncio
import base64
import fnmatch
import functools
import hashlib
import json
import os
import sys

import cases
import exceptions
import rfc6455

# The contract's largest message.
LARGEST = 64 * 1024
# Connections at a time.
CONNECTIONS = 64
# How long it is looked for a close that must not come, or need not come yet.
EARLY = 0.15
# A case's own pause, in which a close should come that is due.
PAUSE = 1.0
PROBE = b"the judge's probe"
BYE = b"bye"


class Complaint(Exception):
    """What the server did wrong."""


class Connection:
    """One WebSocket, whose frames are read as they come."""

    def __init__(self, reader, writer, patience):
        self.reader, self.writer, self.patience = reader, writer, patience
        self.got = []
        self.close = None
        self.over = None
        self.news = asyncio.Event()
        self.task = asyncio.ensure_future(self._read())

    @classmethod
    async def open(cls, address, target, patience):
        host, port = address.rsplit(":", 1)
        reader, writer = await asyncio.wait_for(asyncio.open_connection(host, port), patience)
        key = base64.b64encode(os.urandom(16)).decode()
        writer.write(
            f"GET {target} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), patience)
        if not head.startswith(b"HTTP/1.1 101 ") or accept_of(key) not in head:
            raise Complaint(f"no handshake: {head.splitlines()[0]}")
        return cls(reader, writer, patience)

    async def _read(self):
        try:
            while True:
                head = await self.reader.readexactly(2)
                extended = {126: 2, 127: 8}.get(head[1] & 0x7F, 0)
                head += await self.reader.readexactly(extended)
                length, _ = rfc6455.frame_length(head)
                self._frame(head, await self.reader.readexactly(length))
                self.news.set()
        except asyncio.IncompleteReadError as end:
            self.over = "within a frame" if end.partial else "in good order"
        except ConnectionError:
            self.over = "by a reset"
        self.news.set()

    def _frame(self, head, payload):
        if self.close is not None:
            self.got.append(("something after the close frame", head[0]))
        elif head[0] == 0x80 | rfc6455.PONG and not head[1] & 0x80:
            self.got.append(("pong", payload))
        elif head[0] == 0x80 | rfc6455.CLOSE and not head[1] & 0x80 and len(payload) != 1:
            code = int.from_bytes(payload[:2], "big") if payload else rfc6455.NO_CODE
            self.close = (code, payload[2:])
        # The server's own ping is no part of a case.
        elif head[0] != 0x80 | rfc6455.PING:
            self.got.append(("another frame", head[0], payload[:64]))

    async def until(self, seconds, condition):
        """Whether `condition` comes to hold within `seconds`."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while not condition():
            self.news.clear()
            try:
                await asyncio.wait_for(self.news.wait(), end - loop.time())
            except asyncio.TimeoutError:
                return condition()
        return True

    async def closing(self, seconds):
        """Whether a close frame, or the end, comes within `seconds`."""
        return await self.until(seconds, lambda: self.close is not None or self.over)

    async def send(self, data):
        """Sends `data`; that the server takes no more of it shows elsewhere."""
        if self.over:
            return
        try:
            self.writer.write(data)
            await asyncio.wait_for(self.writer.drain(), self.patience)
        except (ConnectionError, asyncio.TimeoutError):
            pass

    async def goes_on(self, pongs):
        """The connection is open and everything sent has been read; then the client ends it."""
        await self.send(rfc6455.frame(rfc6455.PING, PROBE, mask=cases.MASK))
        pongs = [*pongs, ("pong", PROBE)]
        await self.until(self.patience, lambda: self.got[-1:] == pongs[-1:] or self.close or self.over)
        self._is_so(self.close is None and not self.over, "it closed a connection that is fine")
        self._is_so(self.got == pongs, "it answered otherwise than with the pongs")
        payload = rfc6455.close_payload(rfc6455.NORMAL, BYE)
        await self.send(rfc6455.frame(rfc6455.CLOSE, payload, mask=cases.MASK))
        await self.ends(pongs, ("close", rfc6455.NORMAL, BYE))

    async def ends(self, pongs, end):
        """The server says `end` and ends the connection."""
        self._is_so(await self.closing(self.patience), "it did not close")
        self._is_so(self.close is not None, "it ended without a close frame")
        self._is_so(self.close[0] == end[1], "it closed with another code")
        if end[0] == "close":
            self._is_so(self.close[1] in (end[2], b""), "it answered a close with another reason")
        else:
            # Section 5.5.1: a close frame is answered.
            answer = rfc6455.close_payload(end[1])
            await self.send(rfc6455.frame(rfc6455.CLOSE, answer, mask=cases.MASK))
        await self.until(self.patience, lambda: self.over)
        self._is_so(self.over == "in good order", "it did not end the connection in good order")
        self._is_so(self.got == list(pongs), "it sent something else than the pongs")

    def _is_so(self, truth, complaint):
        if not truth:
            told = f"got {self.got[-3:]}, close {self.close}, over {self.over}"
            raise Complaint(f"{complaint} ({told})")

    def drop(self):
        self.task.cancel()
        self.writer.transport.abort()


def accept_of(key):
    digest = hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
    return base64.b64encode(digest)


class Meaning:
    """What a case means for a server that takes texts and never echoes."""

    def __init__(self, case_id):
        self.case, self.sent = cases.everything(case_id)
        reader = rfc6455.Reader(LARGEST)
        # The byte that ends the connection, and where the frame of that byte ends.
        self.at = next((at for at, byte in enumerate(self.sent) if not reader.take(byte)), None)
        self.end, self.events = reader.end, reader.events
        self.pongs = [event for event in reader.events if event[0] == "pong"]
        if self.at is not None:
            length, size = rfc6455.frame_length(self.sent[reader.frame_at : reader.frame_at + 14])
            self.frame_end = min(reader.frame_at + size + length, len(self.sent))

    def agrees_with_the_case(self):
        """Whether the case says the same."""
        expected = self.case.expectedClose
        code = self.end[1] if self.end else rfc6455.NORMAL
        codes = expected["closeCode"] + [rfc6455.NO_CODE] * (rfc6455.NORMAL in expected["closeCode"])
        if not expected["closedByMe"] and (self.end is None or self.end[0] != "broken"):
            return False
        return code in codes and cases.events(self.case.expected["OK"]) == self.events


@functools.lru_cache(maxsize=None)
def meaning(case_id):
    return Meaning(case_id)


def listed(case_id, table):
    """What `table` has for the case."""
    return next((table[name] for name in table if fnmatch.fnmatchcase(case_id, name)), None)


def check_meaning(case_id):
    """The two statements of what is right agree, but for what is listed."""
    is_so = meaning(case_id).agrees_with_the_case()
    otherwise = listed(case_id, exceptions.ENDS_OTHERWISE)
    if otherwise is None:
        if not is_so:
            raise Complaint(f"the case and RFC 6455 differ: {meaning(case_id).end}, {meaning(case_id).events}")
    elif is_so:
        raise Complaint("it is listed as an exception, and is none")
    elif meaning(case_id).end != ("broken", otherwise[0]):
        raise Complaint(f"it does not end as listed but with {meaning(case_id).end}")


async def to_the_byte(connection, case_id):
    """Sends the case up to the byte that ends the connection, if one does; whether the close came with it."""
    means = meaning(case_id)
    if means.end is None:
        await connection.send(means.sent)
        await connection.goes_on(means.pongs)
        return False
    await connection.send(means.sent[: means.at])
    if means.at and await connection.closing(EARLY):
        raise Complaint(f"it closed before byte {means.at} with {connection.close}")
    await connection.send(means.sent[means.at : means.at + 1])
    at_once = await connection.closing(EARLY)
    if not at_once:
        await connection.send(means.sent[means.at + 1 : means.frame_end])
    await connection.ends(means.pongs, means.end)
    return at_once


async def as_written(connection, case_id):
    """Runs the case as Autobahn does; the server must not mind what comes after the end."""
    case, recorder = cases.begun(case_id)
    reader = rfc6455.Reader(LARGEST)
    while recorder.steps:
        step = recorder.steps.pop(0)
        if callable(step):
            if reader.end:
                await connection.closing(PAUSE)
            else:
                await connection.closing(EARLY)
            if connection.close or connection.over:
                recorder.state = recorder.STATE_CLOSED
            step()
        else:
            all(reader.take(byte) for byte in step)
            await connection.send(step)
    means = meaning(case_id)
    if means.end is None:
        await connection.goes_on(means.pongs)
    else:
        await connection.ends(means.pongs, means.end)
    check_pauses(case_id, case)


def check_pauses(case_id, case):
    """The close came in the pause in which it was due, but for what is listed."""
    pauses = [event for event in case.received if event[0] == "timeout"]
    is_late = pauses != [event for event in case.expected["OK"] if event[0] == "timeout"]
    if is_late and pauses != case.expected.get("NON-STRICT"):
        raise Complaint(f"it closed at another time: {pauses}")
    is_listed = listed(case_id, exceptions.LATER) is not None
    if is_late != is_listed:
        raise Complaint("it closed late" if is_late else "it is listed as late, and is not")


class Judge:
    """Runs cases against one server."""

    def __init__(self, address, targets, patience):
        self.address, self.targets, self.patience = address, targets, patience
        self.turns = asyncio.Semaphore(CONNECTIONS)
        self.failed = {}
        self.at_once = 0

    async def run(self, case_id, how):
        async with self.turns:
            connection = None
            try:
                check_meaning(case_id)
                connection = await Connection.open(self.address, next(self.targets), self.patience)
                # Not in one expression: others count meanwhile.
                at_once = await how(connection, case_id)
                self.at_once += bool(at_once)
            except (Complaint, OSError, asyncio.TimeoutError, asyncio.IncompleteReadError) as error:
                self.failed[f"{case_id} {how.__name__}"] = f"{type(error).__name__}: {error}"
            finally:
                if connection:
                    connection.drop()

    async def all(self, ids):
        await asyncio.gather(*(self.run(case_id, how) for case_id in ids for how in (to_the_byte, as_written)))
        return {"judged": len(ids), "at_once": self.at_once, "failed": self.failed}


def selected():
    """The cases that are run."""
    return [case_id for case_id in cases.ids() if not listed(case_id, exceptions.LEFT_OUT)]


def unused_exceptions():
    """Names in the lists that no case has."""
    tables = (exceptions.LEFT_OUT, exceptions.ENDS_OTHERWISE, exceptions.LATER)
    return [name for table in tables for name in table if not fnmatch.filter(cases.ids(), name)]


async def main(arguments):
    if arguments == ["--counter-proof"]:
        import wrong

        return await wrong.counter_proof()
    address, file = arguments
    with open(file, encoding="ascii") as lines:
        targets = iter(lines.read().split())
    verdict = await Judge(address, targets, 10.0).all(selected())
    left_out = len(cases.ids()) - len(selected())
    return verdict | {"left_out": left_out, "unused": unused_exceptions()}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(sys.argv[1:]))))
