"""libiap against a token service that is restarted and whose signing key is replaced: libiap_restart.py HOST KEY FILE before|after

`before` makes tokens and keeps them in FILE; `after` finds that they are as good or as dead as they were. The first answer that is wrong ends it with a
traceback.
"""

import json
import sys

from libiap.openapi import libconsole
from libiap.openapi.libconsole.rest import ApiException

HOST, KEY, FILE, PHASE = sys.argv[1:]


def api(**configuration):
    return libconsole.TokensApi(libconsole.ApiClient(libconsole.Configuration(host=HOST, **configuration)))


def details(token):
    return api(api_key={"Authorization": token}, api_key_prefix={"Authorization": "Bearer"}).get_token_details()


def body(token):
    return libconsole.AccessTokenRequest(access_token=token)


def dead(token):
    try:
        details(token)
    except ApiException as refusal:
        assert refusal.status == 401, refusal.status
        return
    raise AssertionError("a dead token was taken")


def before():
    kept = {
        "jwt": api().create_token(x_api_key=KEY).access_token,
        "session": api().create_token(x_api_key=KEY, return_session_token=True).access_token,
        "revoked_jwt": api().create_token(x_api_key=KEY).access_token,
        "revoked_session": api().create_token(x_api_key=KEY, return_session_token=True).access_token,
    }
    for name in ("revoked_jwt", "revoked_session"):
        api().revoke_token(body=body(kept[name]))
        dead(kept[name])
    with open(FILE, "w") as file:
        json.dump(kept, file)


def after():
    with open(FILE) as file:
        kept = json.load(file)
    for name in ("jwt", "session"):
        assert details(kept[name]).name == "alice"
    for name in ("revoked_jwt", "revoked_session"):
        dead(kept[name])
    assert api().refresh_token(body=body(kept["session"])).access_token == kept["session"]
    session = api(api_key={"Authorization": kept["session"]}, api_key_prefix={"Authorization": "Bearer"})
    assert details(session.create_token().access_token).name == "alice"
    assert details(api().create_token(x_api_key=KEY).access_token).name == "alice"


{"before": before, "after": after}[PHASE]()
