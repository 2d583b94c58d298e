"""A server of the Hub's protocol (huggingface.co/docs/hub/api and what huggingface_hub asks), and of plain files."""

import hashlib
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

COMMIT = "a" * 40


class Hub:
    """`files` maps "owner/name/file" to bytes. `cuts` are byte counts after which the next answers end too early."""

    def __init__(self, url):
        self.url = url
        self.files = {}
        self.cuts = []
        self.refused = {}  # "owner/name" -> (status, X-Error-Code)
        self.wrong_hash = False
        self.ranges = True
        self.log = []  # (method, path, Range)


class Handler(BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        hub = self.server.hub
        hub.log.append((self.command, self.path, self.headers["Range"]))
        repository, _, name = self.path.lstrip("/").partition("/resolve/")
        revision, _, name = name.partition("/")
        if repository in hub.refused:
            return self.fail(*hub.refused[repository])
        if not any(path.startswith(f"{repository}/") for path in hub.files):
            return self.fail(404, "RepoNotFound")
        if revision not in ("main", COMMIT):
            return self.fail(404, "RevisionNotFound")
        if (content := hub.files.get(f"{repository}/{name}")) is None:
            return self.fail(404, "EntryNotFound")
        self.send_file(hub, name, content, body)

    def send_file(self, hub, name, content, body):
        first = int(self.headers["Range"][len("bytes=") : -1]) if self.headers["Range"] and hub.ranges else 0
        if first >= len(content) and first:
            return self.fail(416)
        self.send_response(206 if first else 200)
        if name.endswith(".json"):  # in git
            blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            self.send_header("ETag", f'"{blob}"')
        else:  # in large file storage
            digest = hashlib.sha256(content).hexdigest()
            digest = digest[:-1] + ("0" if digest[-1] != "0" else "1") if hub.wrong_hash else digest
            self.send_header("ETag", '"of-the-storage"')
            self.send_header("X-Linked-Etag", f'"{digest}"')
            self.send_header("X-Linked-Size", str(len(content)))
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Accept-Ranges", "bytes")
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - first))
        self.end_headers()
        if body:
            self.wfile.write(content[first : first + hub.cuts.pop(0)] if hub.cuts else content[first:])
        self.close_connection = True

    def fail(self, status, code=None):
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        if code == "EntryNotFound":
            self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@contextmanager
def serve():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.hub = Hub(f"http://127.0.0.1:{server.server_port}")
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.hub
    finally:
        server.shutdown()
        server.server_close()
