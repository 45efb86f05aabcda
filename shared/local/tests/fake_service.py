"""A service that does nothing, but follows FTGO_BROKER_FILE as the real ones do, and says so in /readyz.

Run with its name; its port comes from the environment. Lanes wait as long as a file ``NAME.waits`` is in FAKE_WAITS.
"""

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

name = sys.argv[1]
waits = Path(os.environ.get("FAKE_WAITS", "/nonexistent")) / f"{name}.waits"


def broker() -> dict[str, Any]:
    found = json.loads(Path(os.environ["FTGO_BROKER_FILE"]).read_text())
    schemes = [urlsplit(url).scheme for url in (found["send"], *found["read"])]
    unmoved = 2 if found["read"] and waits.exists() else 0
    return {"sends": schemes[0], "generation": found["generation"], "reads": schemes, "unmoved": unmoved}


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps({"broker": broker()}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


assert os.environ[f"FTGO_{name.upper()}_DATABASE_URL"].endswith(f"/ftgo_{name}")
if os.environ.get("FAKE_FAILURE") == name:
    sys.exit("there is no cheese")
broker()  # the file is there before a service is
print("listening", flush=True)
HTTPServer(("127.0.0.1", int(os.environ[f"FTGO_{name.upper()}_PORT"])), Answer).serve_forever()
