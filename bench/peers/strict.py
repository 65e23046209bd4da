"""Judges the cases on standard input with PyJWT or joserfc as their documentation says: a line `accept` or `reject` for each."""

import json
import sys


def pyjwt(case, given):
    import jwt

    header = jwt.get_unverified_header(case["token"])
    keys = [key for key in jwt.PyJWKSet.from_dict(case["jwks"]).keys if key.key_id == header.get("kid")]
    jwt.decode(
        case["token"], keys[0], algorithms=case["algorithms"], audience=given["audience"],
        issuer=given["issuer"], leeway=given["leeway"], options={"require": ["exp", "iss", "aud", "sub"]},
    )


def joserfc(case, given):
    from joserfc import jwt
    from joserfc.jwk import KeySet

    token = jwt.decode(case["token"], KeySet.import_key_set(case["jwks"]), algorithms=case["algorithms"])
    jwt.JWTClaimsRegistry(
        leeway=given["leeway"], iss={"essential": True, "value": given["issuer"]},
        aud={"essential": True, "value": given["audience"]}, exp={"essential": True}, sub={"essential": True},
    ).validate(token.claims)


given = json.load(sys.stdin)
judge = {"pyjwt": pyjwt, "joserfc": joserfc}[sys.argv[1]]
for case in given["cases"]:
    try:
        judge(case, given)
        print("accept")
    except Exception:  # noqa: BLE001 - whatever it raises, it did not accept
        print("reject")
