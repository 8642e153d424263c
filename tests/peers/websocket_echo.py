"""A WebSocket client and server, both `websockets`, with bearerd between.

Arguments: the port of the server to start, the address of bearerd. The server says that it has started; the API key comes on standard input."""

import asyncio
import sys

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed, InvalidStatus

port, bearerd = int(sys.argv[1]), sys.argv[2]
seen = []


async def echo(connection):
    headers = connection.request.headers
    seen.append((headers.get_all("Authorization"), headers.get("X-API-Key")))
    async for message in connection:
        if message == "close":
            await connection.close(4001, "as asked")
            return
        await connection.send(message)


async def main():
    async with serve(echo, "127.0.0.1", port, max_size=None):
        print("started", flush=True)
        key = (await asyncio.to_thread(sys.stdin.readline)).strip()
        url = "ws://%s/chat" % bearerd
        async with connect(url, additional_headers={"X-API-Key": key}, max_size=None) as socket:
            for message in ["hello", b"\x00\xff" * 1000, "x" * 5_000_000]:
                await socket.send(message)
                assert await socket.recv() == message
            await (await socket.ping())
            await socket.send("close")
            try:
                await socket.recv()
                raise AssertionError("it is still open")
            except ConnectionClosed as closed:
                assert (closed.rcvd.code, closed.rcvd.reason) == (4001, "as asked"), closed

        # Many at once, each opened, used and closed.
        async def once(number):
            async with connect(url, additional_headers={"X-API-Key": key}) as socket:
                await socket.send(str(number))
                assert await socket.recv() == str(number)

        for _ in range(5):
            await asyncio.gather(*(once(number) for number in range(40)))
        for bearers, api_key in seen:
            assert len(bearers) == 1 and bearers[0].startswith("Bearer ey") and api_key is None
        count = len(seen)
        try:
            async with connect(url):
                raise AssertionError("it is let in")
        except InvalidStatus as refused:
            assert refused.response.status_code == 401
        assert len(seen) == count


asyncio.run(main())
