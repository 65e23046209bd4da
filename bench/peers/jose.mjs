// Verifies tokens with npm jose, for the table of `cargo run -p doorward-bench`: one JSON object on standard input, CPU
// microseconds for each token, the median of the rounds, on standard output. Run by bench/src/verify.rs.
import { readFileSync } from 'node:fs';
import { createLocalJWKSet, jwtVerify } from 'jose';

const { algorithm, issuer, audience, jwks, tokens, rounds } = JSON.parse(readFileSync(0, 'utf8'));
const keys = createLocalJWKSet(jwks);
const spent = [];
for (let round = 0; round <= rounds; round++) {
  const before = process.cpuUsage();
  for (const token of tokens) {
    await jwtVerify(token, keys, { issuer, audience, algorithms: [algorithm], clockTolerance: 30 });
  }
  const { user, system } = process.cpuUsage(before);
  // The first round warms the compiler up.
  if (round > 0) spent.push((user + system) / tokens.length);
}
spent.sort((one, other) => one - other);
console.log(spent[Math.floor(spent.length / 2)]);
