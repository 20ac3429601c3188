"""A W&B server on this machine: what its client and `wandb sync` ask of it, and what they sent, kept by run."""

import gzip
import json
import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY = "0" * 40


class Server(ThreadingHTTPServer):
    """`runs[id]`: what a run was upserted with, its history by line number, and its uploaded files' names."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.runs = defaultdict(lambda: {"asked": [], "history": {}, "uploaded": set(), "exitcode": None})
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error):
        self.shutdown()
        self.server_close()

    def handle_error(self, request, client):
        """A client may hang up."""

    def history(self, run):
        return [json.loads(line) for _, line in sorted(self.runs[run]["history"].items())]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *words):
        """Nothing."""

    def content(self):
        sent = self.rfile.read(int(self.headers.get("content-length") or 0))
        return gzip.decompress(sent) if self.headers.get("content-encoding") == "gzip" else sent

    def reply(self, said):
        said = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def do_GET(self):
        self.reply({})

    def do_PUT(self):
        self.content()
        self.server.runs[self.path.split("/")[2]]["uploaded"].add(self.path.split("/", 3)[3])
        self.reply({})

    def do_POST(self):
        sent = self.content()
        if self.path == "/graphql":
            asked = json.loads(sent)
            self.reply({"data": getattr(self, asked["operationName"], dict)(**asked.get("variables", {}))})
        elif self.path.endswith("/file_stream"):
            self.stream(self.path.split("/")[-2], json.loads(sent))
            self.reply({"exitcode": None, "limits": {}})
        else:
            self.reply({})

    def stream(self, run, sent):
        there = self.server.runs[run]
        part = sent.get("files", {}).get("wandb-history.jsonl", {"offset": 0, "content": []})
        there["history"] |= {part["offset"] + i: line for i, line in enumerate(part["content"])}
        there["exitcode"] = sent.get("exitcode", there["exitcode"])

    # GraphQL, by the name of the operation
    def RunResumeStatus(self, project, name, **_):
        there = self.server.runs.get(name)
        return {"model": {"id": "1", "name": project, **owner(), "bucket": there and self.bucket(name, project)}}

    def UpsertBucket(self, project, name, **asked):
        self.server.runs[name]["asked"].append(asked)
        return {"upsertBucket": {"bucket": self.bucket(name, project), "inserted": True}}

    def CreateRunFiles(self, run, files, **_):
        urls = [{"name": file, "uploadUrl": f"{self.server.url}/upload/{run}/{file}"} for file in files]
        return {"createRunFiles": {"runID": run, "uploadHeaders": [], "files": urls}}

    def bucket(self, run, project):
        history = self.server.history(run)
        tails = {"historyTail": json.dumps([json.dumps(row) for row in history[-1:]]), "eventsTail": "[]"}
        counts = {"historyLineCount": len(history), "logLineCount": 0, "eventsLineCount": 0}
        whose = {"project": {"id": "1", "name": project, **owner()}, "sweepName": None, "description": None}
        known = {"config": "{}", "tags": [], "notes": None, "wandbConfig": '{"t": {}}'}
        known["summaryMetrics"] = json.dumps(history[-1] if history else {})
        return {"id": run, "name": run, "displayName": run} | tails | counts | whose | known


def owner():
    return {"entity": {"id": "1", "name": "somebody"}}
