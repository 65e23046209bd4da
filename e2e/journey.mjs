// The main job in a real browser, against the built executable:
// ask for a link → mailbox → the application shows who you are → sign out → refused.
// Screenshots go to JOURNEY_OUT (default: a new temporary folder, named in the last lines).
import assert from 'node:assert/strict';
import fs from 'node:fs';
import http from 'node:http';
import os from 'node:os';
import path from 'node:path';
import { startBrowser, tabTo } from './lib/browser.mjs';
import { startDemo } from './lib/demo.mjs';

const root = path.resolve(import.meta.dirname ?? path.dirname(new URL(import.meta.url).pathname), '..');
const binary = path.resolve(process.env.DOORWARD_BIN ?? path.join(root, 'target/debug/doorward'));
const out = process.env.JOURNEY_OUT ?? fs.mkdtempSync(path.join(os.tmpdir(), 'doorward-shots-'));
fs.mkdirSync(out, { recursive: true });

const SEND = 'button:text-is("Send me a link")';
const SIGN_IN = 'form[action$="/login/callback"] button';
const SIGN_OUT = 'form[action$="/logout"] button';
const WHO = '#who';

const results = { passed: 0, failed: 0 };
async function step(name, run) {
  try {
    await run();
    results.passed += 1;
    console.log(`ok      ${name}`);
  } catch (error) {
    results.failed += 1;
    console.log(`FAILED  ${name}\n${String(error.stack ?? error).replace(/^/gm, '        ')}`);
  }
}

/** A request as a program sends it: no browser, no redirects, at most 10 seconds and 1 MiB. */
function ask(url, headers = {}, method = 'GET') {
  return new Promise((resolve, reject) => {
    const request = http.request(url, { method, headers: { accept: 'application/json', ...headers } }, (response) => {
      let body = '';
      response.setEncoding('utf8').on('data', (chunk) => {
        body += chunk;
        if (body.length > 1 << 20) request.destroy(new Error('too large'));
      });
      response.on('end', () => resolve({ status: response.statusCode, headers: response.headers, body }));
    });
    request.setTimeout(10_000, () => request.destroy(new Error(`${url} did not answer in 10 s`)));
    request.on('error', reject).end();
  });
}

const demo = await startDemo(binary);
console.log(`demo    ${demo.app}`);
const { browser, person, look, complaints, shots } = await startBrowser(out);

// Reads the mails for everybody: the printed address opens the mailbox in one browser.
const clerk = await person('clerk');

/**
 * The address in the newest mail to `email`, once it has arrived; leaves the clerk on that mail. One client
 * gets three links at once and then one in 20 s, and is not told; like a person, `asker` then asks again.
 */
async function linkFor(email, asker) {
  const list = new URL('/mailbox', demo.mailbox).href;
  const deadline = Date.now() + 60_000;
  let askAgain = Date.now() + 4000;
  const entry = clerk.page.locator('.list a', { hasText: email }).first();
  do {
    await clerk.page.goto(list);
    if (await entry.count()) {
      await entry.click();
      const link = clerk.page.locator('pre a[href*="/login/callback"]');
      return link.getAttribute('href');
    }
    if (Date.now() > askAgain) {
      await asker.page.getByRole('link', { name: 'Ask for another link' }).click();
      await sendForm(asker, email);
      askAgain = Date.now() + 4000;
    }
  } while (Date.now() < deadline);
  throw new Error(`no mail to ${email} within a minute`);
}

async function sendForm({ page }, email) {
  await page.getByLabel('Mail address').fill(email);
  await page.click(SEND);
  await page.getByRole('heading', { name: 'Check your inbox' }).waitFor();
}

/** Opens the application, is sent to the login page, asks for a link. */
async function askForLink(person, email, target = '/') {
  await person.page.goto(demo.app + target);
  assert.match(new URL(person.page.url()).pathname, /\/login$/);
  await sendForm(person, email);
}

async function assertSignedIn(page, email) {
  await page.locator(WHO).waitFor();
  assert.equal(await page.locator(WHO).textContent(), email);
}

const cookiesOf = async ({ context }) => (await context.cookies(demo.app)).map(({ name, value }) => `${name}=${value}`).join('; ');
const hasSession = async ({ context }) => (await context.cookies(demo.app)).some(({ name }) => name.endsWith('doorward_sid'));
/** Keeps the callback page where it is: the button is pressed by hand. */
const withoutGoingOn = ({ context }) => context.route('**/assets/go-on.*.js', (route) => route.abort());

const alice = await person('alice');
let aliceLink;

await step('a program without a credential is refused and told why', async () => {
  const answer = await ask(`${demo.app}/api/echo`);
  assert.equal(answer.status, 401);
  assert.equal(answer.headers['content-type'], 'application/problem+json');
  assert.equal(answer.headers['x-doorward-reason'], 'no_credential');
  assert.ok(answer.headers['www-authenticate']);
  const problem = JSON.parse(answer.body);
  assert.equal(problem.reason, 'no_credential');
  assert.match(problem.decision_id, /^[0-9a-f-]{36}$/);
});

