"""libiap's TokensApi pointed at a `token_api` route of bearerd at HOST, with a key: libiap_token_api.py HOST METRICS KEY

All four methods; fifty calls of create_token reach the token service once. The first answer that is wrong ends it with a traceback.
"""

import base64
import json
import re
import sys
import urllib.request

from libiap.openapi import libconsole
from libiap.openapi.libconsole.rest import ApiException

HOST, METRICS, KEY = sys.argv[1:]


def api(**configuration):
    return libconsole.TokensApi(libconsole.ApiClient(libconsole.Configuration(host=HOST, **configuration)))


def bearer(token):
    return api(api_key={"Authorization": token}, api_key_prefix={"Authorization": "Bearer"})


def body(token):
    return libconsole.AccessTokenRequest(access_token=token)


def calls(operation):
    text = urllib.request.urlopen(f"{METRICS}/metrics").read().decode()
    return sum(float(count) for count in re.findall(rf'bearerd_token_service_requests_total{{operation="{operation}".*?}} (\S+)', text))


def refused(status, call, **arguments):
    try:
        answer = call(**arguments)
    except ApiException as refusal:
        assert refusal.status == status, refusal.status
        if refusal.body:
            assert sorted(json.loads(refusal.body)) == ["code", "details", "message"], refusal.body
        return
    raise AssertionError(f"{answer!r} in place of {status}")


answer, status, headers = api().create_token_with_http_info(x_api_key=KEY, scopes=["GDS.READ"], return_session_token=False)
assert (status, answer.token_type, headers["Cache-Control"]) == (201, "Bearer", "no-store"), (status, answer, headers)
payload = answer.access_token.split(".")[1]
claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
assert (claims["sub"], claims["scope"]) == ("alice", "GDS.READ"), claims
for _ in range(49):
    assert api().create_token(x_api_key=KEY, scopes=["GDS.READ"]).access_token == answer.access_token
assert calls("create") == 1, calls("create")
print("ok: create_token, fifty times at the price of one")

for _ in range(10):
    details, status, _ = bearer(answer.access_token).get_token_details_with_http_info()
    assert (status, details.username) == (200, "alice"), details
print("ok: get_token_details")

session = api().create_token(x_api_key=KEY, return_session_token=True).access_token
jwt = bearer(session).create_token().access_token
refreshed, status, _ = api().refresh_token_with_http_info(body=body(session))
assert (status, refreshed.token_type) == (201, "Bearer"), refreshed
refused(401, api().refresh_token, body=body("pst_unknown"))
print("ok: refresh_token")

for token in (answer.access_token, answer.access_token, session):
    _, status, _ = api().revoke_token_with_http_info(body=body(token))
    assert status == 204, status
refused(401, bearer(answer.access_token).get_token_details)
refused(401, bearer(session).create_token)
assert api().create_token(x_api_key=KEY, scopes=["GDS.READ"]).access_token != answer.access_token
print("ok: revoke_token")

refused(401, api().create_token)
refused(401, api().create_token, x_api_key="unknown")
refused(403, api().create_token, x_api_key=KEY, scopes=["GDS.ADMIN"])
refused(400, api().revoke_token)
print("ok: refusals")
