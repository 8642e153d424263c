"""Abuse of HTTP/2 by frames that were built by hand, against bearerd with an upstream of our own behind it.

Arguments: the upstream's port to listen on, bearerd's process, its listener for HTTP/2, its listener for HTTP/1, its metrics and the attack. The API key
comes on standard input. An attack goes on for a while, in rounds. In each, another caller is served; bearerd's memory grows by no more than the bound, and
once the attacker has gone it grows no more with each round."""

import json
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from hpack import Encoder
from hyperframe.frame import (ContinuationFrame, DataFrame, Frame, GoAwayFrame, HeadersFrame, PingFrame, PriorityFrame, RstStreamFrame, SettingsFrame,
                              WindowUpdateFrame)

# What one connection may cost.
GROWTH = 16 << 20
# What the allocator may keep of all of them when they are gone, and how much more than that after other rounds of the same. Streams that are reset by the
# thousand each had a request under way: of their memory it keeps more (130 MB at most over ten rounds, half as much after the tenth).
KEPT, CREEP = (192 << 20, 96 << 20) if sys.argv[6] == "made_you_reset" else (48 << 20, 16 << 20)
# Rounds, two of which are enough where they are long, and for how many seconds an attack is repeated in each.
ROUNDS, LONG, ROUND = 3, 20, 2
# A neighbour is served so often in each round, and waits for no longer than so many seconds: on a machine that has much else to do.
SERVED, LONGEST = 3, 10
BIG = 8 << 20
port, process = int(sys.argv[1]), sys.argv[2]
http2, http1, metrics = ((host, int(number)) for host, number in (address.rsplit(":", 1) for address in sys.argv[3:6]))
reached, callers = [], []


class Upstream(BaseHTTPRequestHandler):
    """Records each request with its body, and answers `ok`, or much on `/big` and `/drop`."""

    protocol_version = "HTTP/1.1"

    def do_any(self):
        try:
            self.answer()
        except (OSError, ValueError):
            # A request that broke off, in its body or before its answer.
            self.close_connection = True

    def answer(self):
        if self.headers.get("Transfer-Encoding"):
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            length = int(self.headers.get("Content-Length", 0))
            body = self.rfile.read(length)
            if len(body) < length:
                self.close_connection = True
                return
        reached.append((self.command, self.path, self.headers, body))
        self.send_response(200)
        answer = bytes(BIG) if self.path in ("/big", "/drop") else b"ok"
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        if self.path == "/drop":
            # A byte that comes alone: what waits for it to be taken is all the rest.
            self.wfile.write(answer[:1])
            time.sleep(0.05)
            answer = answer[1:]
        self.wfile.write(answer)

    do_GET = do_POST = do_any

    def log_message(self, *_):
        pass


ThreadingHTTPServer.request_queue_size = 512
ThreadingHTTPServer.daemon_threads = True
# Connections that are reset are what is to be expected.
ThreadingHTTPServer.handle_error = lambda *_: None
upstream = ThreadingHTTPServer(("127.0.0.1", port), Upstream)
threading.Thread(target=upstream.serve_forever, daemon=True).start()
print("started", flush=True)
key = sys.stdin.readline().strip()


def memory(name):
    with open("/proc/%s/status" % process) as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith(name))


peak_before, grown = 0, []


def looked_at():
    """What memory has grown by since the last look, at its peak; each look begins anew, and comes before a connection."""
    global peak_before
    grown.append(memory("VmHWM") - peak_before)
    try:
        with open("/proc/%s/clear_refs" % process, "w") as peak:
            peak.write("5")
    except PermissionError:
        sys.exit("this test resets the peak of bearerd's memory (/proc/PID/clear_refs): bearerd is not dumpable, so that only root may, or CAP_DAC_OVERRIDE")
    peak_before = memory("VmRSS")