await step('a public path lets everybody in and strips a forged identity', async () => {
  const answer = await ask(`${demo.app}/public/echo`, { 'x-doorward-subject': 'admin', 'x_doorward_email': 'root@x.test' });
  assert.equal(answer.status, 200);
  assert.ok(!answer.body.includes('admin') && !answer.body.includes('root@x.test'), answer.body);
});

await step('the mailbox stays shut without its address', async () => {
  await clerk.page.goto(new URL('/mailbox', demo.mailbox).href);
  await clerk.page.getByRole('heading', { name: 'This mailbox is closed' }).waitFor();
  await look(clerk, 'mailbox closed');
});

await step('the printed address opens the mailbox, once', async () => {
  await clerk.page.goto(demo.mailbox);
  await clerk.page.getByRole('heading', { name: 'Demo mailbox' }).waitFor();
  assert.ok(!clerk.page.url().includes('token='), 'the token stays in the address bar');
  await look(clerk, 'mailbox empty');
  assert.equal((await ask(demo.mailbox)).status, 403);
});

await step('a stranger at the application is asked to sign in', async () => {
  await alice.page.goto(`${demo.app}/?from=journey`);
  assert.match(new URL(alice.page.url()).pathname, /\/login$/);
  await look(alice, 'login');
});

await step('asking for a link leads to the inbox page', async () => {
  await askForLink(alice, 'alice@example.com', '/?from=journey');
  await look(alice, 'inbox');
});

await step('the mail is in the mailbox', async () => {
  aliceLink = await linkFor('alice@example.com', alice);
  assert.equal(new URL(aliceLink).origin, demo.app);
  await look(clerk, 'mail');
  await clerk.page.goBack();
  await look(clerk, 'mailbox');
});

await step('a scanner that follows the link uses nothing up', async () => {
  for (const method of ['GET', 'HEAD', 'GET']) {
    const answer = await ask(aliceLink, { accept: 'text/html', 'user-agent': 'mail-scanner' }, method);
    assert.equal(answer.status, 200);
    assert.ok(!String(answer.headers['set-cookie'] ?? '').includes('doorward_sid'));
    assert.ok(!answer.body.includes('<form'), 'another browser was given a button');
  }
  const token = new URL(aliceLink).searchParams.get('token');
  const posted = await new Promise((resolve, reject) => {
    const request = http.request(aliceLink.split('?')[0], { method: 'POST', headers: { 'content-type': 'application/json', accept: 'application/json' } }, resolve);
    request.on('error', reject).setTimeout(10_000, () => request.destroy(new Error('no answer'))).end(JSON.stringify({ token }));
  });
  assert.equal(posted.headers['x-doorward-reason'], 'link_wrong_browser');
  assert.equal(posted.statusCode, 403);
  posted.resume();
});

await step('the link in the browser that asked signs in and goes where one wanted to go', async () => {
  await alice.page.goto(aliceLink);
  // The page goes on by itself where its script runs; else its button does the same.
  await alice.page.locator(`${WHO}, ${SIGN_IN}`).first().waitFor();
  if (!(await alice.page.locator(WHO).count())) {
    await alice.page.click(SIGN_IN).catch((error) => {
      if (!/detached|navigat|Timeout/.test(error.message)) throw error;
    });
  }
  await assertSignedIn(alice.page, 'alice@example.com');
  assert.equal(alice.page.url(), `${demo.app}/?from=journey`);
  await look(alice, 'app');
});

await step('the application was told who it is, and was not given the cookies', async () => {
  const answer = await ask(`${demo.app}/api/echo`, { cookie: await cookiesOf(alice), 'x-doorward-email': 'root@x.test' });
  assert.equal(answer.status, 200);
  const echo = JSON.parse(answer.body);
  const told = Object.fromEntries(echo.identity);
  assert.equal(told['X-Doorward-Email'], 'alice@example.com');
  assert.equal(told['X-Doorward-Method'], 'session');
  assert.match(told['X-Doorward-Subject'], /^[0-9a-f-]{36}$/);
  assert.ok(!echo.cookies.some((name) => name.includes('doorward')), String(echo.cookies));
});

await step('no script can read the session cookie', async () => {
  assert.ok(await hasSession(alice));
  const seen = await alice.page.evaluate(() => document.cookie);
  assert.ok(!seen.includes('doorward_sid') && !seen.includes('doorward_login'), seen);
  for (const cookie of await alice.context.cookies(demo.app)) {
    assert.ok(['Lax', 'Strict'].includes(cookie.sameSite), cookie.name);
    assert.equal(cookie.path, '/', cookie.name);
  }
});

