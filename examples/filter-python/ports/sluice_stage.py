"""A filter's side of Sluice's protocol, as docs/protocol.md describes it.

serve(filter) turns the process into a stage of the runner that started it. The filter
has type, summary, attributes, configure(block) and passes(record): see
__main__.py. One thread moves the data; gRPC's answer the runner.
"""

import json
import os
import queue
import select
import signal
import socket
import struct
import sys
import tempfile
import threading
from concurrent import futures

import grpc

import stage_pb2 as pb

PROTOCOL, BATCH_VERSION = 1, 1
COOKIE = ("SLUICE_STAGE", "8d1f6a2e-plugin-of-a-sluice-runner")

NEW, UPDATE, DESTROY, SYNC_BEGIN, SYNC_END, EXPECT, UNEXPECT = range(1, 8)
MAX_BATCH, HEADER, HEAD, MARK = 65536, 48, 112, 16


class Attribute:
    """One attribute of the block; type is an HCL type, as in "number" or "list(string)"."""

    def __init__(self, name, type, required=False, default="", doc=""):
        self.message = pb.Attribute(name=name, type=type, required=required, default=default, doc=doc)
        self.name, self.required = name, required


class Diagnostic:
    """Something wrong in a block. path leads to it: names (str) and indexes (int)."""

    def __init__(self, path, summary, detail):
        steps = [pb.Step(name=s) if isinstance(s, str) else pb.Step(index=s) for s in path]
        self.message = pb.Diagnostic(path=steps, summary=summary, detail=detail)


class Malformed(Exception):
    """A packet is no batch."""


def records(packet):
    """Checks a batch to its last bound and returns its records, or raises Malformed."""
    if not HEADER <= len(packet) <= MAX_BATCH:
        raise Malformed(f"{len(packet)} bytes")
    version, origin, count, _, replay = struct.unpack_from("<BBHIQ", packet)
    if version != BATCH_VERSION or origin > 2:
        raise Malformed(f"version {version}, origin {origin}")
    found, at = [], HEADER
    while at < len(packet):
        if len(packet) - at < MARK:
            raise Malformed("a record is cut short")
        size, kind = struct.unpack_from("<HB", packet, at)
        if size % 4 or at + size > len(packet):
            raise Malformed(f"a record of {size} bytes")
        if kind in (SYNC_BEGIN, SYNC_END):
            if size < MARK or not replay:
                raise Malformed("a mark that is too short, or live")
        elif NEW <= kind <= UNEXPECT:
            if size < HEAD or packet[at + 8] not in (2, 10):
                raise Malformed("a flow without its head, or of an unknown family")
            check_tail(packet, at + HEAD, at + size)
        else:
            raise Malformed(f"kind {kind}")
        found.append(packet[at:at + size])
        at += size
    if len(found) != count:
        raise Malformed(f"{len(found)} records, not {count}")
    return found


def check_tail(packet, at, end):
    """Checks the attributes behind a flow's head."""
    while at < end:
        if end - at < 4:
            raise Malformed("an attribute is cut short")
        at += 4 + (struct.unpack_from("<H", packet, at + 2)[0] + 3 & ~3)
        if at > end:
            raise Malformed("an attribute is too long")


class Edge:
    """One output. With several a full one is behind: what is meant for it is dropped."""

    def __init__(self, fd, number):
        self.fd, self.number, self.behind = fd, number, False
        # socket.socket(fileno=…) finds out that it is a Unix socket of type SEQPACKET.
        self.socket = socket.socket(fileno=fd)


