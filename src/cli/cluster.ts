/** `cluster status|members|add|promote|remove|transfer|drain`: masters and workers, and who the masters are. */

import type { ClusterStatus, MasterStatus } from "../base/cluster.ts";
import { formatHostPort, parseHostPort } from "../base/config.ts";
import { HeadpondError } from "../base/errors.ts";
import { parseMasterId } from "../base/ids.ts";
import { formatBytes } from "../base/units.ts";
import { askMasters } from "./ask-masters.ts";
import { action, type Commands, leaf } from "./command.ts";
import { addDrain } from "./drain.ts";
import { joinAsLearner, promoteWhenLevel } from "./membership.ts";
import type { Column, Output } from "./output.ts";

export function addCluster({ program, signal }: Commands): void {
  const cluster = program.command("cluster").description("masters and workers");
  leaf(cluster, "status", "masters, workers, journal", "headpond cluster status --json").action(
    action(signal, async (context) => {
      const status = await askMasters(context);
      context.output.result(status, () => showStatus(status, context.output));
      return 0;
    }),
  );
  leaf(cluster, "members", "the masters: who votes, who leads, how far each is", "headpond cluster members").action(
    action(signal, async (context) => {
      const { clusterId, leader = null, masters } = await askMasters(context);
      context.output.result({ clusterId, leader, members: masters }, () =>
        context.output.table(masters, memberColumns(context.output)),
      );
      return 0;
    }),
  );
  leaf(
    cluster,
    "add <id> <address>",
    "let a master join that was formatted for it: it learns the log, then votes",
    "headpond cluster add m4 h4:7072",
  )
    .option("--learner", "leave it a learner, which does not vote")
    .action(
      action<[string, string]>(signal, async (context, flags, idText, addressText) => {
        const id = parseMasterId(idText);
        const address = formatHostPort(parseHostPort(addressText));
        const { membership } = context.client();
        const parts = { membership, clock: context.clock, signal, note: (text: string) => context.output.note(text) };
        const added = await joinAsLearner(parts, id, address);
        const learner = flags["learner"] === true;
        const promoted = learner ? false : await promoteWhenLevel(parts, id);
        context.output.result({ id, address, changed: added || promoted, voter: !learner }, () =>
          context.output.line(
            added || promoted
              ? `${id} at ${address} is a ${learner ? "learner" : "voter"} now`
              : `${id} at ${address} is a member already: nothing to do`,
          ),
        );
        return 0;
      }),
    );
  leaf(cluster, "promote <id>", "let a learner vote, once it has caught up", "headpond cluster promote m4").action(
    action<[string]>(signal, async (context, _flags, idText) => {
      const id = parseMasterId(idText);
      const { membership } = context.client();
      const parts = { membership, clock: context.clock, signal, note: (text: string) => context.output.note(text) };
      const changed = await promoteWhenLevel(parts, id);
      context.output.result({ id, changed }, () =>
        context.output.line(changed ? `${id} votes now` : `${id} votes already: nothing to do`),
      );
      return 0;
    }),
  );
  leaf(
    cluster,
    "remove <id>",
    "take a master out, for good: its id is not used again",
    "headpond cluster remove m2",
  ).action(
    action<[string]>(signal, async (context, _flags, idText) => {
      const id = parseMasterId(idText);
      const { membership } = context.client();
      const { members } = await membership.members({ signal });
      if (!members.some((member) => member.id === id)) {
        const known = members.map((member) => member.id).join(", ");
        throw new HeadpondError("not-found", `${id} is no member of the cluster: there are ${known}`);
      }
      await membership.remove(id, { signal });
      context.output.result({ id, changed: true }, () =>
        context.output.line(`${id} is no member any more: stop it if it still runs, and erase its directory`),
      );
      return 0;
    }),
  );
  leaf(
    cluster,
    "transfer [id]",
    "hand leadership to another master, e.g. before the leader is restarted",
    "headpond cluster transfer m2",
  ).action(
    action<[string | undefined]>(signal, async (context, _flags, idText) => {
      const id = idText === undefined ? undefined : parseMasterId(idText);
      const startMs = context.clock.monotonicMs();
      const leader = await context.client().membership.transfer(id, { signal });
      const durationMs = Math.round(context.clock.monotonicMs() - startMs);
      context.output.result({ leader: leader ?? null, durationMs }, () =>
        context.output.line(`${leader ?? "another master"} leads now`),
      );
      return 0;
    }),
  );
  addDrain(cluster, signal);
}

function showStatus(status: ClusterStatus, output: Output): void {
  output.facts([
    ["cluster", `${status.name} (${status.clusterId})`],
    ["journal", `${status.journal}, term ${status.term}`],
    ["leader", status.leader ?? "none"],
    ["namespace", `${status.files} files, ${status.directories} directories`],
  ]);
  output.line();
  output.table(status.masters, memberColumns(output));
  output.line();
  output.table(status.workers, [
    { title: "WORKER", value: (row) => row.id },
    { title: "PLACE", value: (row) => row.place },
    { title: "STATE", value: (row) => output.state(row.state) },
    { title: "USED", value: (row) => formatBytes(row.usedBytes), align: "right" },
    { title: "CAPACITY", value: (row) => formatBytes(row.capacityBytes), align: "right" },
    { title: "FILES", value: (row) => String(row.files), align: "right" },
    { title: "PROBLEMS", value: (row) => row.problems.join("; ") },
  ]);
}

function memberColumns(output: Output): readonly Column<MasterStatus>[] {
  return [
    { title: "MASTER", value: (row) => row.id },
    { title: "ADDRESS", value: (row) => row.address },
    { title: "ROLE", value: (row) => output.state(roleOf(row)) },
    { title: "APPLIED", value: (row) => String(row.appliedIndex), align: "right" },
    { title: "LAG", value: (row) => String(row.lagEntries), align: "right" },
    { title: "DIGEST", value: (row) => (row.digest === "" ? "-" : row.digest.slice(0, 16)) },
  ];
}

function roleOf({ reachable, role, voter }: MasterStatus): string {
  if (reachable === false) return "unreachable";
  return role === "standby" && !voter ? "learner" : role;
}
