/** The master's page for people with a browser: one HTML document, no script, nothing from elsewhere, refreshed by itself. */

import type { ClusterStatus, JobStatus, MasterStatus, ModelStatus } from "../base/cluster.ts";
import type { MountInfo } from "../base/file.ts";
import { formatBytes, formatDuration } from "../base/units.ts";

export type StatusPageData = {
  readonly cluster: ClusterStatus;
  readonly mounts: readonly MountInfo[];
  readonly jobs: readonly JobStatus[];
  readonly models: readonly ModelStatus[];
  /** Why this master cannot serve, if it cannot. */
  readonly notReady: string | undefined;
  readonly nowMs: number;
};

const refreshSeconds = 2;

export function statusPage(data: StatusPageData): string {
  const { cluster } = data;
  const live = cluster.workers.filter(({ state }) => state === "live").length;
  const head = [
    `${cluster.journal} journal, term ${cluster.term}`,
    `${cluster.files} files, ${cluster.directories} directories`,
    `${live} of ${cluster.workers.length} workers live`,
  ];
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="${refreshSeconds}">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>Headpond ${text(cluster.name)}</title>
<style>
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem;color:#1b2733;background:#fff}
table{border-collapse:collapse;width:100%;margin:.3rem 0 1.5rem}td,th{padding:.25rem .7rem;text-align:left;border-bottom:1px solid #d7dee5}
th{font-weight:600;color:#5a6b7b}.n{text-align:right;font-variant-numeric:tabular-nums}.good{color:#12733a}.bad{color:#b3261e}.some{color:#8a5a00}
h1{margin-bottom:0}h2{margin:0;font-size:1.1rem}p{color:#5a6b7b;margin-top:.2rem}
@media(prefers-color-scheme:dark){body{color:#dde6ee;background:#12181e}td,th{border-color:#2b3742}.good{color:#6fd08c}.bad{color:#ff8a80}.some{color:#f0c060}}
</style></head><body>
<h1>Headpond ${text(cluster.name)}</h1>
<p>${head.map(text).join(" &middot; ")}</p>
${data.notReady === undefined ? "" : `<p class="bad">Not ready: ${text(data.notReady)}</p>`}
${table(
  "Masters",
  ["id", "address", "role", "applied", "behind", "digest"],
  cluster.masters.map((master) => [
    text(master.id),
    master.http === undefined ? text(master.address) : link(master.http, master.address),
    masterRole(master),
    number(master.appliedIndex),
    number(master.lagEntries),
    text(master.digest.slice(0, 16)),
  ]),
)}
${table(
  "Workers",
  ["id", "place", "state", "used", "capacity", "files", "read from stores", "trouble"],
  cluster.workers.map((worker) => [
    text(worker.id),
    text(worker.place),
    coloured(worker.state, worker.state === "live" ? "good" : worker.state === "lost" ? "bad" : "some"),
    bytes(worker.usedBytes),
    bytes(worker.capacityBytes),
    number(worker.files),
    bytes(worker.originBytes),
    worker.problems.length === 0 ? "" : coloured(worker.problems.join("; "), "bad"),
  ]),
)}
${table(
  "Models",
  ["path", "version", "size", "where"],
  data.models.map((model) => [
    text(model.path),
    text(model.version.slice(0, 12)),
    bytes(model.bytes),
    model.places
      .map(({ worker, state }) => coloured(`${worker} ${state}`, state === "READY" ? "good" : "some"))
      .join(", "),
  ]),
)}
${table(
  "Jobs",
  ["id", "path", "to", "state", "done", "rate", "efficiency", "left", "origin", "failed"],
  data.jobs.map((job) => [
    text(String(job.id)),
    text(job.path),
    text(job.to),
    coloured(job.state, job.state === "succeeded" ? "good" : job.state === "running" ? "some" : "bad"),
    `<td class="n">${text(`${formatBytes(job.bytesDone)} of ${formatBytes(job.bytesTotal)}`)}</td>`,
    `<td class="n">${text(`${formatBytes(job.rate)}/s`)}</td>`,
    number(Math.round(job.efficiency * 100) / 100),
    text(job.state === "running" && job.etaSeconds !== undefined ? formatDuration(job.etaSeconds * 1000) : ""),
    number(Math.round(job.originAmplification * 1000) / 1000),
    number(job.failed.length),
  ]),
)}
${table(
  "Mounts",
  ["path", "under store", "access"],
  data.mounts.map((mount) => [
    text(mount.path),
    text(mount.uri),
    text(mount.readOnly ? "read only" : "read and write"),
  ]),
)}
<p>${text(new Date(data.nowMs).toISOString())}</p>
</body></html>
`;
}

function table(title: string, columns: readonly string[], rows: readonly (readonly string[])[]): string {
  const body = rows
    .map((cells) => `<tr>${cells.map((cell) => (cell.startsWith("<td") ? cell : `<td>${cell}</td>`)).join("")}</tr>`)
    .join("\n");
  const nothing = `<tr><td colspan="${columns.length}">none</td></tr>`;
  return `<h2>${text(title)}</h2><table><tr>${columns.map((name) => `<th>${text(name)}</th>`).join("")}</tr>
${body === "" ? nothing : body}</table>`;
}

function masterRole({ role, voter, reachable }: MasterStatus): string {
  if (reachable === false) return coloured("unreachable", "bad");
  if (role === "leader") return coloured("leader", "good");
  return text(voter ? "standby" : "learner");
}

/** To the page of another master. */
function link(http: string, shown: string): string {
  return `<a href="//${text(http)}/">${text(shown)}</a>`;
}

function coloured(value: string, colour: "good" | "bad" | "some"): string {
  return `<span class="${colour}">${text(value)}</span>`;
}

function number(value: number): string {
  return `<td class="n">${value}</td>`;
}

function bytes(value: number): string {
  return `<td class="n" title="${value} bytes">${text(formatBytes(value))}</td>`;
}

/** Names come from anywhere: nothing of them may become markup. */
function text(value: string): string {
  return value.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;");
}
