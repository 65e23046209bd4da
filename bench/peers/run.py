"""Shows the same tokens and signatures to Doorward and to other libraries, and prints the tables of docs/peers.md.

    tools/peers.sh      # installs them, runs this, writes the page

A judge reads `{"issuer", "audience", "leeway", "cases": [...]}` and prints a line for each case: `accept`, `reject` or `panic`.
Kinds of cases:

- `strict`: `token`, `jwks`, `algorithms`, `typ` (or null): a token with claims, for the issuer and audience given.
- `jws`: `token` with any bytes as payload, `jwk` or `jwks`, `algorithms`: the one that the key is labelled with, else all of its type.
- `raw`: `message` (hex), `signature` (base64url), `jwk`, `algorithms` (one).
"""

import base64
import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = ROOT / "bench" / "peers"
JUDGES = ROOT / "target" / "peers" / "judges"
# Longest that one judge may take for all cases of a kind, in seconds.
LONGEST = 300

# Mislabelled cases of json_web_signature_test.json: docs/token-decisions.md, "Wycheproof".
DISPUTED = {346, 347, 350, 351, 367, 370, 372, 373}
BY_TYPE = {
    "RSA": ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"],
    "EC": ["ES256", "ES384", "ES512"],
    "OKP": ["EdDSA"],
    "oct": ["HS256", "HS384", "HS512"],
}
RAW = {
    "ed25519_test": "EdDSA",
    "ecdsa_secp256r1_sha256_p1363_test": "ES256",
    "ecdsa_secp384r1_sha384_p1363_test": "ES384",
    "rsa_signature_2048_sha256_test": "RS256",
    "rsa_signature_2048_sha384_test": "RS384",
    "rsa_signature_2048_sha512_test": "RS512",
    "rsa_signature_3072_sha256_test": "RS256",
    "rsa_signature_4096_sha512_test": "RS512",
    "rsa_pss_2048_sha256_mgf1_32_test": "PS256",
    "rsa_pss_2048_sha384_mgf1_48_test": "PS384",
    "rsa_pss_3072_sha256_mgf1_32_test": "PS256",
    "rsa_pss_4096_sha512_mgf1_64_test": "PS512",
    "hmac_sha256_test": "HS256",
    "hmac_sha384_test": "HS384",
    "hmac_sha512_test": "HS512",
}


def load(name):
    return json.loads((ROOT / "vectors" / name).read_text())


def tests(name):
    for group in load(f"wycheproof/{name}.json")["testGroups"]:
        for test in group["tests"]:
            yield group, test


def url64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def wycheproof(name):
    """Cases `jws` of a JOSE set, with the verdict that the set wants."""
    for group, test in tests(name):
        if "jws" not in test:
            continue
        token, key = test["jws"], group.get("public") or group["private"]
        keys = key.get("keys", [key])
        algorithms = sorted({name for one in keys for name in allowed(one)})
        yield {
            "id": test["tcId"], "want": test["result"],
            "token": token if isinstance(token, str) else json.dumps(token),
            "jwk": None if "keys" in key else key, "jwks": key if "keys" in key else None, "algorithms": algorithms,
        }


def allowed(key):
    of_type = BY_TYPE[key["kty"]]
    return [key["alg"]] if key.get("alg") in of_type else of_type


def curve(key):
    if "pk" in key:
        return {"kty": "OKP", "crv": "Ed25519", "x": url64(bytes.fromhex(key["pk"]))}
    point = bytes.fromhex(key["uncompressed"])[1:]
    half = len(point) // 2
    return {"kty": "EC", "crv": f"P-{key['keySize']}", "x": url64(point[:half]), "y": url64(point[half:])}


def raw():
    for name, algorithm in RAW.items():
        for group, test in tests(name):
            if algorithm.startswith("HS"):
                if group["tagSize"] != int(algorithm[2:]):
                    continue
                jwk, signature = {"kty": "oct", "k": url64(bytes.fromhex(test["key"]))}, test["tag"]
            elif "modulus" in group["publicKey"]:
                numbers = [group["publicKey"][part] for part in ("modulus", "publicExponent")]
                n, e = (url64(bytes.fromhex("0" * (len(text) % 2) + text).lstrip(b"\0")) for text in numbers)
                jwk, signature = {"kty": "RSA", "n": n, "e": e}, test["sig"]
            else:
                jwk, signature = curve(group["publicKey"]), test["sig"]
            yield {
                "id": f"{name} {test['tcId']}", "want": test["result"], "message": test["msg"],
                "signature": url64(bytes.fromhex(signature)), "jwk": jwk, "jwks": None, "algorithms": [algorithm],
            }


def strict():
    profile = load("own/jwt-strict-profile.json")
    for case in profile["cases"]:
        policy = case.get("policy") or {}
        # Only cases that need no clock: not every library has one that can be set.
        if "now" in policy:
            continue
        yield {
            "id": case["id"], "want": {"accept": "valid", "reject": "invalid", "either": "acceptable"}[case["expect"]],
            "token": case["token"], "jwk": None, "typ": policy.get("typ"),
            "jwks": profile["jwks"] if case.get("jwks") is None else case["jwks"],
            "algorithms": policy.get("algorithms") or profile["default_policy"]["algorithms"],
        }


def judge(command, kind, cases):
    policy = load("own/jwt-strict-profile.json")["default_policy"]
    # What a judge must not know is what is wanted.
    shown = [{name: value for name, value in case.items() if name not in ("id", "want")} for case in cases]
    given = {"issuer": policy["issuer"], "audience": policy["audience"], "leeway": policy["leeway_s"], "cases": shown}
    done = subprocess.run(
        [*command, kind], input=json.dumps(given), capture_output=True, text=True, timeout=LONGEST, cwd=HERE, check=False,
    )
    verdicts = done.stdout.split()
    if len(verdicts) != len(cases):
        sys.exit(f"{command} {kind}: {len(verdicts)} answers to {len(cases)} cases\n{done.stderr[-2000:]}")
    return verdicts


