// A real OpenID provider (panva's oidc-provider) on loopback, whose keys can be rotated while it runs.
//
//   node oidc-provider.mjs        PORT (0: any), ALG (EdDSA, ES256, RS256), AT_TTL (seconds) from the environment
//
// Prints one line of JSON when it is ready: {"ready":true,"issuer":"http://127.0.0.1:…"}.
// Client `service` (secret below) may use client_credentials with resource=urn:app and gets JWT access tokens.
// POST /__t/rotate?mode=overlap|abrupt|samekid   GET /__t/stats
import http from 'node:http';
import { exportJWK, generateKeyPair } from 'jose';
import { Provider } from 'oidc-provider';

const ttl = Number(process.env.AT_TTL ?? 300);
const alg = process.env.ALG ?? 'EdDSA';
const stats = { jwks: 0, token: 0, discovery: 0 };

let made = 0;
async function mint(kid) {
  const options = alg === 'EdDSA' ? { crv: 'Ed25519' } : { modulusLength: 2048 };
  const { privateKey } = await generateKeyPair(alg, { extractable: true, ...options });
  return { ...(await exportJWK(privateKey)), kid: kid ?? `k${++made}`, alg, use: 'sig' };
}

const server = http.createServer();
await new Promise((listening) => server.listen(Number(process.env.PORT ?? 0), '127.0.0.1', listening));
const issuer = `http://127.0.0.1:${server.address().port}`;

let keys = [await mint()];
let handle;
function build() {
  const provider = new Provider(issuer, {
    jwks: { keys },
    clients: [{
      client_id: 'service',
      client_secret: 'test-secret-of-the-service-client',
      grant_types: ['client_credentials'],
      redirect_uris: [],
      response_types: [],
      id_token_signed_response_alg: alg,
    }],
    cookies: { keys: ['test-cookie-key'] },
    ttl: { ClientCredentials: ttl },
    extraTokenClaims: async () => ({ tenant_id: 'acme' }),
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: async () => 'urn:app',
        useGrantedResource: async () => true,
        getResourceServerInfo: async () => ({
          scope: 'api:read api:write', audience: 'urn:app', accessTokenFormat: 'jwt', accessTokenTTL: ttl, jwt: { sign: { alg } },
        }),
      },
    },
  });
  provider.on('server_error', (_context, error) => console.error('server_error', error));
  handle = provider.callback();
}
build();

async function control(url) {
  if (url.pathname === '/__t/rotate') {
    const mode = url.searchParams.get('mode') ?? 'overlap';
    const key = await mint(mode === 'samekid' ? keys[0].kid : undefined);
    keys = mode === 'overlap' ? [key, ...keys] : [key];
    build();
  }
  return { kids: keys.map((key) => key.kid), stats };
}

server.on('request', async (request, response) => {
  const url = new URL(request.url, issuer);
  if (url.pathname.startsWith('/__t/')) {
    response.setHeader('content-type', 'application/json');
    return response.end(JSON.stringify(await control(url)));
  }
  if (url.pathname === '/token') stats.token++;
  if (url.pathname === '/jwks') stats.jwks++;
  if (url.pathname.startsWith('/.well-known/openid')) stats.discovery++;
  return handle(request, response);
});
process.on('SIGTERM', () => process.exit(0));
console.log(JSON.stringify({ ready: true, issuer }));