class Caller:
    """A connection of frames. What comes back is read by a thread, unless nobody should read."""

    def __init__(self, settings=None, reads=True):
        looked_at()
        callers.append(self)
        self.socket = socket.create_connection(http2)
        # A receive that takes this long has found a hang.
        self.socket.settimeout(60)
        self.encoder, self.stream = Encoder(), -1
        self.frames, self.changed, self.ended = [], threading.Condition(), False
        self.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SettingsFrame(0, settings=settings or {}).serialize())
        if reads:
            threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        buffer = b""
        try:
            while data := self.socket.recv(1 << 16):
                buffer += data
                while len(buffer) >= 9 and len(buffer) >= 9 + int.from_bytes(buffer[:3], "big"):
                    frame, length = Frame.parse_frame_header(memoryview(buffer[:9]))
                    frame.parse_body(memoryview(buffer[9 : 9 + length]))
                    buffer = buffer[9 + length :]
                    with self.changed:
                        self.frames.append(frame)
                        self.changed.notify_all()
        except OSError:
            pass
        with self.changed:
            self.ended = True
            self.changed.notify_all()

    def send(self, data):
        """False where the other side has ended the connection."""
        try:
            self.socket.sendall(data)
            return True
        except OSError:
            return False

    def close(self):
        try:
            # A thread that reads would keep it open.
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.socket.close()

    def headers(self, path="/", method="GET", more=(), end_stream=True, raw=None):
        """The frame that begins the next stream."""
        self.stream += 2
        block = raw if raw is not None else self.encoder.encode(
            [(":method", method), (":scheme", "http"), (":path", path), (":authority", "app.test"), ("x-api-key", key), *more], huffman=False)
        return HeadersFrame(self.stream, block, flags=["END_HEADERS"] + (["END_STREAM"] if end_stream else []))

    def begin(self, *arguments, **named):
        frame = self.headers(*arguments, **named)
        return self.send(frame.serialize())

    def until(self, wanted):
        """Waits for a frame, or for the end of the connection; the frame, or none."""
        with self.changed:
            found = lambda: next((frame for frame in self.frames if wanted(frame)), None)
            assert self.changed.wait_for(lambda: found() or self.ended, timeout=60), "it hangs: %r" % self.frames[-5:]
            return found()

    def answered(self, stream):
        """Waits until a stream is answered or reset, or the connection ends."""
        return self.until(lambda frame: frame.stream_id == stream and (isinstance(frame, RstStreamFrame) or "END_STREAM" in frame.flags))

    def over(self):
        self.until(lambda frame: False)
        return next(("GOAWAY %d" % frame.error_code for frame in self.frames if isinstance(frame, GoAwayFrame)), "closed")


def flood(caller, count, frames):
    """Sends `frames(n)` for n up to `count`, many at a time, until the other side has had enough; how many were taken."""
    for begin in range(0, count, 100):
        if not caller.send(b"".join(frames(number) for number in range(begin, min(begin + 100, count)))):
            return begin
    return count


def rapid_reset():
    caller = Caller()
    taken = flood(caller, 50_000, lambda _: caller.headers().serialize() + RstStreamFrame(caller.stream, error_code=8).serialize())
    return "%d streams, %s" % (taken, caller.over() if taken < 50_000 else "all taken")


def made_you_reset():
    told = []
    for name, provoke in {
        "window of nothing": lambda stream: WindowUpdateFrame(stream, window_increment=0),
        "window over": lambda stream: WindowUpdateFrame(stream, window_increment=(1 << 31) - 1),
        "data after the end": lambda stream: DataFrame(stream, b"x"),
        "headers after the end": lambda stream: HeadersFrame(stream, b"", flags=["END_HEADERS", "END_STREAM"]),
        "depends on itself": lambda stream: PriorityFrame(stream, depends_on=stream, stream_weight=1),
    }.items():
        caller = Caller()

        def frames(_):
            begun = caller.headers().serialize()
            frame = bytearray(provoke(caller.stream).serialize()) if name != "window of nothing" else b"\0\0\4\x08\0" + caller.stream.to_bytes(4, "big") + bytes(4)
            return begun + bytes(frame)

        taken = flood(caller, 20_000, frames)
        told.append("%s: %d streams, %s" % (name, taken, caller.over() if taken < 20_000 else "all taken"))
    # A length that the body does not have.
    caller = Caller()

    def longer(_):
        begun = caller.headers(method="POST", more=[("content-length", "1")], end_stream=False).serialize()
        return begun + DataFrame(caller.stream, b"xx", flags=["END_STREAM"]).serialize()

    taken = flood(caller, 20_000, longer)
    return "; ".join(told) + "; a wrong length: %d streams, %s" % (taken, caller.over() if taken < 20_000 else "all taken")


