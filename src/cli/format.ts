/**
 * `format`: initialises a master's journal. A directory that holds one already is emptied only if its cluster id is typed. Each
 * founder of a Raft cluster is formatted with the same cluster id; `--join` makes one that waits to be added.
 */

import { HeadpondError } from "../base/errors.ts";
import type { MasterId } from "../base/ids.ts";
import { parseClusterId } from "../base/ids.ts";
import { Metrics } from "../io/metrics.ts";
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
        const { formatMaster } = await import("./master-directory.ts");
        const disk = new NodeDisk({ isPrivate: true });
        const { journal, close } = await journalOf(context, disk, clusterId, flags["join"] === true);
        try {
          await formatMaster({ disk, clock: context.clock, directory, journal, erase });
        } finally {
          await close();
        }
        const { type } = journal;
        context.output.result({ clusterId: journal.clusterId, directory, journal: type }, () => {
          context.output.line(`formatted ${directory} for the cluster ${journal.clusterId}`);
          for (const line of whatNext(journal)) context.output.line(line);
        });
        return 0;
      }),
    );
}

type ToFormat = { readonly journal: NewJournal; readonly close: () => Promise<void> };

async function journalOf(
  context: Context,
  privateDisk: NodeDisk,
  clusterId: string | undefined,
  joins: boolean,
): Promise<ToFormat> {
  const { config } = context.loadConfig();
  if (config["journal.type"] === "zookeeper") {
    const { openConfiguredStore, sharedJournalToFormat } = await import("./serve-shared-journal.ts");
    const { createLogger } = await import("../io/pino-logger.ts");
    const logger = createLogger({ level: config["log.level"] });
    const store = await openConfiguredStore(config, { clock: context.clock, privateDisk, logger }, new Metrics());
    try {
      const journal = await sharedJournalToFormat(config, store, { clusterId, founds: !joins });
      return { journal, close: () => store.close() };
    } catch (error) {
      await store.close();
      throw error;
    }
  }
  const { journalToFormat } = await import("./founding.ts");
  const close = async (): Promise<void> => {};
  if (!joins) return { journal: journalToFormat(config, clusterId), close };
  const id = clusterId ?? config["cluster.id"];
  if (id === undefined) {
    throw new HeadpondError("invalid", "--join needs --cluster-id: `headpond cluster status` of that cluster shows it");
  }
  const journal = {
    type: "raft",
    clusterId: parseClusterId(id),
    id: config["master.id"] as MasterId,
    founders: undefined,
  } as const;
  return { journal, close };
}

function whatNext(journal: NewJournal): readonly string[] {
  if (journal.type === "zookeeper") {
    return ["next: start it with `headpond master`; other masters with the same store need no format"];
  }
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
