/** `format`: initialises a master's journal. A directory that holds one already is emptied only if its cluster id is typed. */

import { randomUUID } from "node:crypto";
import type { ClusterId } from "../base/ids.ts";
import { NodeDisk } from "../io/node-disk.ts";
import { action, type Commands, leaf } from "./command.ts";

export function addFormat({ program, signal }: Commands): void {
  leaf(program, "format", "initialise a master's directory", "headpond format --config headpond.yaml")
    .option("--dir <directory>", "instead of master.dir")
    .option("--erase <cluster-id>", "erase what is there; the id must be the one of the cluster that is erased")
    .action(
      action(signal, async (context, flags) => {
        const directory = flags["dir"] === undefined ? context.loadConfig().config["master.dir"] : String(flags["dir"]);
        const clusterId = randomUUID() as ClusterId;
        const erase = flags["erase"] === undefined ? undefined : String(flags["erase"]);
        const { formatMaster } = await import("./serve-master.ts");
        await formatMaster({ disk: new NodeDisk(), clock: context.clock, directory, clusterId, erase });
        context.output.result({ clusterId, directory }, () =>
          context.output.line(`formatted ${directory} for the new cluster ${clusterId}`),
        );
        return 0;
      }),
    );
}
