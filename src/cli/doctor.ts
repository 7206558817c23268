/** `doctor`: looks for what commonly goes wrong, here and in the cluster, and says what to do about it. */

import type { ClusterStatus, MasterStatus } from "../base/cluster.ts";
import { toHeadpondError } from "../base/errors.ts";
import { formatBytes, GiB } from "../base/units.ts";
import { connect } from "../client/client.ts";
import type { JournalStatus } from "../journal/journal.ts";
import { askMasters, askTimeoutMs } from "./ask-masters.ts";
import { action, type Commands, leaf } from "./command.ts";
import type { Context } from "./context.ts";
import { version } from "./version.ts";

type Finding = {
  readonly check: string;
  readonly state: "ok" | "warning" | "problem";
  readonly message: string;
};

const nodeMajorMin = 24;
const clockSkewMsMax = 500;
const freeBytesMin = 2 * GiB;
/** Beyond, a master would take seconds to be able to lead. */
const lagEntriesMax = 100_000;

export function addDoctor({ program, signal }: Commands): void {
  leaf(program, "doctor", "look for common trouble and say what to do", "headpond doctor").action(
    action(signal, async (context) => {
      const findings = [checkNode(), checkConfig(context), ...(await checkCluster(context))];
      context.output.result(findings, () =>
        context.output.table(findings, [
          { title: "CHECK", value: (row) => row.check },
          { title: "STATE", value: (row) => context.output.state(row.state) },
          { title: "", value: (row) => row.message },
        ]),
      );
      return findings.some((finding) => finding.state === "problem") ? 1 : 0;
    }),
  );
}

function checkNode(): Finding {
  const major = Number(process.versions.node.split(".")[0]);
  return major >= nodeMajorMin
    ? { check: "node", state: "ok", message: process.version }
    : {
        check: "node",
        state: "problem",
        message: `${process.version} is too old: install Node ${nodeMajorMin} or newer`,
      };
}

function checkConfig(context: Context): Finding {
  try {
    context.loadConfig();
    return { check: "configuration", state: "ok", message: "readable, no unknown keys" };
  } catch (error) {
    return { check: "configuration", state: "problem", message: toHeadpondError(error).message };
  }
}

async function checkCluster(context: Context): Promise<Finding[]> {
  const findings: Finding[] = [];
  try {
    const status = await askMasters(context);
    for (const master of status.masters) findings.push(...(await checkMaster(context, master, status.masters.length)));
    // One master alone goes on where the log is in shared storage; elsewhere it takes a majority.
    if (status.masters.length > 1 && status.journal !== "zookeeper") findings.push(checkVoters(status));
    if (status.masters.length > 1) findings.push(checkStates(status));
    const lost = status.workers.filter((worker) => worker.state === "lost");
    findings.push(
      status.workers.length === 0
        ? { check: "workers", state: "warning", message: "none: start one with `headpond worker --config FILE`" }
        : lost.length > 0
          ? { check: "workers", state: "problem", message: `lost: ${lost.map((worker) => worker.id).join(", ")}` }
          : { check: "workers", state: "ok", message: `${status.workers.length} live` },
    );
    for (const worker of status.workers) {
      for (const problem of worker.problems)
        findings.push({ check: `worker ${worker.id}`, state: "problem", message: problem });
    }
  } catch (error) {
    const known = toHeadpondError(error);
    findings.push({
      check: "master",
      state: "problem",
      message: `${context.masters().join(", ")}: ${known.message} (${known.code})`,
    });
  }
  return findings;
}

