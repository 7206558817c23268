/**
 * How the master changes the state: a command with the leader's time on it, made durable and applied by the journal. What
 * was applied and failed comes back as the error that it carries; what the journal could not do, as the journal's error. What not
 * all masters understand is refused as `unsupported` (feature-levels.ts).
 */

import { errorFromDocument } from "../base/errors.ts";
import type { Journal } from "../journal/journal.ts";
import type { Command, CommandResult, CommandResults } from "../namespace/command.ts";
import { encodeCommand } from "../namespace/command-codec.ts";
import type { FeatureLevels } from "./feature-levels.ts";
import type { LeaderClock } from "./leader-clock.ts";

export class Proposer {
  readonly #journal: Journal<CommandResult>;
  readonly #clock: LeaderClock;
  readonly #features: Pick<FeatureLevels, "check">;

  constructor(dependencies: {
    readonly journal: Journal<CommandResult>;
    readonly clock: LeaderClock;
    readonly features: Pick<FeatureLevels, "check">;
  }) {
    this.#journal = dependencies.journal;
    this.#clock = dependencies.clock;
    this.#features = dependencies.features;
  }

  /** The time to stamp a command with. */
  nowMs(): number {
    return this.#clock.nowMs();
  }

  async propose<C extends Command>(command: C): Promise<CommandResults[C["kind"]]> {
    this.#features.check(command);
    const { result } = await this.#journal.propose(encodeCommand(command));
    if (!result.ok) throw errorFromDocument(result.error);
    return result as CommandResults[C["kind"]];
  }

  /** As `propose`, with one promise less and the reply made in the same turn: for the hottest of all commands. */
  proposeWith<C extends Command, R>(command: C, reply: (result: CommandResults[C["kind"]]) => R): Promise<R> {
    this.#features.check(command);
    return this.#journal.propose(encodeCommand(command)).then(({ result }) => {
      if (!result.ok) throw errorFromDocument(result.error);
      return reply(result as CommandResults[C["kind"]]);
    });
  }
}
