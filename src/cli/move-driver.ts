/**
 * Drives a move of the journal of a running cluster (docs/migration.md): asks every master for its steps, in order. It holds nothing that is not
 * in the masters: killed at any moment it can be run again, and goes on with what it finds.
 */

import { HeadpondError, toHeadpondError } from "../base/errors.ts";
import { connect, type HeadpondClient } from "../client/client.ts";
import type { Clock } from "../io/clock.ts";
import type { JournalType, MoveMember, MoveSettings } from "../journal/migration.ts";

export type MoveTargetMaster = {
  readonly id: string;
  /** `host:port` of its RPC. */
  readonly rpc: string;
  /** Of its journal, for the other masters; empty if the new journal has no traffic of its own. */
  readonly address: string;
  readonly settings: MoveSettings;
};

export type MoveDriverOptions = {
  readonly to: JournalType;
  readonly masters: readonly MoveTargetMaster[];
  /** These need not be ready, and are not members of the new journal. */
  readonly without: readonly string[];
  readonly newMove: () => string;
  readonly clock: Clock;
  readonly signal: AbortSignal;
  readonly note: (text: string) => void;
};

export type Moved = {
  readonly move: string;
  readonly from: JournalType;
  readonly to: JournalType;
  readonly index: number;
  readonly digest: string;
  readonly leader: string;
  readonly masters: readonly string[];
};

type Report = Awaited<ReturnType<HeadpondClient["membership"]["move"]>>;

const pollMs = 50;
/** One master's answer to a question; steps that wait take longer. */
const askTimeoutMs = 2000;
const stepTimeoutMs = 60_000;

export class MoveDriver {
  readonly #options: MoveDriverOptions;
  readonly #clients = new Map<string, HeadpondClient>();
  /** By an earlier move: they are no part of the cluster any more. */
  readonly #leftBehind = new Set<string>();

  constructor(options: MoveDriverOptions) {
    this.#options = options;
    for (const { id, rpc } of options.masters) {
      this.#clients.set(id, connect({ masters: [rpc], follow: false, clientName: "move" }));
    }
  }

