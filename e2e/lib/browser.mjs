// A real browser, with the checks that every page has to pass.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { chromium } from 'playwright-core';

const axeSource = fs.readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

/** Starts Chromium; `folder` takes the screenshots. */
export async function startBrowser(folder) {
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: ['--no-sandbox', '--disable-dev-shm-usage', '--disable-gpu'],
  });
  const complaints = [];
  let shots = 0;

  /** A person with a browser of their own: own cookies, nothing remembered. */
  async function person(name, options = {}) {
    const context = await browser.newContext({ viewport: { width: 1000, height: 760 }, ...options });
    context.setDefaultTimeout(60_000);
    const page = await context.newPage();
    page.on('pageerror', (error) => complaints.push(`${name}: ${error.message}`));
    page.on('console', (message) => {
      // A page that is a refusal is logged as a resource that failed; that is what was asked for.
      if (message.type() === 'error' && !/^Failed to load resource: .* status of 4\d\d/.test(message.text())) {
        complaints.push(`${name} at ${page.url()}: ${message.text()} (${message.location().url})`);
      }
    });
    return { name, context, page };
  }

  /**
   * Takes pictures and checks what a machine can check: accessibility, overflow, inline code. Twice: as it stands
   * on a desk in the light, and on a narrow telephone (320 px) in the dark.
   */
  async function look({ name, page }, title) {
    shots += 1;
    const file = `${String(shots).padStart(2, '0')}-${name}-${title}`.replaceAll(' ', '-');
    const usual = page.viewportSize();
    for (const [scheme, size] of [['light', usual], ['dark', { width: 320, height: 640 }]]) {
      await page.emulateMedia({ colorScheme: scheme });
      await page.setViewportSize(size);
      await check(page, `${file}-${scheme}.png`, scheme);
    }
    await page.emulateMedia({ colorScheme: null });
    await page.setViewportSize(usual);
  }

  async function check(page, file, scheme) {
    // Before the picture: taking it puts a style into the page, and leaves an empty attribute on its fields.
    const facts = await page.evaluate(() => ({
      over: document.documentElement.scrollWidth - window.innerWidth,
      lang: document.documentElement.lang,
      title: document.title,
      inline: [...document.querySelectorAll('style, [style]:not([style=""]), script:not([src])')].map((found) => found.outerHTML),
      ground: getComputedStyle(document.querySelector('.card')).backgroundColor,
    }));
    await page.screenshot({ path: path.join(folder, file), fullPage: true });
    assert.ok(facts.over <= 0, `${file}: ${facts.over} px too wide`);
    assert.equal(facts.lang, 'en', file);
    assert.match(facts.title, /\S/, file);
    assert.deepEqual(facts.inline, [], `${file}: inline style or script`);
    const isDark = facts.ground.match(/\d+/g).slice(0, 3).every((part) => Number(part) < 64);
    assert.equal(isDark, scheme === 'dark', `${file}: the card is ${facts.ground}`);
    // Through the debugger, not through the page: the pages' policy admits no script but their own.
    const violations = await page.evaluate(`${axeSource}; axe.run().then(({ violations }) =>
      violations.map(({ id, nodes }) => id + ': ' + nodes.map(({ target }) => target.join(' ')).join(', ')))`);
    assert.deepEqual(violations, [], `${file}: axe`);
  }

  /** What every open page shows, for the report of a step that failed. */
  async function shown() {
    const pages = browser.contexts().flatMap((context) => context.pages());
    const texts = pages.map(async (page) => `${page.url()}\n${await page.locator('body').innerText({ timeout: 1000 })}`.slice(0, 1500));
    return (await Promise.all(texts.map((text) => text.catch(String)))).join('\n---\n');
  }

  return { browser, shown, person, look, complaints, shots: () => shots };
}

/** Presses Tab until the element has the focus, and checks that the focus can be seen. */
export async function tabTo(page, selector) {
  const wanted = page.locator(selector);
  await wanted.waitFor();
  const has = () => wanted.evaluate((element) => element === document.activeElement);
  for (let presses = 0; !(await has()); presses += 1) {
    assert.ok(presses < 40, `Tab does not reach ${selector} on ${page.url()}`);
    await page.keyboard.press('Tab');
  }
  const outline = await wanted.evaluate((element) => {
    const { outlineStyle, outlineWidth } = getComputedStyle(element);
    return { outlineStyle, width: Number.parseFloat(outlineWidth) };
  });
  assert.ok(outline.outlineStyle !== 'none' && outline.width >= 2, `the focus on ${selector} cannot be seen`);
}
