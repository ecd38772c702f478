"""A webhook receiver as a stranger would write it: receiver.py SECRET_FILE SCHEMA OUT.

Verifies each message with PyPI's standardwebhooks, validates it with PyPI's
jsonschema, appends one JSON line {at, id, ok, error, payload} to OUT and prints
its port first."""
import datetime
import http.server
import json
import sys

import jsonschema
from standardwebhooks import Webhook

secret_file, schema_file, out = sys.argv[1:4]
schema = json.load(open(schema_file))


class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        at = datetime.datetime.now(datetime.timezone.utc).isoformat()
        seen = {"at": at, "id": self.headers.get("webhook-id"), "ok": True, "error": None, "payload": None}
        try:
            seen["payload"] = Webhook(open(secret_file).read().strip()).verify(body, dict(self.headers))
            if isinstance(seen["payload"], (bytes, str)) or seen["payload"] is None:
                seen["payload"] = json.loads(body)
            checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
            jsonschema.Draft202012Validator(schema, format_checker=checker).validate(seen["payload"])
        except Exception as e:  # the test reads what went wrong
            seen["ok"], seen["error"] = False, f"{type(e).__name__}: {e}"
        with open(out, "a") as f:
            f.write(json.dumps(seen) + "\n")
        self.send_response(204 if seen["ok"] else 400)
        self.end_headers()

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
print(server.server_address[1], flush=True)
server.serve_forever()
