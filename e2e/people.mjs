// What people meet at the door, in real browsers, against `doorward serve` with a real mail server: two browsers,
// the code from the mail, no JavaScript, the keyboard alone, step-up, sessions, the soak window, and every page of
// a refusal. Each page is looked at in the light and, 320 px wide, in the dark.
// Screenshots go to JOURNEY_OUT (default: a new temporary folder, named in the last lines).
import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { startBrowser, tabTo } from './lib/browser.mjs';
import { ask, openHouse, until } from './lib/house.mjs';

const out = process.env.JOURNEY_OUT ?? fs.mkdtempSync(path.join(os.tmpdir(), 'doorward-shots-'));
fs.mkdirSync(out, { recursive: true });

/** The configuration; `login`, `session` and `legacy` are lines of their tables. */
const settings = ({ login = '', session = '', legacy = '' } = {}) => `
[login]
allow_sign_up = true
${login}
[session]
${session}
[legacy]
${legacy}
[[rules]]
path = "/vault/*"
allow = ["session"]
require = { recent_auth = true }
app = "web"
[[rules]]
path = "/public/*"
allow = ["public"]
app = "web"
[[rules]]
path = "/*"
allow = ["session"]
app = "web"
`;
const WINDOW = 'allow = true\ncutover_on = "2099-12-31"';
const OLD_PASSWORD = { word: 'correct horse battery staple', hash: '$2b$04$V4vBBZ6hxGgWIpDOwQu9COCZPxvEroo1AzvgwIVkfUquU1ikFus/y' };

const SEND = 'button:text-is("Send me a link")';
const SIGN_IN = 'form[action$="/login/callback"] button';
const CODE = 'form[action$="/login/code"] button';
const SIGN_OUT = 'form[action$="/logout"] button';
const CAST = 'doorward_sid';

const results = { passed: 0, failed: 0, left: 0 };
/** For work on one page: only the steps whose name matches. */
const only = new RegExp(process.env.JOURNEY_ONLY ?? '');
async function step(name, run) {
  if (!only.test(name)) {
    results.left += 1;
    return;
  }
  try {
    await run();
    results.passed += 1;
    console.log(`ok      ${name}`);
  } catch (error) {
    results.failed += 1;
    console.log(`FAILED  ${name}\n${`${error.stack ?? error}\n${await shown()}`.replace(/^/gm, '        ')}`);
  } finally {
    await Promise.all(browser.contexts().map((context) => context.close()));
  }
}

const house = await openHouse(settings());
const { door } = house;
const { browser, shown, person: open, look, complaints, shots } = await startBrowser(out);

let people = 0;
/** A person with a browser of their own, at an address of their own: nobody uses up another one's budget. */
function person(name, options = {}) {
  people += 1;
  return open(name, { extraHTTPHeaders: { 'x-forwarded-for': `198.51.100.${people}` }, ...options });
}
const heading = (page, name) => page.getByRole('heading', { name, level: 1 }).waitFor();
const sessionOf = async ({ context }) => (await context.cookies(door)).find(({ name }) => name.endsWith(CAST))?.value;
const cookiesOf = async ({ context }) => (await context.cookies(door)).map(({ name, value }) => `${name}=${value}`).join('; ');
/** Keeps the callback page where it is: the button is pressed by hand. */
const withoutGoingOn = ({ context }) => context.route('**/assets/go-on.*.js', (route) => route.abort());
const signedIn = async (page, email) => {
  await page.locator('#who', { hasText: email }).waitFor();
  assert.equal(await page.locator('#who').textContent(), email);
};

async function askForLink({ page }, email, target = '/') {
  await page.goto(door + target);
  assert.match(new URL(page.url()).pathname, /\/login$/);
  await page.getByLabel('Mail address').first().fill(email);
  await page.click(SEND);
  await heading(page, 'Check your inbox');
}
async function signIn(who, email, { seen = 0, target = '/' } = {}) {
  await askForLink(who, email, target);
  const mail = await house.mail(email, seen);
  // Without JavaScript, or with somebody signed in here, a button waits; else the page goes on by itself.
  await who.page.goto(mail.link);
  await who.page.locator(`#who, ${SIGN_IN}`).first().waitFor();
  if (who.noScript) await who.page.click(SIGN_IN);
  await signedIn(who.page, email);
  return mail;
}
async function typeCode(page, code) {
  await page.getByLabel('Code').fill(code);
  await page.click(CODE);
}