def continuation_flood():
    told = []
    for size in [0, 1, 16_384]:
        caller = Caller()
        frame = caller.headers(end_stream=True)
        frame.flags.discard("END_HEADERS")
        caller.send(frame.serialize())
        # A literal header that goes on and on, in pieces.
        piece = Encoder().encode([("x-filler", "y" * 8000)] * 2, huffman=False)[:size].ljust(size, b"\0")
        taken = flood(caller, 5000, lambda _: ContinuationFrame(caller.stream, piece).serialize())
        told.append("%d bytes: %d frames, %s" % (size, taken, caller.over()))
        assert taken < 5000 or caller.ended, told
    return "; ".join(told)


def empty_data_flood():
    caller = Caller()
    caller.begin(method="POST", end_stream=False)
    taken = flood(caller, 200_000, lambda _: DataFrame(caller.stream, b"").serialize())
    padded = flood(caller, 50_000, lambda _: DataFrame(caller.stream, b"", pad_length=10, flags=["PADDED"]).serialize())
    caller.send(DataFrame(caller.stream, b"", flags=["END_STREAM"]).serialize())
    end = caller.answered(caller.stream)
    return "%d empty and %d padded, then %s" % (taken, padded, end)


def settings_flood():
    told = []
    for reads in [True, False]:
        for name, frame in {
            "SETTINGS": SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 65_535}),
            "empty SETTINGS": SettingsFrame(0),
            "table sizes": SettingsFrame(0, settings={SettingsFrame.HEADER_TABLE_SIZE: (1 << 32) - 1}),
            "PING": PingFrame(0, b"12345678"),
            "PRIORITY": PriorityFrame(1, depends_on=3, stream_weight=1),
        }.items():
            caller = Caller(reads=reads)
            if not reads:
                # It answers nobody, and may stop reading: then so many are all that it takes.
                caller.socket.settimeout(2)
            taken = flood(caller, 100_000, lambda _: frame.serialize())
            told.append("%s%s: %d" % (name, "" if reads else " unread", taken))
            caller.close()
    return "; ".join(told)


def hpack_bomb():
    told = []
    for value, copies in [(4000, 4000), (4000, 16_000), (1, 16_000), (0, 16_000)]:
        caller = Caller()
        statuses = []
        for _ in range(100):
            # The value goes into the table once; each reference to it is a byte.
            block = caller.encoder.encode(
                [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "app.test"), ("x-api-key", key), ("x-b", "v" * value)], huffman=False)
            frame = caller.headers(raw=block + b"\xbe" * copies)
            data = frame.serialize()
            if len(frame.data) > 16_384:
                first = HeadersFrame(caller.stream, frame.data[:16_384], flags=["END_STREAM"])
                data = first.serialize() + ContinuationFrame(caller.stream, frame.data[16_384:], flags=["END_HEADERS"]).serialize()
            if not caller.send(data):
                break
            end = caller.answered(caller.stream)
            statuses.append("the end" if end is None else type(end).__name__)
            if end is None:
                break
        told.append("%d x %d: %d sections, then %s" % (value, copies, len(statuses), statuses[-1]))
    assert not any("x-b" in headers for _, _, headers, _ in reached)
    return "; ".join(told)


def window_games():
    # Much is asked for, and nothing taken.
    for path in ["/big", "/drop"]:
        caller = Caller(settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0})
        for _ in range(100):
            caller.begin(path)
        first = caller.until(lambda frame: isinstance(frame, HeadersFrame))
        assert first, "not even a header"
        # It ends by itself: each stream is reset, or the connection is closed.
        for stream in range(1, 200, 2):
            caller.answered(stream)
    # Windows as wide as they get, and a caller that does not read.
    wide = (1 << 31) - 1
    deaf = Caller(settings={SettingsFrame.INITIAL_WINDOW_SIZE: wide}, reads=False)
    deaf.send(WindowUpdateFrame(0, window_increment=wide - 65_535).serialize())
    for _ in range(100):
        deaf.begin("/big")
    # It is given up, whatever else it sends.
    deadline = time.monotonic() + 60
    while deaf.send(PingFrame(0, b"12345678").serialize()):
        assert time.monotonic() < deadline, "a caller that takes nothing is kept"
        served_once()
        time.sleep(0.02)
    deaf.close()
    # A window that opens by a byte at a time.
    drip = Caller(settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0})
    drip.begin("/big")
    taken = flood(drip, 20_000, lambda _: WindowUpdateFrame(1, window_increment=1).serialize())
    # And one that goes up and down under open streams.
    waves = Caller()
    for _ in range(50):
        waves.begin("/big")
    flips = flood(waves, 2000, lambda number: SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: number % 2 * 65_535}).serialize())
    return "100 streams ended, %d drips and %d flips were taken" % (taken, flips)


