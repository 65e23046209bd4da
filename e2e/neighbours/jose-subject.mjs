// npm jose with createRemoteJWKSet and its defaults, as a verifier under test: see `doorward-testkit scoreboard`.
//
// Reads `ID TOKEN` lines, answers `ID accept`, `ID refuse CODE` or `ID unavailable CODE`. What is not in the environment stays
// as jose has it: cooldown 30 s, cache 10 minutes, timeout 5 s.
import readline from 'node:readline';
import { createRemoteJWKSet, errors, jwtVerify } from 'jose';

const env = process.env;
const number = (name) => (env[name] ? Number(env[name]) : undefined);
// FRESH_FOR and MAX_STALE are one thing here: keys are used for as long as they need no confirmation.
const keys = createRemoteJWKSet(new URL(env.JWKS_URL), {
  cooldownDuration: number('MIN_INTERVAL'),
  cacheMaxAge: number('FRESH_FOR') ?? number('MAX_STALE'),
});
const rules = {
  issuer: env.ISSUER,
  audience: env.AUDIENCE,
  algorithms: env.ALGORITHMS.split(','),
  clockTolerance: number('CLOCK_TOLERANCE') / 1000,
  requiredClaims: ['exp'],
};

// The token's own fault, by jose's word; the rest (status, timeout, network, not JSON) is the issuer's.
const refusals = [
  errors.JWTClaimValidationFailed, errors.JWTExpired, errors.JWTInvalid, errors.JWSInvalid, errors.JWSSignatureVerificationFailed,
  errors.JOSEAlgNotAllowed, errors.JOSENotSupported, errors.JWKSNoMatchingKey, errors.JWKSMultipleMatchingKeys,
];

readline.createInterface({ input: process.stdin }).on('line', async (line) => {
  const [id, token] = line.split(' ');
  try {
    await jwtVerify(token, keys, rules);
    console.log(`${id} accept`);
  } catch (error) {
    const verdict = refusals.some((refusal) => error instanceof refusal) ? 'refuse' : 'unavailable';
    console.log(`${id} ${verdict} ${error.code ?? error.name}`);
  }
}).on('close', () => process.exit(0));
console.log('ready');