await step('the first administrator claims the installation, once', async () => {
  const boss = await person('boss');
  const address = await until('the address is printed', async () => house.output().match(/https?:\S+\/first-admin\?token=\S+/)?.[0]);
  await boss.page.goto(address);
  await heading(boss.page, 'Become the administrator');
  await look(boss, 'first admin');
  await tabTo(boss.page, '#email');
  await boss.page.keyboard.type('boss@example.com');
  await boss.page.keyboard.press('Enter');
  await heading(boss.page, 'Your session');
  // Nobody has shown yet who reads that mail.
  await look(boss, 'profile unproven');
  await boss.page.getByRole('link', { name: 'confirm it by a mail' }).click();
  await boss.page.getByRole('button', { name: 'Send me the mail' }).click();
  await heading(boss.page, 'Check your inbox');
  await boss.page.goto((await house.mail('boss@example.com')).link);
  await heading(boss.page, 'Your session');
  await boss.page.getByText('boss@example.com').waitFor();
  const late = await person('late');
  await late.page.goto(address);
  await late.page.getByText('link_reused').waitFor();
  await look(late, 'first admin used');
  assert.equal(await sessionOf(late), undefined);
});

await step('a link goes on by itself in the browser that asked, to where one wanted to go', async () => {
  const ada = await person('ada');
  await signIn(ada, 'ada@example.com', { target: '/reports?year=2026' });
  assert.equal(ada.page.url(), `${door}/reports?year=2026`);
  await ada.page.goto(`${door}/auth/whoami`);
  await heading(ada.page, 'Your session');
  await look(ada, 'profile');
});

await step('a second browser is told where to go on, and the code signs in the first', async () => {
  const desk = await person('desk');
  const phone = await person('phone');
  await askForLink(desk, 'ben@example.com', '/reports?for=ben');
  await look(desk, 'inbox');
  const { link, code } = await house.mail('ben@example.com');
  await phone.page.goto(link);
  await heading(phone.page, 'Continue in your other browser');
  await phone.page.getByText('Type the code from the mail there').waitFor();
  await phone.page.getByRole('link', { name: 'Ask for a new link here' }).waitFor();
  assert.equal(await phone.page.locator('form').count(), 0);
  assert.equal(await sessionOf(phone), undefined);
  await look(phone, 'elsewhere');

  await typeCode(desk.page, 'AAAA-AAAA');
  await heading(desk.page, 'This code does not work');
  await look(desk, 'code wrong');
  await typeCode(desk.page, code.toLowerCase());
  await signedIn(desk.page, 'ben@example.com');
  assert.equal(desk.page.url(), `${door}/reports?for=ben`);

  await phone.page.goto(link);
  assert.equal(await sessionOf(phone), undefined);
  await desk.page.goto(link);
  await heading(desk.page, 'This link has been used already');
  await desk.page.getByRole('link', { name: 'Ask for a new link' }).waitFor();
  await look(desk, 'link used');
});

await step('a code typed in another browser than the one that asked does not work', async () => {
  const asked = await person('asked');
  const thief = await person('thief');
  await askForLink(asked, 'carl@example.com');
  const { code } = await house.mail('carl@example.com');
  await askForLink(thief, 'thief@example.com');
  await typeCode(thief.page, code);
  await heading(thief.page, 'This code does not work');
  assert.equal(await sessionOf(thief), undefined);
  await typeCode(asked.page, code);
  await signedIn(asked.page, 'carl@example.com');
});