def unfinished_bodies():
    caller = Caller()
    for _ in range(100):
        caller.begin(method="POST", more=[("content-length", "10")], end_stream=False)
        caller.send(DataFrame(caller.stream, b"abc").serialize())
    ends = [caller.answered(stream) for stream in range(1, 200, 2)]
    assert not reached, reached[:1]
    return "100 streams ended, the first by %r" % ends[0]


def short_bodies():
    for length, body in [("10", b"abc"), ("10", b""), ("3", b"abcdef"), ("0", b"x"), ("-1", b"x"), ("1, 1", b"x"), ("x", b"x"), ("18446744073709551616", b"x")]:
        for way in ["data", "trailers", "reset", "headers"]:
            caller = Caller()
            caller.begin("/short", "POST", [("content-length", length)], end_stream=way == "headers")
            if way != "headers":
                caller.send(DataFrame(caller.stream, body, flags=["END_STREAM"] if way == "data" else []).serialize())
            if way == "trailers":
                caller.send(HeadersFrame(caller.stream, caller.encoder.encode([("x-trailer", "1")]), flags=["END_HEADERS", "END_STREAM"]).serialize())
            if way == "reset":
                caller.send(RstStreamFrame(caller.stream, error_code=8).serialize())
            else:
                caller.answered(caller.stream)
            # On the same connection, and so perhaps on the same one to the upstream.
            if caller.begin("/next", "POST", [("content-length", "2")], end_stream=False):
                caller.send(DataFrame(caller.stream, b"hi", flags=["END_STREAM"]).serialize())
                caller.answered(caller.stream)
            caller.close()
    for method, path, headers, body in reached:
        # No body is one of no bytes, whatever was to come.
        whole = (path, body) == ("/next", b"hi") or (path, body, headers["content-length"]) == ("/short", b"", "0")
        assert whole, (method, path, headers.items(), body)
    assert len(reached) > 8
    return "%d requests came after, each as it was sent" % len(reached)


def odd_values():
    refused = taken = 0
    smuggled = "\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: app.test\r\n\r\n"
    for odd in ["\r\nx-smuggled: 1", "\nx-smuggled: 1", "\rx-smuggled: 1", "\0", "\r", "\n", smuggled, " HTTP/1.1\r\nx-smuggled: 1\r\nx: ", "\x0b", "\x7f", "\x01"]:
        for place in [":path", ":method", ":authority", ":scheme", "value", "name", "x-api-key", "cookie", "te", "host"]:
            fields = {":method": "GET", ":scheme": "http", ":path": "/odd", ":authority": "app.test", "x-api-key": key}
            if place == "name":
                fields["x-odd" + odd] = "1"
            elif place == "value":
                fields["x-odd"] = "a" + odd + "b"
            else:
                fields[place] = fields.get(place, "") + odd
            caller = Caller()
            caller.begin(raw=caller.encoder.encode(list(fields.items()), huffman=False))
            end = caller.answered(caller.stream)
            refused, taken = refused + (not isinstance(end, DataFrame)), taken + isinstance(end, DataFrame)
            caller.close()
    for fields in [
        [("X-Upper", "1")], [("connection", "close")], [("transfer-encoding", "chunked")], [("upgrade", "h2c")], [("keep-alive", "1")], [("te", "gzip")],
        [(":path", "/other")], [(":odd", "1")], [("x", "1"), (":method", "GET")], [("", "1")], [("host", "other.test")], [("content-length", "0"), ("content-length", "5")],
    ]:
        caller = Caller()
        caller.begin("/odd", more=fields)
        caller.answered(caller.stream)
        caller.close()
    caller = Caller()
    caller.begin("/odd")
    caller.answered(caller.stream)
    assert reached, "an even one reaches it"
    for method, path, headers, body in reached:
        assert path.startswith("/odd") and body == b"", (method, path)
        for name, value in headers.items():
            assert name.lower() not in ("x-smuggled", "transfer-encoding", "upgrade", "keep-alive", "x-api-key"), headers.items()
            assert not any(letter in value for letter in "\r\n\0"), headers.items()
        assert len(headers.get_all("host")) == 1 and len(headers.get_all("authorization")) == 1, headers.items()
        assert headers["host"] == "app.test", headers["host"]
    return "%d refused, %d answered, %d reached the upstream" % (refused, taken, len(reached))


