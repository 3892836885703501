"""Servers that are wrong on purpose, each in one way: the judge has to see it.

A judge that is content with any server proves nothing.
"""

import asyncio
import itertools
import socket
import struct

import cases
import judge
import rfc6455

# Rules that a server may fail to keep: the names of `rfc6455.Reader`.
RULES = [
    "reserved bits",
    "reserved opcodes",
    "control frames in fragments",
    "continuation of nothing",
    "message within a message",
    "length of control frames",
    "close of one byte",
    "close codes",
    "UTF-8",
    "UTF-8 of close reasons",
    "binary",
    "largest message",
]
HABITS = [
    "answers no ping",
    "answers pings without their payload",
    "answers each ping twice",
    "answers pings after a close",
    "echoes",
    "closes with another code",
    "closes without a close frame",
    "resets after the close frame",
    "closes at the first fragment",
    "closes a frame too late",
    "answers no close",
    "answers a close with another code",
    "does not end the connection",
    "takes one byte less",
]
# Some are large, some 130 differ in a few bytes of their text, and two are listed as closed late.
LEFT_OUT = ("1.1.6", "1.1.8", "6.4.3", "6.4.4", "10.1.1")


class Server:
    """One connection of a server with one fault, or with none (`None`)."""

    def __init__(self, fault, reader, writer):
        self.fault, self.reader, self.writer = fault, reader, writer
        largest = judge.LARGEST - (fault == "takes one byte less")
        self.rules = rfc6455.Reader(largest, lax=[fault] if fault in RULES else [])
        self.answered = 0

    async def run(self):
        head = await self.reader.readuntil(b"\r\n\r\n")
        key = head.split(b"Sec-WebSocket-Key: ")[1].split(b"\r\n")[0].decode()
        self.writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Accept: " + judge.accept_of(key) + b"\r\n\r\n"
        )
        if await self._until_the_end():
            await self._finish()

    async def _until_the_end(self):
        """Whether the connection came to an end by the rules."""
        late = 0
        while data := await self.reader.read(65536):
            for byte in data:
                if self.rules.take(byte):
                    self._events()
                    if self._is_hasty():
                        self.rules.end = ("broken", rfc6455.PROTOCOL)
                        return True
                    continue
                self._events()
                if self.fault != "closes a frame too late" or self.rules.end[0] == "close" or late > 40:
                    return True
                # Far enough to be behind the frame of most cases.
                late += 1
        return False

    def _is_hasty(self):
        return self.fault == "closes at the first fragment" and len(self.rules.head) == 1 and not self.rules.fin

    def _events(self):
        events = self.rules.events[self.answered :]
        self.answered = len(self.rules.events)
        for event in events:
            if event[0] == "pong":
                self._pong(event[1])
            elif self.fault == "echoes":
                self._send(rfc6455.TEXT, event[1])

    def _pong(self, payload):
        if self.fault == "answers no ping":
            return
        if self.fault == "answers pings without their payload":
            payload = b""
        for _ in range(2 if self.fault == "answers each ping twice" else 1):
            self._send(rfc6455.PONG, payload)

    def _send(self, opcode, payload):
        self.writer.write(rfc6455.frame(opcode, payload, mask=None))

    async def _finish(self):
        kind, code = self.rules.end[:2]
        if self.fault == "answers pings after a close":
            self._send(rfc6455.PONG, b"")
        if kind == "broken" and self.fault == "closes with another code":
            code = rfc6455.NORMAL
        if kind == "close" and self.fault == "answers a close with another code":
            code = 1001
        if not (
            (kind == "broken" and self.fault == "closes without a close frame")
            or (kind == "close" and self.fault == "answers no close")
        ):
            self._send(rfc6455.CLOSE, rfc6455.close_payload(code))
        await self.writer.drain()
        if self.fault == "resets after the close frame":
            linger = struct.pack("ii", 1, 0)
            self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            return
        if self.fault != "does not end the connection":
            self.writer.write_eof()
        # What is on its way is read, so that closing makes no reset.
        while await self.reader.read(65536):
            pass


async def judged(fault, ids, patience):
    """The failures of a server with `fault`."""

    async def handle(reader, writer):
        try:
            await Server(fault, reader, writer).run()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    verdict = await judge.Judge(f"127.0.0.1:{port}", itertools.repeat("/"), patience).all(ids)
    server.close()
    return verdict["failed"]


async def counter_proof():
    """How many runs fail for each fault, and why any do for a server without one."""
    few = [case_id for case_id in judge.selected() if case_id not in LEFT_OUT and not is_one_of_many(case_id)]
    # By itself, and with patience: on a busy machine it must not be wrong for being slow.
    right = await judged(None, few, 10.0)
    faults = [*RULES, *HABITS]
    failed = await asyncio.gather(*(judged(fault, few, 1.0) for fault in faults))
    return {"right": right, "wrong": {fault: len(runs) for fault, runs in zip(faults, failed)}}


def is_one_of_many(case_id):
    """Whether it is of the groups 6.5 to 6.23."""
    group = case_id.split(".")
    return group[0] == "6" and int(group[1]) >= 5
