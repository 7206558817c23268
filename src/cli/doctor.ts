/** `doctor`: looks for what commonly goes wrong, here and in the cluster, and says what to do about it. */

import { toHeadpondError } from "../base/errors.ts";
import { formatBytes, GiB } from "../base/units.ts";
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
  const { signal } = context;
  try {
    const client = context.client();
    const beganMs = context.clock.monotonicMs();
    const server = await client.serverInfo({ signal });
    const roundTripMs = context.clock.monotonicMs() - beganMs;
    const skewMs = Math.round(Math.abs(server.wallMs + roundTripMs / 2 - context.clock.wallMs()));
    findings.push(
      { check: "master", state: "ok", message: `answers in ${roundTripMs.toFixed(1)} ms` },
      server.version === version
        ? { check: "versions", state: "ok", message: version }
        : { check: "versions", state: "warning", message: `master ${server.version}, this program ${version}` },
      skewMs <= clockSkewMsMax
        ? { check: "clocks", state: "ok", message: `${skewMs} ms apart` }
        : { check: "clocks", state: "warning", message: `${skewMs} ms apart: run a time service on both machines` },
      server.freeBytes >= freeBytesMin
        ? { check: "master disk", state: "ok", message: `${formatBytes(server.freeBytes)} free` }
        : {
            check: "master disk",
            state: "problem",
            message: `only ${formatBytes(server.freeBytes)} free in ${server.directory}: make room, or the journal stops`,
          },
    );
    const status = await client.cluster({ signal });
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
