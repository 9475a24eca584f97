// Drives Chromium for tests: a line of JSON on standard input is a job, a line on standard output its result.
//
// A job names a context in "context" (made where it is new; "settings" are Playwright's for it) and a verb in "do".
// Besides its own result every answer has what the context's pages have complained of since the last one:
// "violations" of a Content-Security-Policy, "errors" of scripts and the console, and "requests" by method, URL,
// status and range.
import { createInterface } from 'node:readline'

import { chromium } from 'playwright-core'

const [executablePath, ...args] = process.argv.slice(2)
const browser = await chromium.launch({ executablePath, args, chromiumSandbox: false })
const contexts = new Map()

async function contextOf ({ context: name, settings }) {
  const known = contexts.get(name)
  if (known !== undefined) return known
  const context = await browser.newContext(settings)
  context.setDefaultTimeout(15_000)
  const made = { context, page: null, violations: [], errors: [], requests: [] }
  contexts.set(name, made)
  await context.exposeBinding('reportViolation', (_, said) => { made.violations.push(said) })
  await context.addInitScript(() => {
    document.addEventListener('securitypolicyviolation', (event) => {
      window.reportViolation(`${event.violatedDirective} ${event.blockedURI} ${event.sample}`)
    })
  })
  context.on('console', (message) => {
    if (message.type() === 'error') made.errors.push(message.text())
  })
  context.on('weberror', (event) => made.errors.push(String(event.error())))
  context.on('response', async (response) => {
    const headers = response.request().headers()
    made.requests.push({
      method: response.request().method(), url: response.url(), status: response.status(), range: headers.range ?? null
    })
  })
  made.page = await context.newPage()
  return made
}

const verbs = {
  // Goes to a URL as if it was typed.
  async open ({ page }, { url }) {
    const response = await page.goto(url, { waitUntil: 'load' })
    return { status: response?.status() ?? null, headers: await response?.allHeaders(), url: page.url(), title: await page.title() }
  },
  // Runs a function's body in the page; its value is the result.
  async run ({ page }, { body, argument }) {
    const value = await page.evaluate(`(async (argument) => { ${body} })(${JSON.stringify(argument ?? null)})`)
    return { value, url: page.url(), title: await page.title() }
  },
  // Clicks what has this role and name, and waits where that leads.
  async click ({ page }, { role, name, exact }) {
    await page.getByRole(role, { name, exact }).first().click()
    await page.waitForLoadState('load')
    return { url: page.url(), title: await page.title() }
  },
  // Presses keys one after the other.
  async press ({ page }, { keys }) {
    for (const key of keys) await page.keyboard.press(key)
    await page.waitForLoadState('load')
    return { url: page.url(), title: await page.title() }
  },
  // Waits until the page is at a URL that fits a pattern.
  async wait ({ page }, { url }) {
    await page.waitForURL(url)
    return { title: await page.title() }
  },
  async see ({ page }, { role, name, exact }) {
    const found = page.getByRole(role, { name, exact })
    return { count: await found.count(), texts: await found.allInnerTexts() }
  },
  async text ({ page }) {
    return { text: await page.locator('body').innerText(), url: page.url(), title: await page.title() }
  },
  async screenshot ({ page }, { path }) {
    await page.screenshot({ path, fullPage: false })
    return {}
  },
  // Runs a function's body that begins a download.
  async download ({ page }, { body }) {
    const [download] = await Promise.all([
      page.waitForEvent('download'),
      page.evaluate(body)
    ])
    return { name: download.suggestedFilename(), path: await download.path(), failure: await download.failure() }
  },
  async cookies ({ context }) {
    return { cookies: await context.cookies() }
  },
  async close ({ context }, { context: name }) {
    contexts.delete(name)
    await context.close()
    return {}
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  const job = JSON.parse(line)
  let result
  try {
    const made = await contextOf(job)
    result = await verbs[job.do](made, job)
    for (const kind of ['violations', 'errors', 'requests']) result[kind] = made[kind].splice(0)
  } catch (error) {
    result = { error: String(error.stack ?? error) }
  }
  process.stdout.write(`${JSON.stringify(result)}\n`)
}
await browser.close()
