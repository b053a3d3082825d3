"""A program of gRPC: `calls.py serve NAME PORT` answers, `calls.py call TARGET [secured]` calls as lines on its input say."""

import collections
import concurrent.futures
import json
import sys
import time
import uuid

import grpc
import grpc.experimental


class Shop(grpc.GenericRpcHandler):
    """Answers every method with its name."""

    def __init__(self, name):
        self.name = name.encode()
        self.tries = collections.Counter()

    def service(self, details):
        method = details.method.rsplit("/", 1)[-1]
        metadata = dict(details.invocation_metadata)

        def answer(_request, context):
            if method == "Slow":
                time.sleep(6)
            self.tries[metadata["call"]] += 1
            if method == "Flaky" and self.tries[metadata["call"]] == 1:
                context.abort(grpc.StatusCode.UNAVAILABLE, "not the first time")
            return self.name

        return grpc.unary_unary_rpc_method_handler(answer)


def serve(name, port):
    workers = concurrent.futures.ThreadPoolExecutor(max_workers=8)
    server = grpc.server(workers, handlers=[Shop(name)])
    server.add_insecure_port(f"0.0.0.0:{port}")
    server.start()
    print("ready", flush=True)
    server.wait_for_termination()


def call(target, how):
    plain = grpc.experimental.insecure_channel_credentials()
    credentials = grpc.xds_channel_credentials(plain) if how == "secured" else plain
    # What this channel knows is its own, and it looks for what is new at once.
    options = [("grpc.max_reconnect_backoff_ms", 500), ("grpc.initial_reconnect_backoff_ms", 100)]
    with grpc.secure_channel(target, credentials, options=options) as channel:
        print("ready", flush=True)
        for line in sys.stdin:
            print(json.dumps(calls(channel, **json.loads(line))), flush=True)


def calls(channel, method, count, seconds=10):
    """Calls so often; says who answered, how calls ended, and what was said of those that failed."""
    to = channel.unary_unary(method)
    found = {name: collections.Counter() for name in ("answers", "codes", "said")}
    for _ in range(count):
        try:
            answer = to(b"", timeout=seconds, metadata=[("call", str(uuid.uuid4()))])
            found["answers"][answer.decode()] += 1
        except grpc.RpcError as error:
            found["codes"][error.code().name] += 1
            found["said"][error.details()] += 1
    return found


if __name__ == "__main__":
    {"serve": serve, "call": call}[sys.argv[1]](sys.argv[2], (sys.argv + [""])[3])
