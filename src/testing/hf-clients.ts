/**
 * The real Hugging Face clients for tests: each version in a virtual environment of its own under `.cache/`, made once.
 * Where there is no Python, or nothing can be installed, the reason is answered, for a test to skip by name.
 */

import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

const cacheDirectory = fileURLToPath(new URL("../../.cache/", import.meta.url));

export type PythonClient = { readonly bin: string } | { readonly missing: string };

/** `requirements` as pip takes them, installed as `.cache/<name>`. */
export async function pythonClient(name: string, requirements: readonly string[]): Promise<PythonClient> {
  const directory = path.join(cacheDirectory, name);
  const bin = path.join(directory, "bin");
  const mark = path.join(directory, ".installed");
  if (existsSync(mark)) return { bin };
  mkdirSync(cacheDirectory, { recursive: true });
  rmSync(directory, { recursive: true, force: true });
  const pip = ["install", "--quiet", "--disable-pip-version-check", "--no-input", ...requirements];
  const steps: readonly (readonly [string, readonly string[]])[] = [
    ["python3", ["-m", "venv", directory]],
    [path.join(bin, "pip"), pip],
  ];
  for (const [command, args] of steps) {
    const { exitCode, stderr } = await run(command, args, { timeoutMs: 300_000 });
    if (exitCode === 0) continue;
    const why = stderr.trim().split("\n").at(-1) ?? "";
    return { missing: `${command} ${args[0]} failed (${exitCode}): ${why}` };
  }
  writeFileSync(mark, "");
  return { bin };
}

export type RunResult = { readonly exitCode: number; readonly stdout: string; readonly stderr: string };

/** Runs to the end, or to `timeoutMs`, after which it is killed. */
export function run(
  command: string,
  args: readonly string[],
  options: { readonly env?: Readonly<Record<string, string>>; readonly timeoutMs?: number } = {},
): Promise<RunResult> {
  return new Promise((resolve) => {
    const env = options.env === undefined ? process.env : { ...process.env, ...options.env };
    const child = spawn(command, [...args], { env, stdio: ["ignore", "pipe", "pipe"] });
    let stdout = "";
    let stderr = "";
    child.stdout.on("data", (chunk: Buffer) => (stdout += chunk));
    child.stderr.on("data", (chunk: Buffer) => (stderr += chunk));
    const timer = setTimeout(() => child.kill("SIGKILL"), options.timeoutMs ?? 60_000);
    const end = (exitCode: number, more = ""): void => {
      clearTimeout(timer);
      resolve({ exitCode, stdout, stderr: stderr + more });
    };
    child.on("error", (error) => end(-1, error.message));
    child.on("close", (code, signal) => end(code ?? -1, signal === null ? "" : `killed by ${signal}`));
  });
}

/** The surroundings of a client that has never run before and knows no other hub. */
export function clientEnvironment(endpoint: string, home: string): Record<string, string> {
  return {
    HF_ENDPOINT: endpoint,
    HF_HOME: home,
    HF_TOKEN: "",
    HF_HUB_DISABLE_TELEMETRY: "1",
    HF_HUB_DISABLE_PROGRESS_BARS: "1",
    HF_HUB_OFFLINE: "",
    NO_PROXY: "127.0.0.1",
    no_proxy: "127.0.0.1",
    PYTHONDONTWRITEBYTECODE: "1",
  };
}

/** SHA-256 of every file below `directory`, links followed, by relative path. */
export function digestsBelow(directory: string): Record<string, string> {
  const result: Record<string, string> = {};
  const visit = (relative: string): void => {
    for (const name of readdirSync(path.join(directory, relative)).sort()) {
      const child = path.join(relative, name);
      if (statSync(path.join(directory, child)).isDirectory()) visit(child);
      else result[child] = sha256(readFileSync(path.join(directory, child)));
    }
  };
  visit("");
  return result;
}

export function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}
