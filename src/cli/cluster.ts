/** `cluster status`: masters and workers, as the leader sees them. */

import { formatBytes } from "../base/units.ts";
import { action, type Commands, leaf } from "./command.ts";

export function addCluster({ program, signal }: Commands): void {
  const cluster = program.command("cluster").description("masters and workers");
  leaf(cluster, "status", "masters, workers, journal", "headpond cluster status --json").action(
    action(signal, async (context) => {
      const status = await context.client().cluster({ signal });
      context.output.result(status, () => {
        const { output } = context;
        output.facts([
          ["cluster", `${status.name} (${status.clusterId})`],
          ["journal", `${status.journal}, term ${status.term}`],
          ["leader", status.leader ?? "none"],
          ["namespace", `${status.files} files, ${status.directories} directories`],
        ]);
        output.line();
        output.table(status.masters, [
          { title: "MASTER", value: (row) => row.id },
          { title: "ADDRESS", value: (row) => row.address },
          { title: "ROLE", value: (row) => output.state(row.role) },
          { title: "APPLIED", value: (row) => String(row.appliedIndex), align: "right" },
          { title: "LAG", value: (row) => String(row.lagEntries), align: "right" },
          { title: "DIGEST", value: (row) => row.digest.slice(0, 16) },
        ]);
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
      });
      return 0;
    }),
  );
}
