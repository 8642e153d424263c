"""The four methods of libiap's TokensApi against the token service at HOST, with two keys: libiap_tokens.py HOST ALICE_KEY BOB_KEY

Alice's key, named `alice`, grants the scopes GDS.READ and GDS.WRITE, the access control list x and y, and the memberships cid:1 and cid:2,
in the tenant acme; bob's grants nothing. Each step says what it found; the first answer that is wrong ends it with a traceback.
"""

import base64
import json
import sys

from libiap.openapi import libconsole
from libiap.openapi.libconsole.rest import ApiException

HOST, ALICE, BOB = sys.argv[1:]


def api(**configuration):
    return libconsole.TokensApi(libconsole.ApiClient(libconsole.Configuration(host=HOST, **configuration)))


def bearer(token):
    return api(api_key={"Authorization": token}, api_key_prefix={"Authorization": "Bearer"})


def body(token):
    return libconsole.AccessTokenRequest(access_token=token)


def claims(token):
    payload = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))


def equal(found, expected):
    assert found == expected, f"{found!r} is not {expected!r}"


def refused(status, call, **arguments):
    """Calls, and returns the refusal's body, which must be that of the reference."""
    try:
        answer = call(**arguments)
    except ApiException as refusal:
        equal(refusal.status, status)
        if not refusal.body:
            return None
        error = json.loads(refusal.body)
        equal(sorted(error), ["code", "details", "message"])
        equal(error["details"], [])
        return error
    raise AssertionError(f"{answer!r} in place of {status}")


def step(text):
    print(f"ok: {text}", flush=True)


def create_with_every_parameter():
    answer, status, headers = api().create_token_with_http_info(
        x_api_key=ALICE,
        client_id="app",
        domain="domain",
        data="a note",
        scopes=["GDS.WRITE", "GDS.READ"],
        acl=["x", "y"],
        mem=["cid:1"],
        cwid="workgroup",
        return_session_token=False,
    )
    equal(status, 201)
    equal(answer.token_type, "Bearer")
    equal(headers["Cache-Control"], "no-store")
    found = claims(answer.access_token)
    equal(set(found["scope"].split(",")), {"GDS.READ", "GDS.WRITE"})
    equal(found["acl"], ["x", "y"])
    equal(list(found["mem"]), ["cid:1"])
    equal(base64.b64decode(found["tid"]).decode().split(":")[-1], "acme")
    equal((found["azp"], found["domain"], found["session"], found["cwid"]), ("app", "domain", "a note", "workgroup"))
    equal(found["nbf"], found["iat"])
    assert found["exp"] > found["iat"] and found["jti"] and found["aud"] and found["iss"]
    step("create_token with every parameter")

    details, status, _ = bearer(answer.access_token).get_token_details_with_http_info()
    equal(status, 200)
    equal((details.uid, details.name, details.username, details.acls), ("alice", "alice", "alice", ["x", "y"]))
    equal((details.tid, details.current_workgroup.id), (found["tid"], "workgroup"))
    step("get_token_details of a JWT")


def create_with_each_credential():
    session = api().create_token(x_api_key=ALICE, return_session_token=True).access_token
    basic = base64.b64encode(ALICE.encode()).decode()
    ways = {
        "X-API-Key": lambda: api().create_token(x_api_key=ALICE),
        # The SDK has user and password for no method of this API: the header goes the way of its Authorization key.
        "Basic user:pass": lambda: api(
            api_key={"Authorization": base64.b64encode(f"alice:{ALICE}".encode()).decode()}, api_key_prefix={"Authorization": "Basic"}
        ).create_token(),
        "Basic apikey": lambda: api(api_key={"Authorization": basic}, api_key_prefix={"Authorization": "Basic"}).create_token(),
        "Bearer psToken": lambda: bearer(session).create_token(),
        "Authorization: KEY": lambda: api(api_key={"Authorization": ALICE}).create_token(),
        "?api_key=": lambda: api().create_token(api_key=ALICE),
    }
    for name, way in ways.items():
        equal(claims(way().access_token)["sub"], "alice")
        step(f"create_token with {name}")
    equal(claims(api().create_token(x_api_key=BOB).access_token)["sub"], "bob")


def create_refused():
    refused(401, api().create_token)
    refused(401, api().create_token, x_api_key="unknown")
    refused(401, bearer("pst_unknown").create_token)
    error = refused(403, api().create_token, x_api_key=ALICE, scopes=["GDS.READ", "GDS.ADMIN"])
    assert "GDS.ADMIN" in error["message"], error
    refused(403, api().create_token, x_api_key=BOB, acl=["x"])
    refused(403, api().create_token, x_api_key=ALICE, mem=["cid:3"])
    refused(400, api(api_key={"Authorization": ALICE}).create_token, x_api_key=ALICE)
    refused(400, api().create_token, x_api_key=ALICE, return_session_token="maybe")
    step("create_token refused: 400, 401, 403")


def session_from_start_to_end():
    session = api().create_token(x_api_key=ALICE, scopes=["GDS.READ"], return_session_token=True).access_token
    equal(session.count("."), 0)
    equal(bearer(session).get_token_details().username, "alice")
    answer, status, _ = api().refresh_token_with_http_info(body=body(session))
    equal((status, answer.access_token, answer.token_type), (201, session, "Bearer"))
    jwt = bearer(session).create_token().access_token
    equal(claims(jwt)["scope"], "GDS.READ")
    refused(401, api().refresh_token, body=body(jwt))
    refused(401, api().refresh_token, body=body("pst_unknown"))
    refused(400, api().refresh_token, body=libconsole.AccessTokenRequest())
    step("refresh_token")

    _, status, _ = api().revoke_token_with_http_info(body=body(session))
    equal(status, 204)
    equal(refused(401, bearer(session).get_token_details), None)
    equal(refused(401, bearer(jwt).get_token_details), None)
    refused(401, bearer(session).create_token)
    refused(401, api().refresh_token, body=body(session))
    step("revoke_token of a psToken")


def revoke_jwt():
    revoked, other = (api().create_token(x_api_key=ALICE).access_token for _ in range(2))
    for token in (revoked, revoked, "unknown"):
        _, status, _ = api().revoke_token_with_http_info(body=body(token))
        equal(status, 204)
    equal(refused(401, bearer(revoked).get_token_details), None)
    equal(bearer(other).get_token_details().username, "alice")
    refused(400, api().revoke_token, body=libconsole.AccessTokenRequest())
    refused(400, api().revoke_token)
    step("revoke_token of a JWT")


create_with_every_parameter()
create_with_each_credential()
create_refused()
session_from_start_to_end()
revoke_jwt()
