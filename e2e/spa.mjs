// CORS in a real browser: a page of another origin on the same site, listed in `login.allowed_origins`, signs a
// person in, reads the session and changes things with its CSRF token; a page that is not listed can do none of it.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { chromium } from 'playwright-core';

const root = path.resolve(import.meta.dirname ?? path.dirname(new URL(import.meta.url).pathname), '..');
const binary = path.resolve(process.env.DOORWARD_BIN ?? path.join(root, 'target/debug/doorward'));
const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'doorward-spa-'));
const WAIT_MS = 60_000;

/** A page without a word of its own, on an origin of its own. */
const page = () => new Promise((resolve) => {
  const server = http.createServer((_, response) => {
    response.setHeader('content-type', 'text/html').end('<!doctype html><html lang="en"><title>spa</title></html>');
  });
  server.listen(0, '127.0.0.1', () => resolve({ server, origin: `http://127.0.0.1:${server.address().port}` }));
});

const freePort = () => new Promise((resolve) => {
  const probe = net.createServer().listen(0, '127.0.0.1', () => {
    const { port } = probe.address();
    probe.close(() => resolve(port));
  });
});

async function until(what, look) {
  const deadline = Date.now() + WAIT_MS;
  for (;;) {
    const found = await look().catch(() => undefined);
    if (found) return found;
    if (Date.now() > deadline) throw new Error(`did not come to pass: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

const ended = (child) => new Promise((resolve) => child.once('exit', resolve));
const sink = spawn(path.join(root, 'e2e/.venv/bin/python'), [path.join(root, 'e2e/neighbours/smtp_sink.py')], {
  stdio: ['pipe', 'pipe', 'inherit'],
});
const ports = await new Promise((resolve) => sink.stdout.once('data', (line) => resolve(JSON.parse(line))));
const [listed, other, port] = [await page(), await page(), await freePort()];
const door = `http://127.0.0.1:${port}`;
fs.writeFileSync(path.join(folder, 'doorward.toml'), `
public_url = "${door}"
[listen]
http = "127.0.0.1:${port}"
admin = "127.0.0.1:0"
[mail]
url = "smtp://127.0.0.1:${ports.smtp}"
from = "Doorward <login@example.com>"
[login]
allow_sign_up = true
allowed_origins = ["${listed.origin}"]
[apps.web]
upstream = "${listed.origin}"
[[rules]]
path = "/*"
allow = ["session"]
app = "web"
`);
const server = spawn(binary, ['serve', '--config', path.join(folder, 'doorward.toml')], { stdio: ['ignore', 'pipe', 'pipe'] });
let output = '';
for (const stream of [server.stdout, server.stderr]) stream.setEncoding('utf8').on('data', (text) => { output += text; });

/** What a script on the page gets: status, reason, body; or that the browser kept the answer from it. */
const call = (tab, target, options = {}) => tab.evaluate(async ([url, init]) => {
  try {
    const answer = await fetch(url, { credentials: 'include', ...init });
    const text = await answer.text();
    return { status: answer.status, reason: answer.headers.get('x-doorward-reason'), body: text ? JSON.parse(text) : null };
  } catch (error) {
    return { blocked: String(error) };
  }
}, [door + target, options]);
const json = (method, body, headers = {}) => (
  { method, headers: { 'content-type': 'application/json', ...headers }, body: JSON.stringify(body) });

let browser;
try {
  await until('the server is ready', async () => (await fetch(`${door}/readyz`)).ok);
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: ['--no-sandbox', '--disable-dev-shm-usage', '--disable-gpu'],
  });
  const context = await browser.newContext();
  context.setDefaultTimeout(WAIT_MS);
  const spa = await context.newPage();
  await spa.goto(listed.origin);

  assert.deepEqual((await call(spa, '/auth/session')).body, { authenticated: false });
  const wish = { email: 'ada@example.com', return_to: `${listed.origin}/home` };
  assert.deepEqual((await call(spa, '/auth/login/request-link', json('POST', wish))).body, { ok: true });
  const mail = await until('the mail arrives', async () => (await (await fetch(`http://127.0.0.1:${ports.http}/mails`)).json())[0]);
  const link = mail.text.match(/http:\S+token=(\S+)/);

  // As a person: the link leads through our page, by a form, to the origin that asked.
  const tab = await context.newPage();
  await tab.goto(link[0]);
  await tab.waitForURL(`${listed.origin}/home`, { timeout: WAIT_MS });
  const session = await call(spa, '/auth/session');
  assert.equal(session.body.user.email, 'ada@example.com');

  const token = session.body.csrf_token;
  const missing = await call(spa, '/auth/sessions/revoke-others', json('POST', {}));
  assert.deepEqual([missing.status, missing.reason], [403, 'csrf_missing'], 'a page can read why it was refused');
  const done = await call(spa, '/auth/sessions/revoke-others', json('POST', {}, { 'x-csrf-token': token }));
  assert.deepEqual([done.status, done.body.ok], [200, true]);
  const gone = await call(spa, '/auth/sessions/none', { method: 'DELETE', headers: { 'x-csrf-token': token } });
  assert.deepEqual([gone.status, gone.reason], [404, 'not_found']);

  const evil = await context.newPage();
  await evil.goto(other.origin);
  for (const [target, options] of [
    ['/auth/session', {}],
    ['/auth/sessions', {}],
    ['/auth/sessions/revoke-others', json('POST', {}, { 'x-csrf-token': token })],
    ['/auth/logout', { method: 'POST' }],
  ]) {
    const answer = await call(evil, target, options);
    assert.ok(answer.blocked, `${target}: ${JSON.stringify(answer)}`);
  }
  assert.equal((await call(spa, '/auth/session')).body.authenticated, true, 'nothing of it signed anybody out');
  assert.equal((await call(spa, '/auth/logout', json('POST', {}))).status, 200);
  assert.deepEqual((await call(spa, '/auth/session')).body, { authenticated: false });
  console.log('ok      a listed origin can do all of it, another one nothing');
} catch (error) {
  console.log(`FAILED  ${error.stack}\n--- output of the server\n${output}`);
  process.exitCode = 1;
} finally {
  await browser?.close();
  listed.server.close();
  other.server.close();
  const gone = [ended(server), ended(sink)];
  server.kill('SIGTERM');
  sink.kill('SIGTERM');
  await Promise.all(gone);
  fs.rmSync(folder, { recursive: true, force: true });
}