def ask(address, path):
    """Asks over HTTP/1 on a connection of its own; the body of a 200."""
    with socket.create_connection(address, timeout=30) as caller:
        caller.sendall(("GET %s HTTP/1.1\r\nHost: app.test\r\nX-API-Key: %s\r\nConnection: close\r\n\r\n" % (path, key)).encode())
        answer = b""
        while data := caller.recv(4096):
            answer += data
    head, _, body = answer.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise ValueError(answer)
    return body


def served_once():
    ask(http1, "/neighbour")


class Neighbour(threading.Thread):
    """A caller who is served all the while."""

    def __init__(self):
        super().__init__(daemon=True)
        self.served, self.failed, self.over = [], None, False

    def run(self):
        while not self.over:
            began = time.monotonic()
            try:
                served_once()
            except (OSError, ValueError) as error:
                self.failed = error
                return
            self.served.append((began, time.monotonic()))
            # Some load, not all that the machine can do: there are ports for so many connections only.
            time.sleep(0.02)

    def between(self, begin, end):
        """How often he was served from beginning to end between these times, and how long he waited at most where that met them."""
        return (sum(begin <= asked and served <= end for asked, served in self.served),
                max((served - asked for asked, served in self.served if served >= begin and asked <= end), default=0))


def series(name):
    return next(float(line.split()[1]) for line in ask(metrics, "/metrics").decode().splitlines() if line.startswith(name + " "))


def at_rest():
    """What memory bearerd has once no caller is there."""
    deadline = time.monotonic() + 60
    while series("bearerd_connections") or series("bearerd_requests_in_flight"):
        assert time.monotonic() < deadline, "connections or requests outlive their callers"
    # What was freed goes back with the next use.
    for _ in range(50):
        served_once()
    return memory("VmRSS")


def main():
    attack = globals()[sys.argv[6]]
    # Once, so that what is there anyway is there before: pools, a token, threads.
    caller = Caller()
    caller.begin()
    caller.answered(caller.stream)
    caller.close()
    rest = [at_rest()]
    looked_at()
    grown.clear()
    told, times, seconds, served, waited = "", 0, [], [], []
    while len(seconds) < ROUNDS and not (len(seconds) == 2 and min(seconds) > LONG):
        neighbour, began = Neighbour(), time.monotonic()
        neighbour.start()
        while time.monotonic() < began + ROUND:
            reached.clear()
            told, times = attack(), times + 1
        ended = time.monotonic()
        neighbour.over = True
        neighbour.join()
        assert neighbour.failed is None, neighbour.failed
        often, longest = neighbour.between(began, ended)
        seconds, served, waited = [*seconds, round(ended - began, 1)], [*served, often], [*waited, round(longest, 3)]
        for caller in callers:
            caller.close()
        callers.clear()
        rest.append(at_rest())
    looked_at()
    print(json.dumps({"attack": sys.argv[6], "told": told, "times": times, "seconds": seconds, "grown": max(grown), "at_rest": rest, "served": served,
                      "waited": waited}))
    assert min(served) >= SERVED, "the neighbour was served %s times" % served
    assert max(waited) <= LONGEST, "the neighbour waited for %s seconds" % waited
    assert max(grown) <= GROWTH, "%d bytes more" % max(grown)
    assert rest[-1] - rest[0] <= KEPT and rest[-1] - rest[1] <= CREEP, "memory is not given back: %s" % rest


main()