await step('the profile page says who, how and until when', async () => {
  await alice.page.getByRole('link', { name: 'Who Doorward thinks you are' }).click();
  await alice.page.getByRole('heading', { name: 'Your session' }).waitFor();
  await alice.page.getByText('alice@example.com').waitFor();
  await look(alice, 'profile');
});

await step('the same link does not work twice', async () => {
  await alice.page.goto(aliceLink);
  await alice.page.getByRole('heading', { name: 'This link has been used already' }).waitFor();
  await alice.page.getByText('link_reused').waitFor();
  await alice.page.getByRole('link', { name: 'Ask for a new link' }).waitFor();
  await look(alice, 'link used');
});

await step('signing out ends the session here and everywhere', async () => {
  const before = await cookiesOf(alice);
  await alice.page.goto(demo.app);
  await alice.page.click(SIGN_OUT);
  await alice.page.getByRole('heading', { name: 'You are signed out' }).waitFor();
  await look(alice, 'signed out');
  assert.ok(!(await hasSession(alice)), 'the session cookie is still there');
  const replay = await ask(`${demo.app}/api/echo`, { cookie: before });
  assert.equal(replay.status, 401);
  assert.match(replay.headers['x-doorward-reason'], /^session_(unknown|revoked)$/);
  await alice.page.goto(demo.app);
  assert.match(new URL(alice.page.url()).pathname, /\/login$/);
});

await step('a link that is none is refused with a page that helps', async () => {
  await alice.page.goto(`${aliceLink.split('?')[0]}?token=nonsense`);
  await alice.page.getByText('link_invalid').waitFor();
  await look(alice, 'link invalid');
  await alice.page.getByRole('link', { name: 'Ask for a new link' }).click();
  await alice.page.getByRole('heading', { name: 'Sign in' }).waitFor();
});

await step('another browser is sent back to the one that asked', async () => {
  const bob = await person('bob');
  const other = await person('other');
  await withoutGoingOn(bob);
  await askForLink(bob, 'bob@example.com');
  const link = await linkFor('bob@example.com', bob);
  await other.page.goto(link);
  await other.page.getByRole('heading', { name: 'Continue in your other browser' }).waitFor();
  assert.equal(await other.page.locator('form').count(), 0);
  await look(other, 'elsewhere');
  await other.page.goto(demo.app);
  assert.match(new URL(other.page.url()).pathname, /\/login$/);
  assert.ok(!(await hasSession(other)));

  await bob.page.goto(link);
  await bob.page.getByText('b•••@example.com').waitFor();
  await look(bob, 'confirm');
  await bob.page.click(SIGN_IN);
  await assertSignedIn(bob.page, 'bob@example.com');
  await bob.context.close();
  await other.context.close();
});

await step('the keyboard alone is enough', async () => {
  const carol = await person('carol', { storageState: await clerk.context.storageState() });
  const { page } = carol;
  await withoutGoingOn(carol);
  await page.goto(demo.app);
  await tabTo(page, '#email');
  await page.keyboard.type('carol@example.com');
  await tabTo(page, SEND);
  await page.keyboard.press('Enter');
  await page.getByRole('heading', { name: 'Check your inbox' }).waitFor();
  await linkFor('carol@example.com', carol);
  await page.goto(clerk.page.url());
  await tabTo(page, 'pre a[href*="/login/callback"]');
  await page.keyboard.press('Enter');
  await tabTo(page, SIGN_IN);
  await page.keyboard.press('Space');
  await assertSignedIn(page, 'carol@example.com');
  await tabTo(page, SIGN_OUT);
  await page.keyboard.press('Enter');
  await page.getByRole('heading', { name: 'You are signed out' }).waitFor();
  await carol.context.close();
});

await step('everything works without JavaScript', async () => {
  const dan = await person('dan', { javaScriptEnabled: false });
  const { page } = dan;
  await askForLink(dan, 'dan@example.com');
  await page.goto(await linkFor('dan@example.com', dan));
  await page.click(SIGN_IN);
  await assertSignedIn(page, 'dan@example.com');
  await page.click(SIGN_OUT);
  await page.getByRole('heading', { name: 'You are signed out' }).waitFor();
  await dan.context.close();
});

await step('no page made the browser complain', async () => {
  // The one request that these steps themselves stopped.
  const real = complaints.filter((line) => !/ERR_FAILED \(.*\/go-on\.\w+\.js\)$/.test(line));
  assert.deepEqual(real, []);
});

await browser.close();
await step('Ctrl-C ends the demo and leaves nothing', async () => {
  const ended = await demo.stop();
  assert.deepEqual(ended, { code: 0, signal: null, left: [] });
});

console.log(`shots   ${shots()} in ${out}`);
if (results.failed) console.log(`--- output of the demo\n${demo.output()}`);
console.log(`${results.passed} passed, ${results.failed} failed`);
process.exitCode = results.failed ? 1 : 0;
