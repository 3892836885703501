"""What RFC 6455 says of a client's bytes, one byte after the other, for a server without extensions.

The judge compares a server with it; `wrong.py` makes servers of it, most of them wrong on purpose.
"""

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
NORMAL, PROTOCOL, NOT_SUPPORTED, NO_CODE = 1000, 1002, 1003, 1005
NOT_UTF8, TOO_BIG = 1007, 1009

# Codes below 3000 that a peer may send (section 7.4.1 and its registry).
SENDABLE = {1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014}


class Broken(Exception):
    """The connection is to be failed with this code."""

    def __init__(self, code):
        super().__init__(code)
        self.code = code


class Utf8:
    """Finds the first byte that no UTF-8 text can have there (Unicode, table 3-7)."""

    FIRST = {0xE0: (0xA0, 0xBF), 0xED: (0x80, 0x9F), 0xF0: (0x90, 0xBF), 0xF4: (0x80, 0x8F)}

    def __init__(self):
        self.missing, self.low, self.high = 0, 0x80, 0xBF

    def take(self, byte):
        """Whether `byte` may come next."""
        if self.missing:
            fits = self.low <= byte <= self.high
            self.missing -= 1
            self.low, self.high = 0x80, 0xBF
            return fits
        if byte < 0x80:
            return True
        if not 0xC2 <= byte <= 0xF4:
            return False
        self.missing = 1 if byte < 0xE0 else 2 if byte < 0xF0 else 3
        self.low, self.high = self.FIRST.get(byte, (0x80, 0xBF))
        return True


class Reader:
    """Reads what a client sends; `lax` names rules that are not kept."""

    def __init__(self, largest, takes_binary=False, lax=()):
        self.largest = largest
        self.takes_binary = takes_binary
        self.lax = set(lax)
        # ("message", payload, is_binary) and ("pong", payload), as an echo server would answer.
        self.events = []
        # ("close", code, reason) or ("broken", code) once it is over.
        self.end = None
        self.frame_at = 0
        self.taken = 0
        self.message = None
        self._next_frame()

    def take(self, byte):
        """Reads one byte; whether the connection goes on."""
        if self.end is None:
            try:
                self._byte(byte)
            except Broken as broken:
                self.end = ("broken", broken.code)
        self.taken += 1
        return self.end is None

    def _next_frame(self):
        self.head = bytearray()
        self.left = None
        self.payload = bytearray()

    def _byte(self, byte):
        if self.left is not None:
            self._payload_byte(byte)
            return
        if not self.head:
            self.frame_at = self.taken
        self.head.append(byte)
        if len(self.head) == 1:
            self._first(byte)
        elif len(self.head) == 2:
            self._second(byte)
        length, size = frame_length(self.head)
        if length is None:
            return
        if len(self.head) == size - 4:
            self._length(length)
        if len(self.head) == size:
            self.mask = self.head[-4:]
            self.left = length
            if length == 0:
                self._frame_ends()

    def _fail(self, rule, code=PROTOCOL):
        if rule not in self.lax:
            raise Broken(code)

    def _first(self, byte):
        self.fin, self.opcode = bool(byte & 0x80), byte & 0x0F
        if byte & 0x70:
            self._fail("reserved bits")
        if self.opcode not in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG):
            self._fail("reserved opcodes")
            self.opcode = PONG
        if self.opcode >= CLOSE:
            if not self.fin:
                self._fail("control frames in fragments")
        elif self.opcode == CONTINUATION:
            if self.message is None:
                self._fail("continuation of nothing")
                self._begin(TEXT)
        else:
            if self.message is not None:
                self._fail("message within a message")
            if self.opcode == BINARY and not self.takes_binary:
                self._fail("binary", NOT_SUPPORTED)
            self._begin(self.opcode)

    def _begin(self, opcode):
        self.message, self.is_text, self.utf8 = bytearray(), opcode == TEXT, Utf8()

    def _second(self, byte):
        if not byte & 0x80:
            raise Broken(PROTOCOL)
        if self.opcode >= CLOSE:
            if byte & 0x7F > 125:
                self._fail("length of control frames")
            if self.opcode == CLOSE and byte & 0x7F == 1:
                self._fail("close of one byte")

    def _length(self, length):
        if length >> 63:
            raise Broken(PROTOCOL)
        if self.opcode < CLOSE and len(self.message) + length > self.largest:
            self._fail("largest message", TOO_BIG)

    def _payload_byte(self, byte):
        byte ^= self.mask[len(self.payload) % 4]
        self.payload.append(byte)
        if self.opcode < CLOSE:
            self.message.append(byte)
            if self.is_text and not self.utf8.take(byte):
                self._fail("UTF-8", NOT_UTF8)
        elif self.opcode == CLOSE:
            self._close_byte(byte)
        self.left -= 1
        if self.left == 0:
            self._frame_ends()

    def _close_byte(self, byte):
        if len(self.payload) == 2:
            code = int.from_bytes(self.payload, "big")
            if code not in SENDABLE and not 3000 <= code <= 4999:
                self._fail("close codes")
            self.reason = Utf8()
        elif len(self.payload) > 2 and not self.reason.take(byte):
            self._fail("UTF-8 of close reasons", NOT_UTF8)

    def _frame_ends(self):
        payload = bytes(self.payload)
        if self.opcode == PING:
            self.events.append(("pong", payload))
        elif self.opcode == CLOSE:
            if len(payload) > 2 and self.reason.missing:
                self._fail("UTF-8 of close reasons", NOT_UTF8)
            code = int.from_bytes(payload[:2], "big") if len(payload) > 1 else NO_CODE
            self.end = ("close", code, payload[2:])
        elif self.opcode < CLOSE and self.fin:
            if self.is_text and self.utf8.missing:
                self._fail("UTF-8", NOT_UTF8)
            self.events.append(("message", bytes(self.message), not self.is_text))
            self.message = None
        self._next_frame()


def frame_length(head):
    """The payload's length and the header's with its mask, or `None` twice until both are known."""
    if len(head) < 2:
        return None, None
    short = head[1] & 0x7F
    extended = {126: 2, 127: 8}.get(short, 0)
    if len(head) < 2 + extended:
        return None, None
    length = int.from_bytes(head[2 : 2 + extended], "big") if extended else short
    return length, 2 + extended + (4 if head[1] & 0x80 else 0)


def frame(opcode, payload=b"", *, fin=True, rsv=0, mask=b"\x00\x00\x00\x00"):
    """A frame; a client's unless `mask` is `None`."""
    size = len(payload)
    is_masked = 0x80 if mask is not None else 0
    head = bytearray([(0x80 if fin else 0) | rsv << 4 | opcode])
    if size < 126:
        head.append(is_masked | size)
    elif size < 1 << 16:
        head.append(is_masked | 126)
        head += size.to_bytes(2, "big")
    else:
        head.append(is_masked | 127)
        head += size.to_bytes(8, "big")
    if mask is None:
        return bytes(head) + payload
    key = int.from_bytes((mask * (size // 4 + 1))[:size], "big")
    masked = (int.from_bytes(payload, "big") ^ key).to_bytes(size, "big")
    return bytes(head) + mask + masked


def close_payload(code, reason=b""):
    """What a close frame carries."""
    return b"" if code in (None, NO_CODE) else code.to_bytes(2, "big") + reason