await step('who is signed in already is asked first', async () => {
  const shared = await person('shared');
  await signIn(shared, 'dora@example.com');
  const before = await sessionOf(shared);
  // Dora's browser asks for a link for somebody else: signed in, so by a program and not by the page.
  const asked = await shared.page.evaluate(async () => (await fetch('/auth/login/request-link', {
    method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ email: 'emil@example.com' }),
  })).status);
  assert.equal(asked, 200);
  const { link } = await house.mail('emil@example.com');
  await shared.page.goto(link);
  await heading(shared.page, 'Confirm that it is you');
  await shared.page.getByText('d•••@example.com').waitFor();
  await shared.page.getByText('e•••@example.com').waitFor();
  await look(shared, 'asked first');
  assert.equal(await sessionOf(shared), before);
  await shared.page.goto(door);
  await signedIn(shared.page, 'dora@example.com');
  await shared.page.goto(link);
  await shared.page.click(SIGN_IN);
  await signedIn(shared.page, 'emil@example.com');
  assert.notEqual(await sessionOf(shared), before);
  const replay = await ask(`${door}/`, { cookie: `${CAST}=${before}` });
  assert.equal(replay.status, 401);
});

await step('scanners and browsers that fetch ahead burn nothing', async () => {
  const fay = await person('fay');
  await askForLink(fay, 'fay@example.com');
  const { link } = await house.mail('fay@example.com');
  for (const method of ['HEAD', 'GET', 'HEAD', 'GET']) {
    const answer = await ask(link, { accept: 'text/html', 'user-agent': 'mail-scanner' }, method);
    assert.equal(answer.status, 200);
    assert.ok(!answer.body.includes('<form'), 'a scanner was given a form');
    assert.ok(!String(answer.headers['set-cookie'] ?? '').includes(CAST));
  }
  // A scanner that runs a whole browser, scripts included.
  const robot = await person('robot');
  await robot.page.goto(link);
  await heading(robot.page, 'Continue in your other browser');
  // The browser that asked, before anybody wants it.
  const cookie = await cookiesOf(fay);
  for (const purpose of [{ 'sec-purpose': 'prefetch' }, { 'sec-purpose': 'prefetch;prerender' }, { purpose: 'prefetch' }]) {
    const answer = await ask(link, { accept: 'text/html', cookie, ...purpose });
    assert.equal(answer.status, 200);
    assert.ok(answer.body.includes('/login/callback') && !answer.body.includes('data-go-on'), JSON.stringify(purpose));
  }
  const ahead = fay.page.waitForResponse((response) => response.url() === link);
  await fay.page.goto(`${door}/public/prefetch?${link}`);
  assert.equal((await ahead).status(), 200);
  assert.equal(await sessionOf(fay), undefined);
  await fay.page.goto(link);
  await signedIn(fay.page, 'fay@example.com');
});

await step('everything works once without JavaScript', async () => {
  const plain = (name) => person(name, { javaScriptEnabled: false, userAgent: `Mozilla/5.0 (X11; Linux x86_64) Firefox/1${people}0.0` })
    .then((who) => ({ ...who, noScript: true }));
  const [gus, second, third] = [await plain('gus'), await plain('second'), await plain('third')];
  // By code, with a wrong one first.
  await askForLink(gus, 'gus@example.com');
  const { code } = await house.mail('gus@example.com');
  await typeCode(gus.page, 'WRONG');
  await heading(gus.page, 'This code does not work');
  await typeCode(gus.page, code);
  await signedIn(gus.page, 'gus@example.com');
  // By link, in two more browsers.
  await signIn(second, 'gus@example.com', { seen: 1 });
  await signIn(third, 'gus@example.com', { seen: 2 });

  await gus.page.goto(`${door}/auth/whoami`);
  await gus.page.getByRole('link', { name: 'Where you are signed in' }).click();
  await heading(gus.page, 'Where you are signed in');
  assert.equal(await gus.page.locator('.entry').count(), 3);
  const others = gus.page.locator('form[action$="/revoke"] button');
  assert.equal(await others.count(), 2);
  // The one last used stands first: that of the third browser.
  await others.first().click();
  await heading(gus.page, 'Where you are signed in');
  assert.equal(await gus.page.locator('.entry').count(), 2);
  await third.page.goto(door);
  assert.match(new URL(third.page.url()).pathname, /\/login$/);
  await second.page.goto(door);
  await signedIn(second.page, 'gus@example.com');

  await gus.page.getByRole('button', { name: 'End all other sessions' }).click();
  await heading(gus.page, 'Where you are signed in');
  assert.equal(await gus.page.locator('.entry').count(), 1);
  assert.equal(await gus.page.getByRole('button', { name: 'End all other sessions' }).count(), 0);
  await second.page.goto(door);
  assert.match(new URL(second.page.url()).pathname, /\/login$/);
  await gus.page.click(SIGN_OUT);
  await heading(gus.page, 'You are signed out');
  assert.equal(await sessionOf(gus), undefined);
});

