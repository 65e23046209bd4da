// Starts `doorward demo` in a folder of its own and stops it again.
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';

const START_MS = 60_000;
const STOP_MS = 15_000;

/** Runs the demo; resolves once it has printed the address of the application and that of the mailbox. */
export async function startDemo(binary) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'doorward-journey-'));
  const child = spawn(binary, ['demo'], {
    cwd: folder,
    env: { ...process.env, TMPDIR: folder, HOME: folder, NO_COLOR: '1' },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  const exited = new Promise((resolve) => {
    child.once('exit', (code, signal) => resolve({ code, signal }));
    child.once('error', (error) => resolve({ code: null, signal: null, error }));
  });

  const urls = await new Promise((resolve, reject) => {
    const fail = (why) => {
      clearTimeout(timer);
      child.kill('SIGKILL');
      reject(new Error(`${why}\n--- output of ${binary} demo\n${output}`));
    };
    const timer = setTimeout(() => fail(`the demo printed no addresses within ${START_MS} ms`), START_MS);
    const read = (chunk) => {
      output += chunk;
      const found = [...output.matchAll(/https?:\/\/[^\s"'<>\u001b]+(?=[\s"'<>\u001b])/g)].map(([url]) => new URL(url));
      const mailbox = found.find((url) => url.searchParams.has('token') && url.pathname.includes('mailbox'));
      const app = found.find((url) => url.pathname === '/' && url.search === '' && url.port !== mailbox?.port);
      if (mailbox && app) {
        clearTimeout(timer);
        resolve({ app: app.origin, mailbox: mailbox.href });
      }
    };
    child.stdout.setEncoding('utf8').on('data', read);
    child.stderr.setEncoding('utf8').on('data', read);
    exited.then(({ code, error }) => fail(error ? `the demo did not start: ${error.message}` : `the demo ended with ${code}`));
  });

  return {
    ...urls,
    output: () => output,
    /** Ctrl-C: resolves with how it ended and what it left in its folder. */
    async stop() {
      child.kill('SIGINT');
      const timer = setTimeout(() => child.kill('SIGKILL'), STOP_MS);
      const ended = await exited;
      clearTimeout(timer);
      const left = fs.readdirSync(folder);
      fs.rmSync(folder, { recursive: true, force: true });
      return { ...ended, left };
    },
  };
}