/** One master of `count`: by its own word. */
async function checkMaster(context: Context, master: MasterStatus, count: number): Promise<Finding[]> {
  const { signal, clock } = context;
  const name = count === 1 ? "master" : `master ${master.id}`;
  if (master.reachable === false) {
    const message = `${master.address} does not answer: start it, or replace it (docs/operations.md)`;
    return [{ check: name, state: "problem", message }];
  }
  const client =
    count === 1 ? context.client() : connect({ masters: [master.address], follow: false, timeoutMs: askTimeoutMs });
  try {
    const beganMs = clock.monotonicMs();
    const server = await client.serverInfo({ signal });
    const roundTripMs = clock.monotonicMs() - beganMs;
    const journal = await client.journalStatus({ signal });
    const skewMs = Math.round(Math.abs(server.wallMs + roundTripMs / 2 - clock.wallMs()));
    return [
      { check: name, state: "ok", message: `answers in ${roundTripMs.toFixed(1)} ms` },
      server.version === version
        ? { check: `${name}: version`, state: "ok", message: version }
        : { check: `${name}: version`, state: "warning", message: `${server.version}, this program ${version}` },
      skewMs <= clockSkewMsMax
        ? { check: `${name}: clock`, state: "ok", message: `${skewMs} ms apart` }
        : {
            check: `${name}: clock`,
            state: "warning",
            message: `${skewMs} ms apart: run a time service on both machines`,
          },
      server.freeBytes >= freeBytesMin
        ? { check: `${name}: disk`, state: "ok", message: `${formatBytes(server.freeBytes)} free` }
        : {
            check: `${name}: disk`,
            state: "problem",
            message: `only ${formatBytes(server.freeBytes)} free in ${server.directory}: make room, or the journal stops`,
          },
      ...checkElection(name, journal.election),
      ...(master.lagEntries <= lagEntriesMax
        ? []
        : [
            {
              check: `${name}: lag`,
              state: "warning" as const,
              message: `${master.lagEntries} entries behind: is its disk or network slower than the others'?`,
            },
          ]),
    ];
  } catch (error) {
    if (count === 1) throw error;
    return [{ check: name, state: "problem", message: `${master.address}: ${toHeadpondError(error).message}` }];
  } finally {
    if (count > 1) await client.close();
  }
}

/** Of a master whose journal has its primary elected by ZooKeeper. */
function checkElection(name: string, election: JournalStatus["election"]): Finding[] {
  if (election === undefined) return [];
  const check = `${name}: election`;
  const { connected, candidates, problem } = election;
  if (problem !== undefined) return [{ check, state: "problem", message: problem }];
  if (!connected) {
    const message =
      "ZooKeeper does not answer: a primary goes on, nobody else can become one: look at journal.zookeeper.servers";
    return [{ check, state: "problem", message }];
  }
  if (candidates > 1) return [{ check, state: "ok", message: `${candidates} masters take part` }];
  return [{ check, state: "warning", message: "nobody else takes part: start a second master" }];
}

/** Whether a majority lives, and whether it would without one more. */
function checkVoters({ masters }: ClusterStatus): Finding {
  const voters = masters.filter(({ voter }) => voter);
  const live = voters.filter(({ reachable }) => reachable !== false).length;
  const majority = Math.floor(voters.length / 2) + 1;
  const message = `${live} of ${voters.length} live, ${majority} decide`;
  if (live < majority) return { check: "voters", state: "problem", message: `${message}: nothing can be changed` };
  if (live > majority) return { check: "voters", state: "ok", message };
  const advice = live < voters.length ? "bring back or replace the dead one" : "add one more master";
  return { check: "voters", state: "warning", message: `${message}: the loss of one more stops changes, ${advice}` };
}

/** Masters that have applied the same entries have the same state. */
function checkStates({ masters }: ClusterStatus): Finding {
  const known = masters.filter(({ digest, digestIndex, reachable }) => {
    return reachable !== false && digest !== "" && digestIndex !== undefined;
  });
  const byIndex = Map.groupBy(known, ({ digestIndex }) => digestIndex);
  for (const [index, rows] of byIndex) {
    if (new Set(rows.map(({ digest }) => digest)).size < 2) continue;
    const shown = rows.map(({ id, digest }) => `${id} ${digest}`).join(", ");
    return { check: "states", state: "problem", message: `they differ at entry ${index}: ${shown}` };
  }
  return { check: "states", state: "ok", message: "the same where the same entries are applied" };
}
