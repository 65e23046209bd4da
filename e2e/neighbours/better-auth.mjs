// A real issuer on loopback: better-auth with its jwt and OAuth provider plugins, whose keys can be rotated while it runs.
//
//   node better-auth.mjs        PORT (0: any), ALG (EdDSA, ES256, RS256), AT_TTL (seconds) from the environment
//
// Prints one line of JSON when it is ready. It has one public client and one user who is signed in.
// POST /__t/token: a new access token of that user, by authorization code with PKCE over HTTP (the first time), then by refresh.
// POST /__t/rotate?mode=overlap|abrupt|samekid
import { createHash, randomBytes } from 'node:crypto';
import http from 'node:http';
import { betterAuth } from 'better-auth';
import { memoryAdapter } from 'better-auth/adapters/memory';
import { toNodeHandler } from 'better-auth/node';
import { jwt } from 'better-auth/plugins';
import { oauthProvider } from '@better-auth/oauth-provider';

const redirect = 'http://127.0.0.1:9/callback'; // the discard port: nobody follows
const scope = 'openid profile email offline_access api:read';
const resource = 'urn:app:api';
const server = http.createServer();
await new Promise((listening) => server.listen(Number(process.env.PORT ?? 0), '127.0.0.1', listening));
const origin = `http://127.0.0.1:${server.address().port}`;
const issuer = `${origin}/api/auth`;

const tables = ['user', 'session', 'account', 'verification', 'jwks', 'oauthClient', 'oauthResource', 'oauthClientResource',
  'oauthRefreshToken', 'oauthAccessToken', 'oauthConsent'];
const db = Object.fromEntries(tables.map((table) => [table, []]));
const auth = betterAuth({
  baseURL: origin,
  secret: 'test-only-secret-test-only-secret-00',
  trustedOrigins: [origin],
  telemetry: { enabled: false },
  database: memoryAdapter(db),
  emailAndPassword: { enabled: true },
  rateLimit: { enabled: false },
  plugins: [
    jwt({ jwks: { keyPairConfig: { alg: process.env.ALG ?? 'EdDSA' } }, disableSettingJwtHeader: true }),
    oauthProvider({
      loginPage: '/login',
      consentPage: '/consent',
      accessTokenExpiresIn: Number(process.env.AT_TTL ?? 300),
      scopes: scope.split(' '),
      resources: [resource],
      enforcePerClientResources: false,
      customAccessTokenClaims: () => ({ orgs: [{ id: 'o1', slug: 'acme', name: 'Acme' }], projects: ['p1'] }),
    }),
  ],
});
await auth.$context;

const account = { email: 'op@example.test', password: 'op-password-1', name: 'op' };
const signedUp = await auth.api.signUpEmail({ body: account, returnHeaders: true });
const cookie = signedUp.headers.getSetCookie().map((line) => line.split(';')[0]).join('; ');
const client = await auth.api.adminCreateOAuthClient({
  headers: new Headers({ cookie }),
  body: {
    client_name: 'app', redirect_uris: [redirect], token_endpoint_auth_method: 'none', skip_consent: true, scope,
    grant_types: ['authorization_code', 'refresh_token'], response_types: ['code'], application_type: 'native',
  },
});

async function ask(body) {
  const form = new URLSearchParams({ client_id: client.client_id, resource, ...body });
  const response = await fetch(`${issuer}/oauth2/token`, { method: 'POST', body: form });
  const answer = await response.json();
  if (!response.ok) throw new Error(`token endpoint: ${response.status} ${JSON.stringify(answer)}`);
  return answer;
}

// Over node:http: fetch says sec-fetch-mode cors, and gets JSON where a browser gets a redirect.
function location(url) {
  return new Promise((resolve, reject) => {
    http.get(url, { headers: { cookie, accept: 'text/html' } }, (response) => {
      response.resume();
      resolve(response.headers.location);
    }).on('error', reject);
  });
}

let refreshToken;
async function token() {
  let answer;
  if (refreshToken) {
    answer = await ask({ grant_type: 'refresh_token', refresh_token: refreshToken });
  } else {
    const verifier = randomBytes(32).toString('base64url');
    const question = new URLSearchParams({
      response_type: 'code', client_id: client.client_id, redirect_uri: redirect, scope, resource, state: randomBytes(8).toString('hex'),
      code_challenge: createHash('sha256').update(verifier).digest('base64url'), code_challenge_method: 'S256',
    });
    const back = new URL(await location(`${issuer}/oauth2/authorize?${question}`), origin);
    const code = back.searchParams.get('code');
    if (!code) throw new Error(`no code: ${back}`);
    answer = await ask({ grant_type: 'authorization_code', code, redirect_uri: redirect, code_verifier: verifier });
  }
  refreshToken = answer.refresh_token;
  return { access_token: answer.access_token };
}

async function rotate(mode) {
  const old = db.jwks.at(-1)?.id;
  if (mode === 'overlap') {
    // No longer signs; still published.
    for (const key of db.jwks) key.expiresAt = new Date(Date.now() - 1000);
  } else {
    db.jwks.length = 0;
  }
  // The next one who asks for the set, or a token, makes the new key. Under its old id it is new material.
  await auth.api.getJwks().catch(() => undefined);
  if (mode === 'samekid') {
    if (db.jwks.length === 0) await token();
    db.jwks[0].id = old;
  }
  return { kids: db.jwks.map((key) => key.id) };
}

const handle = toNodeHandler(auth);
server.on('request', async (request, response) => {
  const url = new URL(request.url, origin);
  if (!url.pathname.startsWith('/__t/')) return handle(request, response);
  try {
    const answer = url.pathname === '/__t/token' ? await token() : await rotate(url.searchParams.get('mode'));
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify(answer));
  } catch (error) {
    response.statusCode = 500;
    response.end(JSON.stringify({ error: String(error?.stack ?? error) }));
  }
});
process.on('SIGTERM', () => process.exit(0));
console.log(JSON.stringify({ ready: true, issuer, origin }));
