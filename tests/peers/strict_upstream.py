"""An upstream that reads HTTP/1.1 as RFC 9112 is written, forgives nothing, and records what it saw.

Arguments: names. For each it listens on a port of its own; the ports are its first line. When standard input ends it waits for the end of all
connections, and prints what it saw as JSON lines: one for each request, or for what was none."""

import asyncio
import hashlib
import json
import re
import sys

# Bytes past ASCII in a target are more than RFC 3986 grants; browsers' users and curl's send them, and all servers agree where they end.
START = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([\x21-\x7e\x80-\xff]+) HTTP/1\.1")
FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*((?:[\x21-\x7e\x80-\xff](?:[\x20-\x7e\x80-\xff\t]*[\x21-\x7e\x80-\xff])?)?)[ \t]*")
HOST = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?")
# The request behind; a body with it has swallowed that.
MARKER = re.compile(rb"/m[0-9]+m")

seen = []


class Malformed(Exception):
    pass


class Ended(Exception):
    pass


class Connection:
    def __init__(self, way, reader, writer):
        self.way, self.reader, self.writer = way, reader, writer
        self.raw = b""

    async def line(self):
        try:
            line = await self.reader.readuntil(b"\n")
        except asyncio.IncompleteReadError as error:
            self.raw += error.partial
            raise Ended from None
        self.raw += line
        if not line.endswith(b"\r\n") or b"\r" in line[:-2]:
            raise Malformed("the end of a line")
        return line[:-2]

    async def exactly(self, count):
        try:
            return await self.reader.readexactly(count)
        except asyncio.IncompleteReadError:
            raise Ended from None

    async def head(self, record):
        start = START.fullmatch(await self.line())
        if not start:
            raise Malformed("the start line")
        record["method"], record["target"] = start[1].decode(), start[2].decode("latin-1")
        fields = []
        while line := await self.line():
            field = FIELD.fullmatch(line)
            if not field:
                raise Malformed("a header line")
            fields.append((field[1].lower(), field[2]))

        def values(name):
            return [value for other, value in fields if other == name]

        hosts, lengths, codings = values(b"host"), values(b"content-length"), values(b"transfer-encoding")
        if len(hosts) != 1 or not HOST.fullmatch(hosts[0]):
            raise Malformed("Host")
        record["host"] = hosts[0].decode()
        if len(lengths) + len(codings) > 1:
            raise Malformed("two framings")
        if codings and codings[0].lower() != b"chunked":
            raise Malformed("a transfer coding")
        if lengths and not re.fullmatch(rb"[0-9]{1,18}", lengths[0]):
            raise Malformed("a length")
        expects = b"100-continue" in [value.lower() for value in values(b"expect")]
        return (int(lengths[0]) if lengths else None if codings else 0), expects

    async def chunks(self):
        body = b""
        while True:
            line = await self.line()
            if not re.fullmatch(rb"[0-9A-Fa-f]{1,8}", line):
                raise Malformed("the size of a chunk")
            size = int(line, 16)
            if size == 0:
                if await self.line():
                    raise Malformed("trailers")
                return body
            body += await self.exactly(size)
            if await self.line():
                raise Malformed("the end of a chunk")

    async def serve(self):
        while True:
            self.raw = b""
            record = {"way": self.way, "method": "", "target": "", "host": "", "body": "", "whole": False, "swallowed": False, "problem": ""}
            try:
                length, expects = await self.head(record)
                if expects:
                    self.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                body = await (self.chunks() if length is None else self.exactly(length))
                record["body"], record["whole"] = hashlib.sha256(body).hexdigest(), True
                record["swallowed"] = bool(MARKER.search(body))
                answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n" + (b"" if record["method"] == "HEAD" else b"ok")
            except Malformed as malformed:
                record["problem"] = str(malformed)
                answer = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            except Ended:
                answer = b""
            # A connection that ended between requests has nothing to tell.
            if self.raw:
                record["raw"] = self.raw.decode("latin-1")
                seen.append(record)
            self.writer.write(answer)
            if not record["whole"]:
                return
            await self.writer.drain()


async def main():
    open_connections = set()

    def serving(way):
        async def serve(reader, writer):
            open_connections.add(asyncio.current_task())
            try:
                await Connection(way, reader, writer).serve()
            except ConnectionError:
                pass
            finally:
                writer.close()
                open_connections.discard(asyncio.current_task())

        return serve

    servers = [await asyncio.start_server(serving(way), "127.0.0.1", 0, limit=1 << 20) for way in sys.argv[1:]]
    print(*(server.sockets[0].getsockname()[1] for server in servers), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    while open_connections:
        await asyncio.wait(set(open_connections))
    for record in seen:
        print(json.dumps(record))


asyncio.run(main())
