"""As much of a W&B server as lets `wandb sync` upload runs, and what it holds of each afterwards.

History is a list of lines, of which an upload replaces those from its offset on; a summary is replaced whole. Where the
upload of a run begins is the client's doing: at 0, or, where it is resumed, at the end of what is there.
"""

import gzip
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class _Quiet(ThreadingHTTPServer):
    def handle_error(self, *_):
        pass  # a client that goes leaves its connections as they are


class WandbServer:
    """Use as a context. `url` is where it listens."""

    def __init__(self):
        self.runs: dict[str, dict] = {}
        """run id -> history (list of dicts), summary, upsert (what its first upload stated)."""
        self.artifacts: list[dict] = []

    def __enter__(self) -> "WandbServer":
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                if "file_stream" in self.path:
                    self.answer(server.stream(self.path.split("/")[-2], json.loads(body)))
                elif self.path.startswith("/graphql"):
                    asked = json.loads(body)
                    self.answer({"data": server.query(asked["query"], asked.get("variables") or {}, server.url)})
                else:
                    self.answer({})

            def do_PUT(self):
                self.rfile.read(int(self.headers["content-length"]))
                self.answer({})

            def answer(self, values: dict):
                reply = json.dumps(values).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(reply)))
                self.end_headers()
                self.wfile.write(reply)

            def log_message(self, *_):
                pass

        self.http = _Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        self.thread = threading.Thread(target=self.http.serve_forever)
        self.thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()

    def stream(self, run_id: str, asked: dict) -> dict:
        run, files = self.runs[run_id], asked.get("files") or {}
        if history := files.get("wandb-history.jsonl"):
            run["history"][history["offset"] :] = map(json.loads, history["content"])
        if summary := files.get("wandb-summary.json"):
            run["summary"] = json.loads(summary["content"][-1])
        return {"exitcode": None, "limits": {}}

    def query(self, query: str, asked: dict, url: str) -> dict:
        name = asked.get("name")
        if "serverInfo" in query:
            return {"serverInfo": {"features": []}}
        if "createRunFiles" in query:
            files = [{"name": name, "uploadUrl": f"{url}/files/{name}"} for name in asked["files"]]
            return {"createRunFiles": {"runID": "x", "uploadHeaders": [], "files": files}}
        if "createArtifact(" in query:
            self.artifacts.append(asked["input"])
            known = {"id": "a", "state": "COMMITTED", "artifactSequence": {"latestArtifact": {"id": "a"}}}
            return {"createArtifact": {"artifact": known}}
        if "upsertBucket" in query:
            is_new = name not in self.runs
            run = self.runs.setdefault(name, {"history": [], "summary": {}, "upsert": asked})
            run["config"] = json.loads(asked["config"]) if asked.get("config") else run["config"]
            return {"upsertBucket": {"inserted": is_new, "bucket": self.bucket(name)}}
        if "model(" in query:
            return {"model": {"bucket": self.bucket(name) if name in self.runs else None}}
        return {}

    def bucket(self, name: str) -> dict:
        run = self.runs[name]
        return {
            "id": "x",
            "name": name,
            "displayName": name,
            "project": {"id": "p", "name": "p", "entity": {"id": "e", "name": "e"}},
            "summaryMetrics": json.dumps(run["summary"]),
            "config": json.dumps(run["config"]),
            "wandbConfig": "{}",
            "tags": [],
            "logLineCount": 0,
            "eventsLineCount": 0,
            "eventsTail": "[]",
            "historyLineCount": len(run["history"]),
            "historyTail": json.dumps([json.dumps(row) for row in run["history"][-1:]]),
        }
