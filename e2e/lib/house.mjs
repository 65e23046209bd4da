// A house with a front door: `doorward serve` with a real mail server beside it and a small app behind it.
import { execFile, spawn } from 'node:child_process';
import fs from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';

const WAIT_MS = 60_000;
const root = path.resolve(import.meta.dirname ?? path.dirname(new URL(import.meta.url).pathname), '../..');
const python = path.join(root, 'e2e/.venv/bin/python');

/** The executable under test. */
export const binary = path.resolve(process.env.DOORWARD_BIN ?? path.join(root, 'target/debug/doorward'));

/** Looks again and again until `look` finds something; a failed look is none. */
export async function until(what, look) {
  const deadline = Date.now() + WAIT_MS;
  for (;;) {
    const found = await look().catch(() => undefined);
    if (found) return found;
    if (Date.now() > deadline) throw new Error(`did not come to pass within ${WAIT_MS} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** A request as a program sends it: no browser, no redirects, at most a minute and 1 MiB. */
export function ask(url, headers = {}, method = 'GET') {
  return new Promise((resolve, reject) => {
    const request = http.request(url, { method, headers: { accept: 'application/json', ...headers } }, (response) => {
      let body = '';
      response.setEncoding('utf8').on('data', (chunk) => {
        body += chunk;
        if (body.length > 1 << 20) request.destroy(new Error('too large'));
      });
      response.on('end', () => resolve({ status: response.statusCode, headers: response.headers, body }));
    });
    request.setTimeout(WAIT_MS, () => request.destroy(new Error(`${url} did not answer within ${WAIT_MS} ms`)));
    request.on('error', reject).end();
  });
}

const freePort = () => new Promise((resolve) => {
  const probe = net.createServer().listen(0, '127.0.0.1', () => {
    const { port } = probe.address();
    probe.close(() => resolve(port));
  });
});

const escaped = (text) => text.replace(/[&<>"]/g, (found) => `&#${found.charCodeAt(0)};`);

/** The app: says who came and where to; `/public/prefetch` makes the browser fetch an address ahead. */
function startApp() {
  const app = http.createServer((request, response) => {
    const url = new URL(request.url, 'http://app');
    const ahead = url.pathname === '/public/prefetch' ? `<link rel="prefetch" href="${escaped(url.search.slice(1))}">` : '';
    response.setHeader('content-type', 'text/html; charset=utf-8').end(
      `<!doctype html><html lang="en"><title>App</title>${ahead}<main><h1>The app</h1>`
      + `<p id="who">${escaped(request.headers['x-doorward-email'] ?? '')}</p><p id="where">${escaped(request.url)}</p></main></html>`);
  });
  return new Promise((resolve) => app.listen(0, '127.0.0.1', () => resolve(app)));
}

const ended = (child) => new Promise((resolve) => {
  child.once('exit', (code, signal) => resolve({ code, signal }));
  child.once('error', () => resolve({ code: null, signal: null }));
});

/** Opens the house. `settings` is the configuration without what only this machine knows. */
export async function openHouse(settings) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'doorward-house-'));
  const sink = spawn(python, [path.join(root, 'e2e/neighbours/smtp_sink.py')], { stdio: ['pipe', 'pipe', 'inherit'] });
  const sinkEnded = ended(sink);
  let server;
  let serverEnded;
  let output = '';
  const app = await startApp();

  async function close() {
    const kill = setTimeout(() => [server, sink].forEach((child) => child?.kill('SIGKILL')), 15_000);
    server?.kill('SIGTERM');
    sink.kill('SIGTERM');
    const result = await serverEnded;
    await sinkEnded;
    clearTimeout(kill);
    app.close();
    app.closeAllConnections();
    fs.rmSync(folder, { recursive: true, force: true });
    return result;
  }

  try {
    let line = '';
    sink.stdout.setEncoding('utf8').on('data', (text) => { line += text; });
    const ports = await until('the mail server is ready', async () => JSON.parse(line));
    const port = await freePort();
    const door = `http://127.0.0.1:${port}`;
    const file = path.join(folder, 'doorward.toml');
    const write = (now) => fs.writeFileSync(file, `public_url = "${door}"
[listen]
http = "127.0.0.1:${port}"
admin = "127.0.0.1:0"
[mail]
url = "smtp://127.0.0.1:${ports.smtp}"
from = "Doorward <login@example.com>"
[apps.web]
upstream = "http://127.0.0.1:${app.address().port}"
${now}`);
    write(settings);
    server = spawn(binary, ['serve', '--config', file], { cwd: folder, env: { ...process.env, NO_COLOR: '1' }, stdio: ['ignore', 'pipe', 'pipe'] });
    serverEnded = ended(server);
    for (const stream of [server.stdout, server.stderr]) stream.setEncoding('utf8').on('data', (text) => { output += text; });
    await until('the server is ready', async () => (await fetch(`${door}/readyz`)).ok);

    const mails = async (email) => {
      const all = await (await fetch(`http://127.0.0.1:${ports.http}/mails`)).json();
      return all.filter(({ to }) => to.includes(email));
    };
    return {
      door,
      close,
      output: () => output,

      /** The first mail to `email` after the `seen` ones there were: its link and its code. */
      async mail(email, seen = 0) {
        const mail = await until(`a mail to ${email}`, async () => (await mails(email))[seen]);
        const link = mail.text.match(/^https?:\/\/\S+$/m)?.[0];
        const code = mail.text.match(/^[0-9A-Z]{4}[0-9A-Z -]*$/m)?.[0];
        return { link, code, text: mail.text };
      },

      /** Takes another configuration, as an operator does it: file, SIGHUP, and a look at the log. */
      async take(now) {
        const before = output.length;
        write(now);
        server.kill('SIGHUP');
        await until('the server took the configuration', async () => output.slice(before).includes('took the new configuration'));
      },

      /** Runs a command on the same house. */
      cli: (...args) => new Promise((resolve, reject) => {
        execFile(binary, ['--config', file, ...args], { cwd: folder, timeout: WAIT_MS }, (error, stdout, stderr) => {
          if (error) reject(new Error(`doorward ${args.join(' ')}: ${error.message}\n${stdout}${stderr}`));
          else resolve(stdout);
        });
      }),

      /** Writes a file into the house. */
      put(name, text) {
        fs.writeFileSync(path.join(folder, name), text);
        return path.join(folder, name);
      },

      /** Changes the database behind the server's back: for what only a neighbour that is not here can bring about. */
      sql: (statement, ...values) => new Promise((resolve, reject) => {
        const script = 'import sqlite3, sys; c = sqlite3.connect("data/doorward.db", timeout=60); '
          + 'n = c.execute(sys.argv[1], sys.argv[2:]).rowcount; c.commit(); print(n)';
        execFile(python, ['-c', script, statement, ...values], { cwd: folder, timeout: WAIT_MS }, (error, stdout) => {
          if (error) reject(error);
          else resolve(Number(stdout));
        });
      }),
    };
  } catch (error) {
    await close();
    throw new Error(`${error.stack}\n--- output of the server\n${output}`);
  }
}