  async close(): Promise<void> {
    await Promise.all([...this.#clients.values()].map((client) => client.close()));
  }

  /** What each master says of itself; who does not answer is left out. */
  async reports(): Promise<Map<string, Report>> {
    const found = new Map<string, Report>();
    await Promise.all(
      [...this.#clients].map(async ([id, client]) => {
        const report = await client.membership
          .move({ step: "report" }, { timeoutMs: askTimeoutMs, signal: this.#options.signal })
          .catch(() => undefined);
        if (report !== undefined) found.set(id, report);
      }),
    );
    this.#options.signal.throwIfAborted();
    return found;
  }

  /** Throws when there is nothing that can be moved, or another move is under way. */
  async run(): Promise<Moved> {
    const { to, note, newMove } = this.#options;
    const reports = await this.reports();
    const newest = Math.max(...[...reports.values()].map(({ generation }) => generation));
    for (const { id, phase, generation } of reports.values()) {
      if (phase === "left-behind" && generation < newest) this.#leftBehind.add(id);
    }
    const open = [...reports.values()].find(({ phase }) => phase === "preparing" || phase === "ready");
    if (open !== undefined && open.to !== to) {
      throw new HeadpondError(
        "already-exists",
        `a move to ${open.to} (${open.move}) is prepared: go on with it by --to ${open.to}, or take it back by --abort`,
      );
    }
    const cut = [...reports.values()].find((report) => report.to === to && ["moving", "moved"].includes(report.phase));
    if (open === undefined && cut?.move !== undefined) {
      note(`the move ${cut.move} to ${to} is decided already`);
      return this.#arrive(cut.move, cut.generation);
    }
    const move = open?.move ?? newMove();
    note(
      `move ${move} to ${to}: ${this.#members()
        .map(({ id }) => id)
        .join(", ")}`,
    );
    const generation = await this.#commit(move);
    return this.#arrive(move, generation);
  }

  /** Takes back what is prepared; the leader first, which then cannot commit it. */
  async abort(): Promise<string | undefined> {
    const reports = await this.reports();
    const move = [...reports.values()].find(({ phase }) => phase === "preparing" || phase === "ready")?.move;
    if (move === undefined) return undefined;
    const order = [...reports.values()].sort((a, b) => Number(b.leads) - Number(a.leads));
    for (const { id } of order) await this.#ask(id, { step: "abort", move });
    return move;
  }

  /** Asks those who have not begun yet, and answer; who was dead is asked when it is back. */
  async #prepare(move: string, reports: ReadonlyMap<string, Report>): Promise<void> {
    const { to } = this.#options;
    for (const { id, address, settings } of this.#members()) {
      const report = reports.get(id);
      if (report === undefined || (report.move === move && report.phase !== "moved")) continue;
      await this.#ask(id, { step: "prepare", move, to, address, settings: JSON.stringify(settings) });
    }
  }

  /** When all are level. Resolves with the generation of the new journal. */
  async #commit(move: string): Promise<number> {
    const { note, clock, signal } = this.#options;
    let told = "";
    for (;;) {
      const reports = await this.reports();
      const arrived = [...reports.values()].find((report) => report.move === move && report.phase === "moved");
      if (arrived !== undefined) return arrived.generation;
      await this.#prepare(move, reports);
      const waiting = this.#members().flatMap(({ id }) => {
        const report = reports.get(id);
        if (report?.phase === "ready" && report.move === move) return [];
        return [`${id} ${report === undefined ? "does not answer" : (report.problem ?? report.phase)}`];
      });
      const leader = [...reports.values()].find(({ leads }) => leads);
      if (waiting.length === 0 && leader !== undefined) {
        const outcome = await this.#tryCommit(leader, move, reports);
        if (outcome !== undefined) return outcome;
      }
      const text = waiting.length > 0 ? waiting.join("; ") : "nobody leads";
      if (text !== told) note(`waiting: ${text}`);
      told = text;
      await clock.sleep(pollMs, signal);
    }
  }

  /** `undefined`: look again. */
  async #tryCommit(leader: Report, move: string, reports: ReadonlyMap<string, Report>): Promise<number | undefined> {
    const { to, note } = this.#options;
    const ids = to === "local" ? [leader.id] : this.#members().map(({ id }) => id);
    const members: Record<string, MoveMember> = {};
    for (const id of ids) {
      const member = reports.get(id)?.member;
      if (member === undefined) return undefined;
      members[id] = member;
    }
    try {
      const { generation } = await this.#ask(leader.id, { step: "commit", move, members: JSON.stringify(members) });
      return generation;
    } catch (error) {
      note(`${leader.id} could not commit: ${toHeadpondError(error).message}`);
      return undefined;
    }
  }

  /** Until the new journal has a leader and all members have opened it. */
  async #arrive(move: string, generation: number): Promise<Moved> {
    const { clock, signal, note } = this.#options;
    let told = "";
    for (;;) {
      const reports = await this.reports();
      const members = [...reports.values()].filter(({ phase }) => phase !== "left-behind");
      const there = members.filter((report) => report.generation >= generation && report.phase === "moved");
      const leader = there.find(({ leads }) => leads);
      const missing = members.filter((report) => !there.includes(report)).map(({ id, phase }) => `${id} is ${phase}`);
      if (leader?.cut !== undefined && missing.length === 0) {
        for (const { id, cut } of there) {
          if (cut?.digest === leader.cut.digest && cut.index === leader.cut.index) continue;
          throw new HeadpondError(
            "corrupt",
            `the state of ${id} at entry ${cut?.index} had digest ${cut?.digest}, that of ${leader.id} at ${leader.cut.index} had ${leader.cut.digest}`,
          );
        }
        const { index, digest } = leader.cut;
        const { to } = this.#options;
        return {
          move,
          from: leader.from ?? to,
          to,
          index,
          digest,
          leader: leader.id,
          masters: there.map(({ id }) => id),
        };
      }
      const text = missing.length > 0 ? missing.join("; ") : "nobody leads yet";
      if (text !== told) note(`decided; ${text}`);
      told = text;
      await clock.sleep(pollMs, signal);
    }
  }

  #members(): readonly MoveTargetMaster[] {
    const { masters, without } = this.#options;
    return masters.filter(({ id }) => !without.includes(id) && !this.#leftBehind.has(id));
  }

  #ask(id: string, request: Parameters<HeadpondClient["membership"]["move"]>[0]): Promise<Report> {
    const client = this.#clients.get(id);
    if (client === undefined) throw new HeadpondError("not-found", `no master ${id}`);
    return client.membership.move(request, { timeoutMs: stepTimeoutMs, signal: this.#options.signal });
  }
}