class Stage:
    """The service Stage, and the loop that moves the data."""

    def __init__(self, filter):
        self.filter, self.configured, self.started = filter, False, False
        self.lock, self.signals = threading.Lock(), queue.Queue(maxsize=4096)
        self.batches_in = self.batches_out = self.events_in = self.events_out = 0
        self.bytes_in = self.bytes_out = self.malformed = self.edge_dropped = 0
        self.sending = self.working = False
        self.dropped = {}  # by replay and owner: records dropped since its begin

    # The calls of the runner.

    def Describe(self, request, context):
        schema = pb.Schema(attributes=[a.message for a in self.filter.attributes])
        return pb.Description(kind="filter", type=self.filter.type, summary=self.filter.summary, schema=schema,
                              batch_version=BATCH_VERSION)

    def Configure(self, request, context):
        found = self.check(request.json)
        self.configured = not found
        return pb.Configured(diagnostics=[d.message for d in found], traits=pb.Traits())

    def check(self, text):
        try:
            block = json.loads(text)
        except ValueError as e:
            return [Diagnostic([], "Unreadable configuration", f"The configuration is no JSON: {e}.")]
        if not isinstance(block, dict):
            return [Diagnostic([], "Unreadable configuration", "The configuration is no JSON object.")]
        block = {name: value for name, value in block.items() if value is not None}
        known = {a.name for a in self.filter.attributes}
        found = [Diagnostic([], "Unknown attribute", f'There is no attribute "{n}" here.') for n in sorted(block.keys() - known)]
        found += [Diagnostic([], "Missing attribute", f'The attribute "{a.name}" is required.')
                  for a in self.filter.attributes if a.required and a.name not in block]
        return found or self.filter.configure(block)

    def Start(self, request, context):
        with self.lock:
            if not self.configured or self.started:
                context.abort(grpc.StatusCode.FAILED_PRECONDITION, "configure first, and start once")
            if len(request.inputs) != 1 or not request.outputs:
                return pb.Started(error="a filter has one input, and outputs")
            self.started = True
        self.generation, self.input = request.generation, socket.socket(fileno=request.inputs[0])
        several = len(request.outputs) > 1
        self.edges = [Edge(fd, i + 1 if several else 0) for i, fd in enumerate(request.outputs)]
        threading.Thread(target=self.run, daemon=True).start()
        return pb.Started()

    def Statistics(self, request, context):
        self.need_start(context)
        return pb.StatisticsReply(
            batches_in=self.batches_in, batches_out=self.batches_out, events_in=self.events_in, events_out=self.events_out,
            bytes_in=self.bytes_in, bytes_out=self.bytes_out, malformed=self.malformed, edge_dropped=self.edge_dropped,
            sending=self.sending, working=self.working)

    def Signals(self, request, context):
        while context.is_active():
            try:
                yield self.signals.get(timeout=1)
            except queue.Empty:
                pass

    def Replay(self, request, context):
        self.need_start(context)
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "only sources and caches replay")

    def Drain(self, request, context):
        self.need_start(context)
        return pb.Empty()  # a filter drains when its input ends

    def Command(self, request, context):
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "this stage has no commands")

    def need_start(self, context):
        if not self.started:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "the stage is not started")

    def signal(self, name, detail="", edge=0):
        try:
            self.signals.put_nowait(pb.Signal(name=name, detail=detail, times=1, edge=edge))
        except queue.Full:
            pass  # as many wait as anybody can want

    # The data.

    def run(self):
        try:
            while True:
                packet = self.input.recv(MAX_BATCH + 1)  # one more, so that too long a packet shows
                if not packet:
                    break  # the end of the stream: all is sent
                self.working = True
                self.packet(packet)
                self.bytes_in += len(packet)
                self.batches_in += 1  # last: the runner reads it as "all this is done"
                self.working = False
        except BaseException as e:  # the runner starts the stage again
            log("ERROR", f"stage ended: {e!r}")
            os._exit(1)
        os._exit(0)

    def packet(self, packet):
        try:
            all = records(packet)
        except Malformed as e:
            self.malformed += 1
            log("ERROR", f"batch refused: {e}")
            self.signal("gap", "a batch was malformed")
            return
        self.events_in += len(all)
        header = packet[:HEADER]
        replay, owner = header[8:16], header[32:48]
        kept = []
        for record in all:
            if record[2] == SYNC_BEGIN:  # cancels this owner's replay before it
                self.dropped = {key: n for key, n in self.dropped.items() if key[1] != owner}
                self.dropped[replay, owner] = 0
            elif record[2] == SYNC_END:
                record = self.lower(record, self.dropped.pop((replay, owner), 0))
            elif not self.filter.passes(record):
                for key in self.dropped:  # records of a cache's replay have the owners of their flows, its marks have none
                    if key[0] == replay:
                        self.dropped[key] += 1
                continue
            kept.append(record)
        if kept:
            self.send(header, kept)

    def lower(self, mark, dropped):
        """Takes from the count of an end mark what was dropped, so that a difference means loss."""
        count = struct.unpack_from("<Q", mark, 8)[0]
        return mark[:8] + struct.pack("<Q", max(count - dropped, 0)) + mark[16:]

    def send(self, header, kept):
        packet = b"".join([header[:2], struct.pack("<HI", len(kept), self.generation), header[8:]] + kept)
        if len(self.edges) == 1:
            self.sending = True
            self.edges[0].socket.send(packet)  # blocks while the next stage is behind
            self.sending = False
        else:
            self.fan_out(packet, struct.unpack_from("<H", header, 24)[0], len(kept))
        self.bytes_out += len(packet)
        self.events_out += len(kept)
        self.batches_out += 1

    def fan_out(self, packet, only, events):
        for edge in self.edges:
            if only and only != edge.number:
                continue
            try:
                if not edge.behind:
                    edge.socket.send(packet, socket.MSG_DONTWAIT)
                    continue
            except BlockingIOError:
                edge.behind = True
                threading.Thread(target=self.await_room, args=(edge,), daemon=True).start()
            self.edge_dropped += events

    def await_room(self, edge):
        poll = select.poll()
        poll.register(edge.fd, select.POLLOUT)
        poll.poll()
        edge.behind = False
        self.signal("edge-full", edge=edge.number)  # the runner has all replayed into it


