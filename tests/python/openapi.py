"""Schemathesis over the OpenAPI document of `slipstream dev`: as the operator, as an account, as a backend and as
nobody. Whatever is sent, no answer is a 5xx, has a status or a content type that the document does not know, or a
body of another form than it says.
"""

import json
import pathlib
import subprocess
import sys
import tempfile
import unittest
import urllib.request

from server import API_KEY, PATIENCE_S, Server

SCHEMATHESIS = str(pathlib.Path(sys.executable).with_name("schemathesis"))
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
EXAMPLES = "8"
# Threads of their own make CPython 3.11 fail now and then: one worker.
SEED = "20261129"
# No limits: what is behind them is to be reached.
SETTINGS = {
    "SLIPSTREAM__CONTROL__ACCOUNT_RATE": "100000",
    "SLIPSTREAM__CONTROL__ADDRESS_RATE": "100000",
    "SLIPSTREAM__CONTROL__IDEMPOTENCY_RATE": "100000",
    "SLIPSTREAM__CONTROL__LETTERS_PER_ADDRESS": "100000",
    "SLIPSTREAM__CONTROL__PASSWORD_MEMORY": "8KiB",
    "SLIPSTREAM__CONTROL__PASSWORD_PASSES": "1",
}
PASSWORD = "correct horse battery"
# They end the session, the account, the team or the app that all others need.
LAST = "^/v1/auth/logout|^/v1/account/(delete|password)|/leave$|/transfer$"


class Api:
    def __init__(self, url: str, bearer: str):
        self.url, self.bearer = url, bearer

    def call(self, method: str, path: str, body=None) -> dict:
        headers = {"Content-Type": "application/json"}
        if self.bearer:
            headers["Authorization"] = f"Bearer {self.bearer}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, headers=headers, method=method)
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            text = answer.read()
        return json.loads(text) if text else {}


class EveryOperation(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server(SETTINGS)
        cls.addClassCleanup(cls.server.stop)
        cls.operator = Api(cls.server.url, cls.server.secret("operator-key"))
        account = {"email": "ann@x.example", "name": "Ann", "password": PASSWORD}
        cls.operator.call("POST", "/v1/accounts", account)
        login = {"email": "ann@x.example", "password": PASSWORD}
        session = Api(cls.server.url, "").call("POST", "/v1/auth/login", login)
        cls.ann = Api(cls.server.url, session["access_token"])
        team = cls.ann.call("POST", "/v1/teams", {"name": "Shop"})["id"]
        app = {"id": "shop", "name": "Shop", "settings": {"anonymous": True, "namespaces": [{"name": "news", "subscribe": "anyone"}]}}
        cls.ann.call("POST", f"/v1/teams/{team}/apps", app)
        key = cls.ann.call("POST", "/v1/apps/shop/keys", {"name": "backend", "signs": True})
        cls.operator.call("PUT", "/v1/plans/small", {"selectable": True, "quotas": {"channels": 5}})
        cls.parameters = {
            "path.team": team,
            "path.app": "shop",
            "path.key": key["id"],
            "path.version": 1,
            "path.plan": "small",
            "path.account": session["account"],
            "path.channel": "public:lobby",
        }

    def run_schemathesis(self, bearer: str, *options: str):
        with tempfile.TemporaryDirectory() as folder:
            lines = [f"{json.dumps(name)} = {json.dumps(value)}" for name, value in self.parameters.items()]
            config = pathlib.Path(folder, "schemathesis.toml")
            config.write_text("[auth]\nauto-signup = false\n[parameters]\n" + "\n".join(lines) + "\n")
            command = [SCHEMATHESIS, "--config-file", str(config), "run", f"{self.server.url}/v1/openapi.json"]
            command += ["--checks", CHECKS, "--max-examples", EXAMPLES, "--seed", SEED, "--phases", "coverage,fuzzing"]
            command += ["--workers", "1", "--warnings", "off", "--no-color", "--continue-on-failure", *options]
            if bearer:
                command += ["-H", f"Authorization: Bearer {bearer}"]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        summary = done.stdout[done.stdout.rfind("= SUMMARY =") :]
        print(self.id().rsplit(".", 1)[-1], "".join(line for line in summary.splitlines(True) if "generated" in line))
        self.assertEqual(done.returncode, 0, done.stdout[-8000:] + done.stderr[-2000:])
        self.assertIn("passed", summary)

    def control(self, bearer: str):
        self.run_schemathesis(bearer, "--exclude-path-regex", f"^/api|^/metrics|^/healthz|^/readyz|{LAST}", "--exclude-method", "DELETE")

    def test_1_nobody(self):
        self.run_schemathesis("")

    def test_2_the_operator(self):
        self.control(self.operator.bearer)

    def test_3_an_account(self):
        self.control(self.ann.bearer)

    def test_4_a_backend(self):
        only = "^/api|^/v1/(channels|nodes|users|revocations)|^/metrics|^/healthz|^/readyz"
        self.run_schemathesis(API_KEY, "--include-path-regex", only)

    def test_5_what_ends_things(self):
        self.run_schemathesis(self.ann.bearer, "--include-method", "DELETE", "--exclude-path-regex", "^/v1/(channels|revocations)")
        self.run_schemathesis(self.ann.bearer, "--include-path-regex", LAST)


if __name__ == "__main__":
    unittest.main()
