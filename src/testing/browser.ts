/** A real browser without a window (Debian's chromium): loads a page, lets its scripts run, and tells what came of it. */

import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** A browser that does not end by itself is killed. */
const browserTimeoutMs = 60_000;
/** How long the page's scripts may run. */
const pageTimeMs = 3000;

/** Whether there is a browser, for tests that skip by name where there is none. */
export async function findBrowser(): Promise<string | undefined> {
  for (const name of ["chromium", "chromium-browser", "google-chrome"]) {
    const found = await new Promise<boolean>((done) => {
      const child = spawn(name, ["--version"], { stdio: "ignore" });
      child.once("error", () => done(false));
      child.once("exit", (code) => done(code === 0));
    });
    if (found) return name;
  }
  return undefined;
}

/** The document of `url` after its scripts have run, as HTML. */
export async function renderPage(browser: string, url: string): Promise<string> {
  const profile = await mkdtemp(join(tmpdir(), "headpond-browser-"));
  try {
    const child = spawn(
      browser,
      [
        ...["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"],
        ...["--disable-background-networking", "--disable-component-update", "--disable-sync"],
        ...[`--user-data-dir=${profile}`, `--timeout=${pageTimeMs}`, "--dump-dom", url],
      ],
      { stdio: ["ignore", "pipe", "ignore"] },
    );
    const timer = setTimeout(() => child.kill("SIGKILL"), browserTimeoutMs);
    let html = "";
    for await (const chunk of child.stdout) html += String(chunk);
    clearTimeout(timer);
    return html;
  } finally {
    await rm(profile, { recursive: true, force: true, maxRetries: 10 });
  }
}