class Figure:
    """What somebody made of cases."""

    def __init__(self, command, kind, cases):
        cases = list(cases)
        verdicts = judge(command, kind, cases)
        pairs = list(zip(cases, verdicts, strict=True))
        self.total = len(cases)
        self.accepted = [case["id"] for case, verdict in pairs if case["want"] == "invalid" and verdict == "accept"]
        self.refused = [case["id"] for case, verdict in pairs if case["want"] == "valid" and verdict != "accept"]
        self.panics = sum(verdict == "panic" for verdict in verdicts)

    def __str__(self):
        panics = f", panics: {self.panics}" if self.panics else ""
        return f"{len(self.accepted)} / {len(self.refused)}{panics}"


def rust(name, setup="documented"):
    return [str(JUDGES / name), setup]


def node(library):
    return ["node", "judge.mjs", library]


def python(library):
    return [str(HERE / ".venv" / "bin" / "python"), "judge.py", library]


DOORWARD = rust("doorward-judge")
AWS, RUST = "jsonwebtoken-judge-aws_lc_rs", "jsonwebtoken-judge-rust_crypto"

JOSE_SETS = [
    ("", "Doorward", DOORWARD),
    ("P1", "Rust jsonwebtoken, aws_lc_rs", rust(AWS)),
    ("P2", "Rust jsonwebtoken, rust_crypto", rust(RUST)),
    ("P3", "npm jose, importJWK", node("jose-key")),
    ("P4", "npm jose, createLocalJWKSet", node("jose-set")),
    ("P5", "PyJWT", python("pyjwt")),
    ("P6", "joserfc", python("joserfc")),
    ("P7", "Authlib", python("authlib")),
    ("P8", "python-jose", python("python-jose")),
    ("P9", "npm jsonwebtoken", node("jsonwebtoken")),
    ("P10", "jwcrypto", python("jwcrypto")),
]
RAW_SETS = [
    ("", "Doorward", DOORWARD),
    ("P11", "Rust jsonwebtoken, aws_lc_rs", rust(AWS)),
    ("P11", "Rust jsonwebtoken, rust_crypto", rust(RUST)),
]
STRICT = [
    ("", "Doorward", DOORWARD),
    ("P12", "Rust jsonwebtoken, aws_lc_rs", rust(AWS)),
    ("P12", "Rust jsonwebtoken, rust_crypto", rust(RUST)),
    ("P13", "the same, every check that it has, aws_lc_rs", rust(AWS, "hardened")),
    ("P13", "the same, every check that it has, rust_crypto", rust(RUST, "hardened")),
    ("P14", "npm jose", node("jose-set")),
    ("P15", "PyJWT", python("pyjwt")),
    ("P16", "joserfc", python("joserfc")),
    ("P17", "Authlib", python("authlib")),
    ("P18", "npm fast-jwt", node("fast-jwt")),
]


def wrong(title, rows):
    print(f"\n<details><summary>{title}, case by case</summary>\n")
    for name, figure in rows:
        for what, ids in [("accepted", figure.accepted), ("refused", figure.refused)]:
            if ids:
                print(f"- {name}, wrongly {what}: {', '.join(f'`{one}`' for one in ids)}")
    print("\n</details>")


def main():
    signature, key, crypto = (list(wycheproof(f"json_web_{name}_test")) for name in ("signature", "key", "crypto"))
    undisputed = [case for case in signature if case["id"] not in DISPUTED]
    print("## JOSE sets of Project Wycheproof\n")
    print(f"Wrongly accepted / wrongly refused of {len(signature)} signatures, of the {len(undisputed)} that are labelled right, of "
          f"{len(key)} keys and key sets, and of {len(crypto)} signed cases of `json_web_crypto`.\n")
    print("| | library | signatures | labelled right | keys | crypto |\n|---|---|---|---|---|---|")
    seen = []
    for number, name, command in JOSE_SETS:
        figures = [Figure(command, "jws", cases) for cases in (signature, undisputed, key, crypto)]
        print(f"| {number} | {name} | {' | '.join(map(str, figures))} |", flush=True)
        seen += [(f"{name}, {what}", figure) for what, figure in zip(("signatures", "keys", "crypto"), figures[1:], strict=True)]
    wrong("JOSE sets", seen)

    cases = list(raw())
    print("\n## Raw signatures of Project Wycheproof\n")
    print("Ed25519, P-256, P-384, RS256 to RS512, PS256 to PS512, and HMAC with whole tags.\n")
    print("| | library | cases | wrongly accepted / refused |\n|---|---|---|---|")
    seen = []
    for number, name, command in RAW_SETS:
        own = [case for case in cases if command != DOORWARD or case["jwk"]["kty"] != "oct"]
        figure = Figure(command, "raw", own)
        print(f"| {number} | {name} | {figure.total} | {figure} |", flush=True)
        seen.append((name, figure))
    wrong("Raw signatures", seen)

    cases = list(strict())
    count = {want: sum(case["want"] == want for case in cases) for want in ("invalid", "valid")}
    print("\n## The strict profile\n")
    print(f"`vectors/own/jwt-strict-profile.json`, the cases that need no clock: {count['invalid']} to refuse, {count['valid']} to accept.\n")
    print("| | library | wrongly accepted / refused |\n|---|---|---|")
    seen = []
    for number, name, command in STRICT:
        figure = Figure(command, "strict", cases)
        print(f"| {number} | {name} | {figure} |", flush=True)
        seen.append((name, figure))
    wrong("The strict profile", seen)


main()
