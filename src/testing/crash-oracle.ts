/** What must be there after crashes, from what clients said they began and were answered. */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import type { Change, CrashLine } from "./crash-client.ts";

const clientPath = fileURLToPath(new URL("./crash-client.ts", import.meta.url));

/** Codes with which an operation may fail while processes die; anything else is a broken promise. */
const allowedFailures = new Set(["unavailable", "overloaded", "timeout", "under-store", "not-leader"]);

export class CrashOracle {
  /** What is acknowledged: a value, or null for taken away. */
  readonly sure = new Map<string, string | null>();
  /** Changes whose fate nobody knows: each happened whole, or not at all. */
  readonly unknown: Change[] = [];
  /** What should never have been answered. */
  readonly violations: string[] = [];
  /** Every value that was ever begun. */
  readonly values = new Set<string>();
  done = 0;
  failed = 0;

  /** Starts a client. `kill` returns when it is dead and its last line is taken in. */
  startClient(masters: string, life: number, seed: number): { readonly kill: () => Promise<void> } {
    const child = spawn(process.execPath, [clientPath, masters, String(life), String(seed)], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    const open = new Map<number, Change>();
    const lines = createInterface({ input: child.stdout });
    lines.on("line", (text) => this.#take(JSON.parse(text) as CrashLine, open));
    const ended = Promise.all([once(child, "exit"), once(lines, "close")]);
    return {
      kill: async () => {
        child.kill("SIGKILL");
        await ended;
        this.unknown.push(...open.values());
      },
    };
  }

  #take(line: CrashLine, open: Map<number, Change>): void {
    if (line.kind === "begin") {
      open.set(line.id, line.change);
      for (const [, value] of line.change) if (value !== null) this.values.add(value);
      return;
    }
    const change = open.get(line.id) ?? [];
    open.delete(line.id);
    if (line.kind === "failed") {
      this.failed++;
      if (!allowedFailures.has(line.code)) {
        this.violations.push(`${JSON.stringify(change)} failed with ${line.code}: ${line.message}`);
      }
    } else if (line.kind === "unknown") {
      this.unknown.push(change);
    } else {
      this.done++;
      for (const [path, value] of change) this.sure.set(path, value);
    }
  }

  /** Compares with what is there (value by path); what is wrong, in words. */
  check(present: ReadonlyMap<string, string>): string[] {
    const problems = [...this.violations];
    const loose = new Set<string>();
    for (const change of this.unknown) {
      for (const [path] of change) loose.add(path);
      const before = change.every(([path]) => (present.get(path) ?? null) === (this.sure.get(path) ?? null));
      const after = change.every(([path, value]) => (present.get(path) ?? null) === value);
      if (!before && !after) {
        const seen = change.map(([path]) => `${path} is ${present.get(path) ?? "absent"}`);
        problems.push(`${JSON.stringify(change)} happened by half: ${seen.join(", ")}`);
      }
    }
    for (const [path, value] of this.sure) {
      if (loose.has(path) || (present.get(path) ?? null) === value) continue;
      problems.push(`${path} should be ${value ?? "absent"}, is ${present.get(path) ?? "absent"}`);
    }
    for (const path of present.keys()) {
      if (!this.sure.has(path) && !loose.has(path)) problems.push(`${path} was never acknowledged nor asked for`);
    }
    return problems;
  }
}
