"""A gRPC client and server, both grpcio, with bearerd between: unary, all streamings, trailers, deadline, cancel.

Arguments: the port of the server to start, the address of bearerd. Reads the API key from standard input.
The server is told to start first, and says so with a line; the calls begin with the next line of standard input."""

import concurrent.futures
import sys
import threading

import grpc

port, bearerd = int(sys.argv[1]), sys.argv[2]
begun, cancelled = threading.Event(), threading.Event()
seen = []


def metadata_of(context):
    return {key: value for key, value in context.invocation_metadata()}


class Echo(grpc.GenericRpcHandler):
    def service(self, details):
        method = details.method.rsplit("/", 1)[1]
        seen.append((method, details.invocation_metadata))
        return {
            "Unary": grpc.unary_unary_rpc_method_handler(self.unary),
            "Fails": grpc.unary_unary_rpc_method_handler(self.fails),
            "Slow": grpc.unary_unary_rpc_method_handler(self.slow),
            "Up": grpc.stream_unary_rpc_method_handler(self.up),
            "Down": grpc.unary_stream_rpc_method_handler(self.down),
            "Both": grpc.stream_stream_rpc_method_handler(self.both),
        }.get(method)

    def unary(self, request, context):
        bearers = [value for key, value in context.invocation_metadata() if key == "authorization"]
        assert len(bearers) == 1 and bearers[0].startswith("Bearer ey"), bearers
        assert "x-api-key" not in metadata_of(context)
        context.set_trailing_metadata((("x-trailer", "told"),))
        return request

    def fails(self, request, context):
        context.set_trailing_metadata((("x-why", "because"),))
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not now")

    def slow(self, request, context):
        context.add_callback(cancelled.set)
        begun.set()
        cancelled.wait(60)
        return request

    def up(self, requests, context):
        return b"%d" % sum(len(part) for part in requests)

    def down(self, request, context):
        for number in range(100):
            yield b"%s-%d" % (request, number)

    def both(self, requests, context):
        for part in requests:
            yield part


server = grpc.server(concurrent.futures.ThreadPoolExecutor(8), handlers=(Echo(),))
assert server.add_insecure_port("127.0.0.1:%d" % port) == port
server.start()
print("started", flush=True)
key = sys.stdin.readline().strip()

channel = grpc.insecure_channel(bearerd)
metadata = (("x-api-key", key),)


def call(kind, method, *arguments, **options):
    return getattr(channel, kind)("/test.Echo/" + method)(*arguments, **{"metadata": metadata, "timeout": 60, **options})


answer, told = channel.unary_unary("/test.Echo/Unary").with_call(b"hello", metadata=metadata, timeout=60)
assert answer == b"hello" and ("x-trailer", "told") in told.trailing_metadata(), told.trailing_metadata()
assert call("unary_unary", "Unary", b"x" * 3_000_000) == b"x" * 3_000_000
assert call("stream_unary", "Up", iter([b"a" * 1000] * 50)) == b"50000"
assert list(call("unary_stream", "Down", b"n")) == [b"n-%d" % number for number in range(100)]

# Each message comes back before the next is sent: nothing is held up on the way.
turn = threading.Semaphore(1)


def in_turn():
    for number in range(20):
        assert turn.acquire(timeout=60)
        yield b"%d" % number


for number, echoed in enumerate(call("stream_stream", "Both", in_turn())):
    assert echoed == b"%d" % number
    turn.release()
assert number == 19


def failure(method, **options):
    try:
        call("unary_unary", method, b"x", **options)
    except grpc.RpcError as error:
        return error
    raise AssertionError(method + " did not fail")


error = failure("Fails")
assert (error.code(), error.details()) == (grpc.StatusCode.FAILED_PRECONDITION, "not now"), error
assert ("x-why", "because") in error.trailing_metadata()
assert failure("Slow", timeout=1).code() == grpc.StatusCode.DEADLINE_EXCEEDED
assert cancelled.wait(60), "the server did not learn that the caller gave up"
begun.clear()
cancelled.clear()
going = channel.unary_unary("/test.Echo/Slow").future(b"x", metadata=metadata)
assert begun.wait(60)
going.cancel()
assert going.cancelled()
assert cancelled.wait(60), "the server did not learn of the cancellation"

# A refusal of bearerd's own is a status that gRPC knows, and the server never sees the call.
count = len(seen)
assert failure("Unary", metadata=()).code() == grpc.StatusCode.UNAUTHENTICATED
assert failure("Unary", metadata=(("x-api-key", "unknown"),)).code() == grpc.StatusCode.UNAUTHENTICATED
assert len(seen) == count
server.stop(None)
