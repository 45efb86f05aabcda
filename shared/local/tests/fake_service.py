"""A service that does nothing: /readyz answers 200. Run with its name; its port comes from the environment."""

import os
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


name = sys.argv[1].upper()
assert os.environ[f"FTGO_{name}_DATABASE_URL"].endswith(f"/ftgo_{sys.argv[1]}")
if os.environ.get("FAKE_FAILURE") == sys.argv[1]:
    sys.exit("there is no cheese")
print("listening", flush=True)
HTTPServer(("127.0.0.1", int(os.environ[f"FTGO_{name}_PORT"])), Answer).serve_forever()
