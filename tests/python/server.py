"""`slipstream dev` with a folder of its own.

The binary is SLIPSTREAM_BIN, or the one that `cargo build` leaves in target/debug.
"""

import base64
import hashlib
import hmac
import json
import os
import pathlib
import signal
import subprocess
import tempfile
import urllib.request

ROOT = pathlib.Path(__file__).parents[2]
BINARY = os.environ.get("SLIPSTREAM_BIN", str(ROOT / "target/debug/slipstream"))
API_KEY = "key-of-the-sdk-tests"
PATIENCE_S = 20


def encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Server:
    """A node, until it is stopped."""

    def __init__(self, settings: dict | None = None):
        self.folder = tempfile.TemporaryDirectory(prefix="slipstream-python-")
        arguments = ["dev", "--listen", "127.0.0.1:0", "--data-dir", self.folder.name, "--dev-key", API_KEY]
        self.process = subprocess.Popen(
            [BINARY, *arguments], stdout=subprocess.PIPE, text=True, env={**os.environ, **(settings or {})}
        )
        for line in self.process.stdout:
            if line.startswith("ready "):
                self.url = line.split()[1]
                return
        raise RuntimeError("`slipstream dev` ended before it was ready")

    def secret(self, name: str) -> str:
        return pathlib.Path(self.folder.name, name).read_text().strip()

    def token(self, claims: dict) -> str:
        secret = self.secret("token-secret")
        head = encode(json.dumps({"alg": "HS256", "typ": "JWT"}).encode())
        signed = f"{head}.{encode(json.dumps(claims).encode())}"
        return f"{signed}.{encode(hmac.digest(secret.encode(), signed.encode(), hashlib.sha256))}"

    def publish(self, channel: str, data) -> None:
        request = urllib.request.Request(
            f"{self.url}/v1/channels/{channel}/publications",
            data=json.dumps({"data": data}).encode(),
            headers={"X-API-Key": API_KEY, "Content-Type": "application/json"},
        )
        urllib.request.urlopen(request, timeout=PATIENCE_S).close()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(PATIENCE_S)
        self.process.stdout.close()
        self.folder.cleanup()
        return code
