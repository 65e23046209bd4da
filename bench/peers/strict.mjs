// Judges the cases on standard input with npm jose as its documentation says, one line `accept` or `reject` for each.
import { readFileSync } from 'node:fs';
import { createLocalJWKSet, jwtVerify } from 'jose';

const { issuer, audience, leeway, cases } = JSON.parse(readFileSync(0, 'utf8'));
for (const { token, jwks, algorithms, typ } of cases) {
  try {
    await jwtVerify(token, createLocalJWKSet(jwks), { issuer, audience, algorithms, clockTolerance: leeway, ...(typ && { typ }) });
    console.log('accept');
  } catch {
    console.log('reject');
  }
}
