"""A receiver of webhooks: checks each signature with Python's own hmac, and prints what is genuine, one JSON object a line.

The first line of its input is the secret. It prints its port first, and ends when its input ends."""

import base64
import hmac
import http.server
import json
import sys
import threading
import time


def is_genuine(secret, headers, body):
    if abs(time.time() - int(headers["webhook-timestamp"])) > 300:
        return False
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f'{headers["webhook-id"]}.{headers["webhook-timestamp"]}.'.encode() + body
    expected = "v1," + base64.b64encode(hmac.digest(key, signed, "sha256")).decode()
    return any(hmac.compare_digest(expected, one) for one in headers["webhook-signature"].split(" "))


TELLING = threading.Lock()


class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        genuine = is_genuine(self.server.secret, self.headers, body)
        event = json.loads(body)
        genuine = genuine and event["id"] == self.headers["webhook-id"]
        told = {"genuine": genuine, "forged": is_genuine(self.server.secret, self.headers, body + b" "), "event": event}
        # Deliveries come in threads of their own: a line is written whole.
        with TELLING:
            print(json.dumps(told), flush=True)
        self.send_response(204 if genuine else 401)
        self.end_headers()

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
print(server.server_port, flush=True)
server.secret = sys.stdin.readline().strip()
threading.Thread(target=server.serve_forever, daemon=True).start()
sys.stdin.read()
