/**
 * `format`: initialises a master's journal. A directory that holds one already is emptied only if its cluster id is typed. Each
 * founder of a Raft cluster is formatted with the same cluster id; `--join` makes one that waits to be added.
 */

import { HeadpondError } from "../base/errors.ts";
import type { MasterId } from "../base/ids.ts";
import { parseClusterId } from "../base/ids.ts";
import { NodeDisk } from "../io/node-disk.ts";
import { action, type Commands, leaf } from "./command.ts";
import type { Context } from "./context.ts";
import type { NewJournal } from "./master-directory.ts";

export function addFormat({ program, signal }: Commands): void {
  leaf(program, "format", "initialise a master's directory", "headpond format --config headpond.yaml")
    .option("--dir <directory>", "instead of master.dir")
    .option("--cluster-id <id>", "the same for every founder of a Raft cluster, and new for each cluster")
    .option("--join", "for a Raft cluster that exists: this master is going to be added to it")
    .option("--erase <cluster-id>", "erase what is there; the id must be the one of the cluster that is erased")
    .action(
      action(signal, async (context, flags) => {
        const directory = flags["dir"] === undefined ? context.loadConfig().config["master.dir"] : String(flags["dir"]);
        const erase = flags["erase"] === undefined ? undefined : String(flags["erase"]);
        const clusterId = flags["clusterId"] === undefined ? undefined : String(flags["clusterId"]);
        const journal = await journalOf(context, clusterId, flags["join"] === true);
        const { formatMaster } = await import("./master-directory.ts");
        await formatMaster({
          disk: new NodeDisk({ isPrivate: true }),
          clock: context.clock,
          directory,
          journal,
          erase,
        });
        const { type } = journal;
        context.output.result({ clusterId: journal.clusterId, directory, journal: type }, () => {
          context.output.line(`formatted ${directory} for the cluster ${journal.clusterId}`);
          for (const line of whatNext(journal)) context.output.line(line);
        });
        return 0;
      }),
    );
}

async function journalOf(context: Context, clusterId: string | undefined, joins: boolean): Promise<NewJournal> {
  const { config } = context.loadConfig();
  const { journalToFormat } = await import("./founding.ts");
  if (!joins) return journalToFormat(config, clusterId);
  const id = clusterId ?? config["cluster.id"];
  if (id === undefined) {
    throw new HeadpondError("invalid", "--join needs --cluster-id: `headpond cluster status` of that cluster shows it");
  }
  return {
    type: "raft",
    clusterId: parseClusterId(id),
    id: config["master.id"] as MasterId,
    founders: undefined,
  };
}

function whatNext(journal: NewJournal): readonly string[] {
  if (journal.type !== "raft") return [];
  const { id, founders, clusterId } = journal;
  if (founders === undefined) {
    return [`next: start it with \`headpond master\`, then \`headpond cluster add ${id} HOST:PORT\` of its journal`];
  }
  const others = Object.keys(founders).filter((founder) => founder !== id);
  if (others.length === 0) return ["next: start it with `headpond master`"];
  return [
    `next: \`headpond format --cluster-id ${clusterId}\` for ${others.join(" and ")} too, then start all of them with \`headpond master\`;`,
    "the cluster begins when all founders have met",
  ];
}
