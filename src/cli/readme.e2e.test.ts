/** The README's own examples: each `$` line of its console blocks runs, in order, in one shell, and must end with 0. */

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { access, mkdtemp, readFile, rm, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { pythonClient } from "../testing/hf-clients.ts";
import { freePortBlock } from "./role-process.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));
const client = await pythonClient("hf-2.4.0", ["huggingface_hub==2.4.0"]);
const hub = "bin" in client ? client.bin : undefined;

test("the README's commands do what it says", { timeout: 180_000 }, async (t) => {
  const readme = await readFile(join(root, "README.md"), "utf8");
  const commands = [...readme.matchAll(/```console\n([\s\S]*?)```/g)]
    .flatMap((block) => (block[1] ?? "").split("\n"))
    .filter((line) => line.startsWith("$ "))
    .map((line) => line.slice(2));
  assert.ok(commands.length > 10, "there are examples");

  const directory = await mkdtemp(join(tmpdir(), "headpond-readme-"));
  // The README's ports (70xx) may be taken here: everything moves to a base that is free.
  const portBase = await freePortBlock(40);
  const here = (command: string): string =>
    command
      .replace("bin/headpond up", `bin/headpond up --port-base ${portBase}`)
      .replace(/127\.0\.0\.1:70(\d\d)/g, (_, digits: string) => `127.0.0.1:${portBase + Number(digits) - 70}`);
  const lines = [
    "set -e",
    `export PATH=${dirname(process.execPath)}:$PATH`,
    `export HEADPOND_MASTERS=127.0.0.1:${portBase}`,
  ];
  const wanted = (command: string): boolean => hub !== undefined || !/hf download|from-hub/.test(command);
  for (const command of commands.map(here)) {
    if (!wanted(command)) {
      t.diagnostic(`skipped, no Hugging Face client here: ${command}`);
      continue;
    }
    lines.push(`echo '== ${command.replaceAll("'", "")}'`);
    if (command.endsWith("&")) lines.push(`${command.slice(0, -1)} > up.log 2>&1 & up=$!`, waitUntilReady);
    else lines.push(command);
  }
  lines.push("kill -INT $up", "wait $up");
  try {
    await symlink(join(root, "bin"), join(directory, "bin"));
    const child = spawn("bash", ["-c", lines.join("\n")], {
      cwd: directory,
      env: {
        ...process.env,
        NO_COLOR: "1",
        HF_HOME: join(directory, "hf-home"),
        ...(hub === undefined ? {} : { PATH: `${hub}:${process.env["PATH"]}` }),
      },
      stdio: ["ignore", "pipe", "pipe"],
      detached: true,
    });
    let output = "";
    child.stdout.on("data", (chunk: Buffer) => (output += chunk.toString()));
    child.stderr.on("data", (chunk: Buffer) => (output += chunk.toString()));
    const code = await new Promise<number | null>((done) => child.once("close", done));
    if (code !== 0) {
      try {
        process.kill(-(child.pid as number), "SIGKILL");
      } catch {
        // Everything that it started has ended already.
      }
    }
    const log = await readFile(join(directory, "up.log"), "utf8").catch(() => "");
    assert.equal(code, 0, `${output}\n${log}`);
    assert.match(output, /origin \/ unique bytes\s+1\.00/);
    assert.match(output, /READY/);
    await access(join(directory, "copy.safetensors"));
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
});

/** The process that the README puts into the background says when it is ready. */
const waitUntilReady = `for i in $(seq 300); do grep -q '^ready' up.log && break; sleep 0.1; done; grep -q '^ready' up.log`;
