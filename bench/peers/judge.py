"""Judges the cases on standard input with a library of PyPI, set up as its documentation says: a line `accept` or `reject` each.

Run by run.py as `judge.py LIBRARY KIND`; what a case is stands there.
"""

import base64
import json
import sys
import warnings

warnings.simplefilter("ignore")


def named(case):
    """The key that the token names."""
    if case["jwk"] is not None:
        return case["jwk"]
    part = case["token"].split(".")[0]
    kid = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))).get("kid")
    return next(key for key in case["jwks"]["keys"] if key.get("kid") == kid)


class PyJwt:
    def jws(self, case, given):
        import jwt

        jwt.PyJWS().decode(case["token"], jwt.PyJWK.from_dict(named(case)), algorithms=case["algorithms"])

    def strict(self, case, given):
        import jwt

        header = jwt.get_unverified_header(case["token"])
        keys = [key for key in jwt.PyJWKSet.from_dict(case["jwks"]).keys if key.key_id == header.get("kid")]
        jwt.decode(
            case["token"], keys[0], algorithms=case["algorithms"], audience=given["audience"],
            issuer=given["issuer"], leeway=given["leeway"], options={"require": ["exp", "iss", "aud", "sub"]},
        )


class Joserfc:
    def jws(self, case, given):
        from joserfc import jws
        from joserfc.jwk import JWKRegistry, KeySet

        one = case["jwk"] is not None
        key = JWKRegistry.import_key(case["jwk"]) if one else KeySet.import_key_set(case["jwks"])
        jws.deserialize_compact(case["token"], key, algorithms=case["algorithms"])

    def strict(self, case, given):
        from joserfc import jwt
        from joserfc.jwk import KeySet

        token = jwt.decode(case["token"], KeySet.import_key_set(case["jwks"]), algorithms=case["algorithms"])
        jwt.JWTClaimsRegistry(
            leeway=given["leeway"], iss={"essential": True, "value": given["issuer"]},
            aud={"essential": True, "value": given["audience"]}, exp={"essential": True}, sub={"essential": True},
        ).validate(token.claims)


class Authlib:
    def jws(self, case, given):
        from authlib.jose import JsonWebKey, JsonWebSignature

        key = JsonWebKey.import_key(named(case))
        JsonWebSignature(case["algorithms"]).deserialize_compact(case["token"], key)

    def strict(self, case, given):
        from authlib.jose import JsonWebKey, JsonWebToken

        claims = JsonWebToken(case["algorithms"]).decode(
            case["token"], JsonWebKey.import_key_set(case["jwks"]),
            claims_options={
                "iss": {"essential": True, "value": given["issuer"]}, "aud": {"essential": True, "value": given["audience"]},
                "exp": {"essential": True}, "sub": {"essential": True},
            },
        )
        claims.validate(leeway=given["leeway"])


class PythonJose:
    def jws(self, case, given):
        from jose import jws

        jws.verify(case["token"], named(case), algorithms=case["algorithms"])


class JwCrypto:
    def jws(self, case, given):
        from jwcrypto.jwk import JWK
        from jwcrypto.jws import JWS

        token = JWS()
        token.allowed_algs = case["algorithms"]
        token.deserialize(case["token"])
        token.verify(JWK(**named(case)))


LIBRARIES = {"pyjwt": PyJwt, "joserfc": Joserfc, "authlib": Authlib, "python-jose": PythonJose, "jwcrypto": JwCrypto}

given = json.load(sys.stdin)
judge = getattr(LIBRARIES[sys.argv[1]](), sys.argv[2])
for case in given["cases"]:
    try:
        judge(case, given)
        print("accept")
    except Exception:  # noqa: BLE001 - whatever it raises, it did not accept
        print("reject")
