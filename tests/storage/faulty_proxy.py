"""A proxy before a server of objects that lets every n-th request fail."""

import http.client
import http.server
import itertools
import socket
import struct
import threading

# Headers of one connection, which are not passed on.
_OF_CONNECTION = {"connection", "keep-alive", "transfer-encoding", "content-length"}


class FaultyProxy:
    """Passes requests on to `port`; every n-th is answered by 503, or not at all, in turn.

    Attributes:
      port: where it listens.
      every: n; 0 lets nothing fail.
      refuses: every request is answered by 403.
      count, failed: requests that came, and that failed.
    """

    def __init__(self, port: int):
        self.target, self.every, self.count, self.failed = port, 0, 0, 0
        self.refuses = False
        self._numbers = itertools.count(1)
        handler = type("Handler", (_Handler,), {"proxy": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def fails(self) -> str:
        """How the request that comes now fails; "" where it does not."""
        if self.refuses:
            return ""
        self.count = next(self._numbers)
        if not self.every or self.count % self.every:
            return ""
        self.failed += 1
        # A request may be done though its answer is lost.
        return ("503", "reset before", "reset after")[self.failed % 3]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # more would wait a second for their connection

    def handle_error(self, request, client_address) -> None:
        """A client that is gone is nothing to say."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: FaultyProxy

    def _pass_on(self) -> None:
        body = self._body()
        fails = self.proxy.fails()
        if fails == "503" or self.proxy.refuses:
            self.send_response(403 if self.proxy.refuses else 503)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if fails == "reset before":
            self._reset()
            return
        upstream = http.client.HTTPConnection("127.0.0.1", self.proxy.target, timeout=60)
        headers = {k: v for k, v in self.headers.items() if k.lower() not in _OF_CONNECTION}
        upstream.request(self.command, self.path, body, headers)
        answer = upstream.getresponse()
        content = answer.read()
        if fails == "reset after":
            self._reset()
            return
        self.send_response(answer.status)
        length = len(content)
        for name, value in answer.getheaders():
            if name.lower() not in _OF_CONNECTION:
                self.send_header(name, value)
            elif name.lower() == "content-length" and self.command == "HEAD":
                length = int(value)
        if answer.status not in (204, 304):
            self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do_PATCH = _pass_on

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _reset(self) -> None:
        linger = struct.pack("ii", 1, 0)  # closes with RST
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.close_connection = True
        self.connection.close()
        self.wfile = self.rfile = _Nowhere()

    def log_message(self, *_) -> None:
        pass


class _Nowhere:
    closed = True

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass
