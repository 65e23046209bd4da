// Judges the cases on standard input with a library of npm, set up as its documentation says: a line `accept` or `reject` each.
// Run by run.py as `judge.mjs LIBRARY KIND`; what a case is stands there.
import { createPublicKey, createSecretKey } from 'node:crypto';
import { readFileSync } from 'node:fs';
import * as fast from 'fast-jwt';
import { compactVerify, createLocalJWKSet, importJWK, jwtVerify } from 'jose';
import jsonwebtoken from 'jsonwebtoken';

const [library, kind] = process.argv.slice(2);
const given = JSON.parse(readFileSync(0, 'utf8'));
const { issuer, audience, leeway } = given;

const header = (token) => JSON.parse(Buffer.from(token.split('.')[0], 'base64url').toString());
const named = ({ jwk, jwks, token }) => jwk ?? jwks.keys.find(({ kid }) => kid === header(token).kid);
const object = (jwk) => (jwk.kty === 'oct' ? createSecretKey(Buffer.from(jwk.k, 'base64url')) : createPublicKey({ key: jwk, format: 'jwk' }));

const judges = {
  'jose-set': {
    jws: ({ token, jwk, jwks, algorithms }) => compactVerify(token, createLocalJWKSet(jwks ?? { keys: [jwk] }), { algorithms }),
    strict: ({ token, jwks, algorithms, typ }) =>
      jwtVerify(token, createLocalJWKSet(jwks), { issuer, audience, algorithms, clockTolerance: leeway, ...(typ && { typ }) }),
  },
  'jose-key': {
    jws: async (given) => compactVerify(given.token, await importJWK(named(given), header(given.token).alg), { algorithms: given.algorithms }),
  },
  jsonwebtoken: {
    jws: (given) => jsonwebtoken.verify(given.token, object(named(given)), { algorithms: given.algorithms }),
  },
  'fast-jwt': {
    strict: async (given) => {
      const pem = () => object(named(given)).export({ type: 'spki', format: 'pem' });
      const verify = fast.createVerifier({
        key: async () => pem(),
        // It knows no other names.
        algorithms: given.algorithms.filter((name) => name !== 'Ed25519'),
        allowedIss: issuer, allowedAud: audience, clockTolerance: leeway * 1000,
        requiredClaims: ['exp', 'iss', 'aud', 'sub'], ...(given.typ && { checkTyp: given.typ }),
      });
      return verify(given.token);
    },
  },
};

const judge = judges[library][kind];
for (const one of given.cases) {
  try {
    await judge(one);
    console.log('accept');
  } catch {
    console.log('reject');
  }
}