await step('the list of sessions can be read and used with the keyboard', async () => {
  const ida = await person('ida');
  const other = await person('other');
  await signIn(other, 'ida@example.com');
  await signIn(ida, 'ida@example.com', { seen: 1 });
  await ida.page.goto(`${door}/auth/sessions`);
  await heading(ida.page, 'Where you are signed in');
  await look(ida, 'sessions');
  await tabTo(ida.page, 'button:text-is("End all other sessions")');
  await ida.page.keyboard.press('Enter');
  await until('one session is left', async () => (await ida.page.locator('.entry').count()) === 1);
  await look(ida, 'one session');
});

await step('the keyboard alone is enough, by code', async () => {
  const kim = await person('kim');
  const { page } = kim;
  await page.goto(`${door}/reports`);
  await tabTo(page, '#email');
  await page.keyboard.type('kim@example.com');
  await page.keyboard.press('Enter');
  await heading(page, 'Check your inbox');
  const { code } = await house.mail('kim@example.com');
  await tabTo(page, '#code');
  await page.keyboard.type(code);
  await tabTo(page, CODE);
  await page.keyboard.press('Space');
  await signedIn(page, 'kim@example.com');
  assert.equal(page.url(), `${door}/reports`);
  await page.goto(`${door}/auth/whoami`);
  await tabTo(page, SIGN_OUT);
  await page.keyboard.press('Enter');
  await heading(page, 'You are signed out');
  await look(kim, 'signed out');
});

await step('a route that asks for a fresh proof leads to it and back, by link', async () => {
  const lea = await person('lea');
  const { page } = lea;
  await signIn(lea, 'lea@example.com');
  await page.goto(`${door}/vault/gold?bar=7`);
  await signedIn(page, 'lea@example.com');
  const before = await sessionOf(lea);
  const ends = async () => page.evaluate(async () => (await (await fetch('/auth/session')).json()).expires_at);
  const end = await ends();

  await house.take(settings({ session: 'recent_auth = "1s"' }));
  await until('the sign-in is no longer recent', async () => {
    await page.goto(`${door}/vault/gold?bar=7`);
    return !(await page.locator('#where').count());
  });
  await heading(page, 'Confirm that it is you');
  await page.getByText('lea@example.com').waitFor();
  await look(lea, 're-auth');
  await page.getByRole('button', { name: 'Send me the mail' }).click();
  await heading(page, 'Check your inbox');
  await page.getByText('You stay signed in meanwhile').waitFor();
  assert.equal(await page.getByText('typing mistake').count(), 0, 'nobody typed an address');
  await look(lea, 're-auth inbox');
  await house.take(settings());
  const { link } = await house.mail('lea@example.com', 1);
  await page.goto(link);
  await page.locator(`#where, ${SIGN_IN}`).first().waitFor();
  await page.locator('#where').waitFor();
  assert.equal(page.url(), `${door}/vault/gold?bar=7`);
  assert.notEqual(await sessionOf(lea), before);
  assert.equal(await ends(), end, 'the session ends when it did before');
  assert.equal((await ask(`${door}/`, { cookie: `${CAST}=${before}` })).status, 401);
});

