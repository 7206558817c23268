/**
 * `headpond master --join`: a master with an empty directory becomes a member of a running cluster, in one command. It takes the
 * cluster's id from a master that lives, formats itself, starts, is added as a learner, catches up, and votes. With `--replace` a
 * dead master goes out in the same breath. What broke off in the middle goes on when the same command is given again.
 */

import { type Config, formatHostPort } from "../base/config.ts";
import { HeadpondError } from "../base/errors.ts";
import { type ClusterId, type MasterId, parseClusterId } from "../base/ids.ts";
import { connect } from "../client/client.ts";
import type { Membership } from "../client/membership.ts";
import type { NewJournal } from "./master-directory.ts";
import { joinAsLearner, promoteWhenLevel, waitUntilLevel } from "./membership.ts";
import { type Doors, reachedHost } from "./serve.ts";

export type JoinOptions = {
  /** `host:port` of masters of the cluster. */
  readonly seeds: readonly string[];
  /** The id of a dead master that goes out when this one is level. */
  readonly replace: MasterId | undefined;
  /** It does not vote. */
  readonly learner: boolean;
  /** Ends the waiting. */
  readonly signal: AbortSignal;
};

type MembersReply = Awaited<ReturnType<Membership["members"]>>;

/** Where the other masters reach the journal of this one. Throws `invalid` when nothing tells. */
export function journalAddress(config: Config): string {
  const { port } = config["journal.raft.listen"];
  return formatHostPort({ host: reachedHost(config["journal.raft.listen"].host, config, "journal.raft.listen"), port });
}

export class Joining {
  readonly #config: Config;
  readonly #doors: Doors;
  readonly #options: JoinOptions;
  readonly #id: MasterId;

  constructor(config: Config, doors: Doors, options: JoinOptions) {
    this.#config = config;
    this.#doors = doors;
    this.#options = options;
    this.#id = config["master.id"] as MasterId;
    if (config["journal.type"] !== "raft") {
      throw new HeadpondError("invalid", `--join needs journal.type raft, not ${config["journal.type"]}`);
    }
    if (options.replace === this.#id) {
      throw new HeadpondError(
        "invalid",
        `--replace ${this.#id}: this master has the same id, and ids are not used again: give master.id a new one`,
      );
    }
  }

  /** What an empty directory is formatted as. Refuses what could not be added afterwards. */
  async prepare(): Promise<NewJournal> {
    const { clusterId, members } = await this.#ask((membership, signal) => membership.members({ signal }));
    const wanted = this.#config["cluster.id"];
    if (wanted !== undefined && wanted !== clusterId) {
      throw new HeadpondError(
        "invalid",
        `${this.#options.seeds.join(", ")} are of cluster ${clusterId}, cluster.id is ${wanted}`,
      );
    }
    const own = members.find(({ id }) => id === this.#id);
    if (own !== undefined) {
      throw new HeadpondError(
        "already-exists",
        `${this.#id} is a member already, with another disk than this empty one: give this master a new master.id, and start it with ` +
          `--join ${this.#options.seeds.join(",")} --replace ${this.#id}`,
      );
    }
    this.#checkReplaced(members);
    const address = journalAddress(this.#config);
    const taken = members.find((member) => member.journalAddress === address && member.id !== this.#options.replace);
    if (taken !== undefined) {
      throw new HeadpondError("invalid", `${address} is the address of ${taken.id}: give journal.raft.listen another`);
    }
    return { type: "raft", id: this.#id, clusterId: parseClusterId(clusterId), founders: undefined };
  }

  /** Of a directory that was formatted before. */
  async check(clusterId: ClusterId): Promise<void> {
    const reply = await this.#ask((membership, signal) => membership.members({ signal }));
    if (reply.clusterId === clusterId) return;
    throw new HeadpondError(
      "invalid",
      `${this.#config["master.dir"]} belongs to cluster ${clusterId}, ${this.#options.seeds.join(", ")} to ${reply.clusterId}`,
    );
  }

  /** Once this master listens: until it is a voter, or with `learner` until it is level. */
  async join(): Promise<void> {
    const { clock, logger } = this.#doors;
    const { replace, learner } = this.#options;
    const note = (text: string): void => logger.info(text);
    await this.#ask(async (membership, signal) => {
      const parts = { membership, clock, signal, note };
      const address = journalAddress(this.#config);
      const { members } = await membership.members({ signal });
      const replaced = members.find(({ id }) => id === replace);
      // Two members at one address could not be told apart by who dials them.
      if (replaced?.journalAddress === address) await this.#remove(membership, members, signal);
      await joinAsLearner(parts, this.#id, address);
      await waitUntilLevel(parts, this.#id);
      if (replaced !== undefined && replaced.journalAddress !== address) {
        await this.#remove(membership, (await membership.members({ signal })).members, signal);
      }
      if (!learner) await promoteWhenLevel(parts, this.#id);
      logger.info(learner ? "joined as a learner" : "joined as a voter", { address });
    });
  }

  async #remove(membership: Membership, members: MembersReply["members"], signal: AbortSignal): Promise<void> {
    const { replace } = this.#options;
    if (replace === undefined) return;
    this.#checkReplaced(members);
    if (await membership.remove(replace, { signal })) this.#doors.logger.info("removed a dead master", { id: replace });
  }

  #checkReplaced(members: MembersReply["members"]): void {
    const { replace } = this.#options;
    if (replace === undefined) return;
    const replaced = members.find(({ id }) => id === replace);
    if (replaced === undefined) {
      const known = members.map(({ id }) => id).join(", ");
      // A second run finds it gone, and this one in its place.
      if (members.some(({ id }) => id === this.#id)) return;
      throw new HeadpondError("not-found", `--replace ${replace}: there is no such member, only ${known}`);
    }
    if (replaced.reachable === true) {
      throw new HeadpondError(
        "invalid",
        `--replace ${replace}: it lives. Stop it first, or leave --replace out and take it out later: \`headpond cluster remove ${replace}\``,
      );
    }
  }

  async #ask<T>(ask: (membership: Membership, signal: AbortSignal) => Promise<T>): Promise<T> {
    const { network, clock, logger } = this.#doors;
    const { seeds, signal } = this.#options;
    const client = connect({ masters: seeds, network, clock, logger, clientName: `joining ${this.#id}` });
    try {
      return await ask(client.membership, signal);
    } finally {
      await client.close();
    }
  }
}
