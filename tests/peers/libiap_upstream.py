"""libiap's client calls an upstream through the proxy at HOST with an API key: libiap_upstream.py HOST KEY

The upstream answers with the header lines that it got, as a JSON list.
"""

import base64
import json
import sys

from libiap.openapi import libconsole
from libiap.openapi.libconsole.rest import ApiException

HOST, KEY = sys.argv[1:]


def call(key):
    client = libconsole.ApiClient(libconsole.Configuration(host=HOST))
    client.set_default_header("X-API-Key", key)
    lines, status, _ = client.call_api("/v1/things", "GET", response_type="list[str]", auth_settings=[], _return_http_data_only=False)
    assert status == 200, status
    return lines


lines = call(KEY)
assert lines[0] == "GET /v1/things HTTP/1.1", lines[0]
assert not any(KEY in line for line in lines), "the key went on"
bearers = [line.split(" ", 2)[2] for line in lines if line.lower().startswith("authorization: bearer ")]
assert len(bearers) == 1, lines
payload = bearers[0].split(".")[1]
assert json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["sub"] == "alice", payload

try:
    call("mistyped")
except ApiException as refusal:
    assert refusal.status == 401, refusal.status
    assert json.loads(refusal.body)["type"] == "urn:bearerd:problem:denied", refusal.body
else:
    raise AssertionError("a key that nobody knows was let in")