await step('our own list of sessions asks for it too, and the code leads back', async () => {
  const max = await person('max');
  const other = await person('other');
  const { page } = max;
  await signIn(other, 'max@example.com');
  await signIn(max, 'max@example.com', { seen: 1 });
  await house.take(settings({ session: 'recent_auth = "1s"' }));
  await until('the sign-in is no longer recent', async () => {
    const answer = await page.evaluate(async () => {
      const { csrf_token: token } = await (await fetch('/auth/session')).json();
      return (await fetch('/auth/sessions/none', { method: 'DELETE', headers: { 'x-csrf-token': token } })).headers.get('x-doorward-reason');
    });
    return answer === 're_auth_required';
  });
  await page.goto(`${door}/auth/sessions`);
  await page.getByRole('button', { name: 'End all other sessions' }).click();
  await heading(page, 'Confirm that it is you');
  await page.getByRole('button', { name: 'Send me the mail' }).click();
  await heading(page, 'Check your inbox');
  await house.take(settings());
  const { code } = await house.mail('max@example.com', 2);
  await typeCode(page, code);
  await heading(page, 'Where you are signed in');
  await page.getByRole('button', { name: 'End all other sessions' }).click();
  await until('one session is left', async () => (await page.locator('.entry').count()) === 1);
  await other.page.goto(door);
  assert.match(new URL(other.page.url()).pathname, /\/login$/);
});

await step('an expired link says so, and what to do next', async () => {
  const nic = await person('nic');
  // Long enough for its mail to be handed over before it is too late to be of use.
  await house.take(settings({ login: 'link_ttl = "30s"\ncode_ttl = "30s"' }));
  await withoutGoingOn(nic);
  await askForLink(nic, 'nic@example.com');
  const { link } = await house.mail('nic@example.com');
  await until('the link has expired', async () => {
    await nic.page.waitForTimeout(2000);
    await nic.page.goto(link);
    return nic.page.getByText('link_expired').count();
  });
  await house.take(settings());
  await heading(nic.page, 'This link has expired');
  await look(nic, 'link expired');
  await nic.page.getByRole('link', { name: 'Ask for a new link' }).click();
  await heading(nic.page, 'Sign in');
  await nic.page.goto(`${door}/auth/login/callback?token=nonsense`);
  await heading(nic.page, 'This link does not work');
  await look(nic, 'link invalid');
  await nic.page.goto(`${door}/auth/login/callback`);
  await nic.page.getByRole('link', { name: 'Ask for a new link' }).waitFor();
});

await step('an account that could not be linked says whom to ask', async () => {
  const ola = await person('ola');
  await house.cli('users', 'add', 'ola@example.com');
  // What an earlier sign-in left behind whose license provider named another subject.
  assert.equal(await house.sql("UPDATE users SET link_status = 'mismatch' WHERE email = ?", 'ola@example.com'), 1);
  await withoutGoingOn(ola);
  await askForLink(ola, 'ola@example.com');
  const { link } = await house.mail('ola@example.com');
  await ola.page.goto(link);
  await ola.page.click(SIGN_IN);
  await heading(ola.page, 'This account could not be linked');
  await ola.page.getByText('whoever runs this installation').first().waitFor();
  assert.equal(await sessionOf(ola), undefined);
  await look(ola, 'mismatch');
});

await step('a banned account says so', async () => {
  const pat = await person('pat');
  await withoutGoingOn(pat);
  await askForLink(pat, 'pat@example.com');
  const { link } = await house.mail('pat@example.com');
  await pat.page.goto(link);
  await pat.page.click(SIGN_IN);
  await signedIn(pat.page, 'pat@example.com');
  await house.cli('users', 'ban', 'pat@example.com');
  await until('the session ends', async () => {
    await pat.page.goto(door);
    return /\/login$/.test(new URL(pat.page.url()).pathname);
  });
  await look(pat, 'session over');
  // Who was banned between the mail and the click.
  const sam = await person('sam');
  await withoutGoingOn(sam);
  await house.cli('users', 'add', 'sam@example.com');
  await askForLink(sam, 'sam@example.com');
  const mail = await house.mail('sam@example.com');
  await house.cli('users', 'ban', 'sam@example.com');
  await sam.page.goto(mail.link);
  if (await sam.page.locator(SIGN_IN).count()) await sam.page.click(SIGN_IN);
  await heading(sam.page, 'This account is suspended');
  assert.equal(await sessionOf(sam), undefined);
  await look(sam, 'banned');
});