def log(level, message):
    """Writes a line of the runner's log."""
    print(json.dumps({"level": level, "msg": message}), file=sys.stderr, flush=True)


def watch_lifeline():
    """Ends the process when the runner's end of the pipe closes: the runner is gone."""
    fd = os.environ.get("SLUICE_LIFELINE")
    if fd and fd.isdigit():
        def wait():
            os.read(int(fd), 1)
            os._exit(1)
        threading.Thread(target=wait, daemon=True).start()


# The messages that each call takes and returns, and whether it returns a stream.
CALLS = {
    "Describe": (pb.DescribeRequest, False), "Configure": (pb.Configuration, False), "Start": (pb.StartRequest, False),
    "Replay": (pb.ReplayRequest, False), "Drain": (pb.Empty, False), "Statistics": (pb.Empty, False),
    "Command": (pb.CommandRequest, True), "Signals": (pb.Empty, True),
}


def handlers(stage):
    """Registers the service by its name and calls, as generated code would."""
    methods = {}
    for name, (request, stream) in CALLS.items():
        make = grpc.unary_stream_rpc_method_handler if stream else grpc.unary_unary_rpc_method_handler
        methods[name] = make(getattr(stage, name), request_deserializer=request.FromString,
                             response_serializer=lambda message: message.SerializeToString())
    return grpc.method_handlers_generic_handler("sluice.stage.v1.Stage", methods)


def serve(filter):
    """Shakes hands and serves until the input ends. Returns an exit status if no runner started it."""
    if os.environ.get(COOKIE[0]) != COOKIE[1]:
        print(f'this is the Sluice plugin filter-{filter.type}; a runner starts it: name its folder in plugin_path '
              f'and write a block filter "{filter.type}" in a pipeline', file=sys.stderr)
        return 1
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # a stage ends by the end of its input
    watch_lifeline()
    folder = os.environ.get("PLUGIN_UNIX_SOCKET_DIR") or tempfile.mkdtemp()
    path = os.path.join(folder, f"plugin-{os.getpid()}")
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8), handlers=[handlers(Stage(filter))])
    if not server.add_insecure_port("unix:" + path):
        return 1
    server.start()
    # go-plugin's version, the protocol's, network, address, the kind of RPC.
    print(f"1|{PROTOCOL}|unix|{path}|grpc", flush=True)
    server.wait_for_termination()
    return 0
