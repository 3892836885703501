"""Autobahn's cases as lists of what they send, and what they expect, without running them on a network.

The case classes are Autobahn's own, as the package `kosoku` carries them for Python 3.
"""

import kosoku.cases  # first: it makes the next import possible
from autobahn.websocket.protocol import WebSocketProtocol

import rfc6455

# Any mask that is not all zero shows whether the server applies it.
MASK = b"\x37\xfa\x21\x3d"


class Recorder(WebSocketProtocol):
    """Stands in for Autobahn's protocol object: keeps the writes of a case, and its pauses."""

    def __init__(self):
        self.autoFragmentSize = 0
        self.state = self.STATE_OPEN
        self.steps = []
        self.sent_in_frame = 0

    def sendFrame(self, opcode, payload="", fin=True, rsv=0, mask=None, payload_len=None, chopsize=None, sync=False):
        payload = octets(payload, opcode)
        if payload_len is not None:
            payload = (payload * (payload_len // max(len(payload), 1) + 1))[:payload_len]
        data = rfc6455.frame(opcode, payload, fin=fin, rsv=rsv, mask=MASK)
        self._write(data, chopsize)

    def sendMessage(self, payload, isBinary=False, fragmentSize=None):
        opcode = rfc6455.BINARY if isBinary else rfc6455.TEXT
        payload = octets(payload, opcode)
        size = fragmentSize or self.autoFragmentSize or max(len(payload), 1)
        parts = [payload[at : at + size] for at in range(0, len(payload), size)] or [b""]
        for index, part in enumerate(parts):
            fin = index == len(parts) - 1
            kind = rfc6455.CONTINUATION if index else opcode
            self._write(rfc6455.frame(kind, part, fin=fin, mask=MASK))

    def beginMessage(self):
        pass

    def beginMessageFrame(self, length):
        self._write(rfc6455.frame(rfc6455.TEXT, bytes(length), fin=False, mask=MASK)[:-length])
        self.sent_in_frame = 0

    def sendMessageFrameData(self, payload):
        payload = octets(payload, rfc6455.TEXT)
        at = self.sent_in_frame
        self._write(bytes(byte ^ MASK[(at + index) % 4] for index, byte in enumerate(payload)))
        self.sent_in_frame += len(payload)

    def endMessage(self):
        self._write(rfc6455.frame(rfc6455.CONTINUATION, mask=MASK))

    def sendClose(self, code=None, reason=""):
        self.sendCloseFrame(code, reason)

    def sendCloseFrame(self, code=None, reasonUtf8=""):
        reason = octets(reasonUtf8 or "", rfc6455.CLOSE)
        payload = b"" if code is None else code.to_bytes(2, "big")
        self.sendFrame(rfc6455.CLOSE, payload + reason)

    def continueLater(self, delay, function, tag=None):
        self.steps.append(function)

    # Every case ends when it has nothing more to send; how is the judge's.
    def killAfter(self, delay):
        pass

    closeAfter = killAfter

    def _write(self, data, chopsize=None):
        size = chopsize or len(data)
        self.steps.extend(data[at : at + size] for at in range(0, len(data), size))


def octets(payload, opcode):
    """The bytes of a literal that was written for Python 2, where text was bytes."""
    if isinstance(payload, int):
        return bytes([payload])
    if isinstance(payload, bytes):
        return payload
    if opcode not in (rfc6455.TEXT, rfc6455.CONTINUATION):
        return payload.encode("latin-1")
    # Most were bytes; a few are text with characters of their own, which are no UTF-8 as bytes.
    try:
        data = payload.encode("latin-1")
        data.decode("utf-8")
        return data
    except (UnicodeEncodeError, UnicodeDecodeError):
        return payload.encode("utf-8")


def begun(case_id):
    """A case that has said what it sends first: the case and its recorder."""
    recorder = Recorder()
    case = kosoku.cases.CASES[case_id](recorder)
    case.onOpen()
    return case, recorder


def everything(case_id):
    """All bytes that a case sends if nothing stops it."""
    case, recorder = begun(case_id)
    sent = bytearray()
    while recorder.steps:
        step = recorder.steps.pop(0)
        if callable(step):
            step()
        else:
            sent += step
    return case, bytes(sent)


def ids():
    """Every case there is."""
    return list(kosoku.cases.CASES)


def events(expected):
    """What a case expects to receive, in the form of `rfc6455.Reader.events`; pauses left out."""
    form = {"message": rfc6455.TEXT, "pong": rfc6455.PING}
    told = []
    for event in expected:
        if event[0] in form:
            told.append((event[0], octets(event[1], form[event[0]]), *event[2:]))
    return told
