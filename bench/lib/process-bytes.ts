/**
 * What processes have written to disks and sent over sockets so far, by the kernel's counts. Bytes for disks count when pages are
 * dirtied (`/proc/PID/io`), whole pages, so small writes cost 4 KiB. Sockets that have closed since are forgotten: fit for
 * connections that stay.
 */

import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";

export type ProcessBytes = { readonly written: number; readonly sent: number };

/** Undefined where the kernel or the tool `ss` (iproute2) does not say. */
export function processBytes(pids: readonly number[]): ProcessBytes | undefined {
  try {
    let written = 0;
    for (const pid of pids) {
      written += Number(/^write_bytes: ([0-9]+)$/m.exec(readFileSync(`/proc/${pid}/io`, "utf8"))?.[1]);
    }
    const table = execFileSync("ss", ["-H", "-t", "-n", "-i", "-p", "-O"], { encoding: "utf8", maxBuffer: 2 ** 26 });
    const wanted = new Set(pids.map(String));
    let sent = 0;
    for (const line of table.split("\n")) {
      if (!wanted.has(/pid=([0-9]+)/.exec(line)?.[1] ?? "")) continue;
      sent += Number(/bytes_sent:([0-9]+)/.exec(line)?.[1] ?? 0);
    }
    return { written, sent };
  } catch {
    return undefined;
  }
}