await step('an old password signs in while the window is open, and not afterwards', async () => {
  const row = JSON.stringify({ email: 'rita@example.com', password_hash: OLD_PASSWORD.hash });
  await house.cli('users', 'import', house.put('people.jsonl', `${row}\n`), '--apply');
  await house.take(settings({ legacy: WINDOW }));
  const rita = await person('rita');
  const { page } = rita;
  await until('the window is open', async () => {
    await page.goto(`${door}/reports`);
    return page.locator('#password').count();
  });
  await look(rita, 'login with password');
  const fill = async (word) => {
    await page.locator('#password-email').fill('rita@example.com');
    await tabTo(page, '#password');
    await page.keyboard.type(word);
    await page.keyboard.press('Enter');
  };
  await fill('not the password');
  await page.getByText('Mail address or password is not right').waitFor();
  await look(rita, 'password wrong');
  await fill(OLD_PASSWORD.word);
  await page.locator('#where', { hasText: '/reports' }).waitFor();
  assert.equal(page.url(), `${door}/reports`);
  // A password proves no mail address: apps are told the account, not the address.
  assert.equal(await page.locator('#who').textContent(), '');

  const late = await person('late');
  await late.page.goto(`${door}/reports`);
  await late.page.locator('#password-email').fill('rita@example.com');
  await late.page.locator('#password').fill(OLD_PASSWORD.word);
  await house.take(settings());
  await late.page.locator('#password').press('Enter');
  await heading(late.page, 'Passwords are no longer used here');
  await look(late, 'password closed');
  await late.page.goto(`${door}/auth/login`);
  assert.equal(await late.page.locator('#password').count(), 0);
  await look(late, 'login');
});

await step('a mail address is changed only by whoever reads the new one', async () => {
  const sue = await person('sue');
  const { page } = sue;
  await signIn(sue, 'sue@example.com');
  await page.goto(`${door}/auth/whoami`);
  await page.getByRole('link', { name: 'Change your mail address' }).click();
  await heading(page, 'Change your mail address');
  await look(sue, 'change email');
  await page.getByLabel('New mail address').fill('susan@example.com');
  await page.getByRole('button', { name: 'Send a link there' }).click();
  await heading(page, 'Check the new inbox');
  await look(sue, 'change asked');
  const { link } = await house.mail('susan@example.com');
  await page.goto(link);
  await heading(page, 'Confirm the new address');
  await look(sue, 'change confirm');
  await page.getByRole('button', { name: 'Use this address' }).click();
  await heading(page, 'Your session');
  await page.getByText('susan@example.com').waitFor();
});

await step('what is not there, and what is not for everybody, has a page', async () => {
  const tom = await person('tom');
  await tom.page.goto(`${door}/auth/nothing`);
  await heading(tom.page, 'There is nothing here');
  await look(tom, 'nothing here');
  await tom.page.goto(`${door}/auth/docs`);
  await heading(tom.page, 'What this door says');
  await look(tom, 'docs');
});

await step('no page made the browser complain, and a page that does is noticed', async () => {
  // The one request that these steps themselves stopped.
  const real = complaints.filter((line) => !/ERR_FAILED \(.*\/go-on\.\w+\.js\)$/.test(line));
  assert.deepEqual(real, []);
  const vic = await person('vic');
  await vic.page.goto(`${door}/auth/login`);
  await vic.page.evaluate(() => document.head.append(Object.assign(document.createElement('style'), { textContent: 'a { color: red }' })));
  await until('the broken policy is noticed', async () => complaints.some((line) => line.startsWith('vic') && /Content Security Policy/.test(line)));
});

await browser.close();
const closed = await house.close();
await step('the house closes when it is told to', async () => assert.deepEqual(closed, { code: 0, signal: null }));

console.log(`shots   ${shots()} pages in ${out}`);
if (results.failed) console.log(`--- output of the server\n${house.output()}`);
console.log(`${results.passed} passed, ${results.failed} failed${results.left ? `, ${results.left} left out` : ''}`);
process.exitCode = results.failed ? 1 : 0;
