/**
 * The coordinator's side of claims: the tables of the files whose coordinator this worker is. The coordinator of a file is the first live
 * worker of its rendezvous order in the egress domain, like the owner of a block; it need not load the file itself.
 * When it dies the next one starts an empty table, which the workers fill with what they hold and have under way.
 */

import { blockCount } from "../base/blocks.ts";
import { type ClaimLimits, ClaimTable } from "../base/claim-table.ts";
import { HeadpondError } from "../base/errors.ts";
import type { FileDescriptor } from "../base/file.ts";
import type { BlockIndex, FileVersionId, WorkerId } from "../base/ids.ts";
import { hashText } from "../base/rendezvous.ts";
import type { Clock, Timer } from "../io/clock.ts";
import { type ClaimReply, type ClaimRequest, replyOf, reportOf } from "./claim-wire.ts";
import type { Members } from "./members.ts";
import { takesItselfForOwner } from "./source-choice.ts";

export type ClaimServiceLimits = {
  readonly table: ClaimLimits;
  readonly tablesMax: number;
  readonly tickMs: number;
  /** A table of which nobody speaks any more. */
  readonly idleMs: number;
  /** How long a worker waits at least between two reports: with many workers longer. */
  readonly gapMs: number;
  readonly gapPerWorkerMs: number;
  /** How long a newer list of workers, which an asker has, is waited for. */
  readonly listWaitMs: number;
};

export const claimServiceLimits: Omit<ClaimServiceLimits, "table"> = {
  tablesMax: 2000,
  tickMs: 100,
  idleMs: 10_000,
  gapMs: 10,
  gapPerWorkerMs: 0.25,
  listWaitMs: 500,
};

/** The block by whose order the coordinator of a file is found. */
export const coordinatorBlock = 0 as BlockIndex;

type Entry = {
  readonly name: string;
  readonly table: ClaimTable;
  readonly waiters: Set<() => void>;
  readonly looking: Set<WorkerId>;
  spokenMs: number;
};

export class ClaimService {
  readonly #clock: Clock;
  readonly #members: Members;
  readonly #limits: ClaimServiceLimits;
  readonly #incarnation: string;
  readonly #isAlive: (worker: WorkerId) => Promise<boolean>;
  readonly #looks = new Set<Promise<void>>();
  readonly #tables = new Map<FileVersionId, Entry>();
  #made = 0;
  #timer: Timer | undefined;
  #closed = false;

  constructor(options: {
    readonly clock: Clock;
    readonly members: Members;
    readonly limits: ClaimServiceLimits;
    readonly incarnation: string;
    readonly isAlive: (worker: WorkerId) => Promise<boolean>;
  }) {
    this.#clock = options.clock;
    this.#members = options.members;
    this.#limits = options.limits;
    this.#incarnation = options.incarnation;
    this.#isAlive = options.isAlive;
  }

  get tableCount(): number {
    return this.#tables.size;
  }

  table(id: FileVersionId): ClaimTable | undefined {
    return this.#tables.get(id)?.table;
  }

  /**
   * Takes a report and answers with what is new, at once or as soon as there is something. Throws `already-exists`, i.e. `409`, if another
   * worker is the coordinator.
   */
  async report(file: FileDescriptor, asked: ClaimRequest, signal: AbortSignal): Promise<ClaimReply> {
    await this.#checkPlace(file.id, asked);
    const entry = this.#entry(file);
    entry.spokenMs = this.#clock.monotonicMs();
    const before = entry.table.version;
    entry.table.report(reportOf(asked, entry.name, entry.table.blockCount), entry.spokenMs);
    for (const [, claimant] of asked.lost) this.#look(entry, claimant);
    if (entry.table.version !== before) wakeAll(entry);
    const knows = asked.table === entry.name ? asked.version : -1;
    if (knows === entry.table.version && asked.waitMs > 0) await this.#change(entry, asked.waitMs, signal);
    const since = asked.table === entry.name ? asked.claimsVersion : 0;
    const gapMs = Math.ceil(Math.max(this.#limits.gapMs, entry.table.participantCount * this.#limits.gapPerWorkerMs));
    return replyOf(entry.name, entry.table.news(since), gapMs);
  }

  /** Somebody could not reach a worker: it is dropped at once if it is really gone. */
  #look(entry: Entry, worker: WorkerId): void {
    if (worker === this.#members.self || entry.looking.has(worker)) return;
    entry.looking.add(worker);
    const looked = this.#isAlive(worker)
      .then((alive) => {
        if (alive || this.#closed) return;
        entry.table.drop(worker);
        entry.table.tick(this.#clock.monotonicMs());
        wakeAll(entry);
      })
      .finally(() => {
        entry.looking.delete(worker);
        this.#looks.delete(looked);
      });
    this.#looks.add(looked);
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#timer?.clear();
    for (const entry of this.#tables.values()) wakeAll(entry);
    this.#tables.clear();
    await Promise.all(this.#looks);
  }

  async #checkPlace(id: FileVersionId, { workers, skipped }: ClaimRequest): Promise<void> {
    const members = this.#members;
    if (members.version < workers) await members.waitForVersion(workers, this.#limits.listWaitMs);
    if (takesItselfForOwner(members.self, members.order(id, coordinatorBlock), new Set(skipped))) return;
    throw new HeadpondError("already-exists", `another worker coordinates the load of ${id}`);
  }

  #entry(file: FileDescriptor): Entry {
    const known = this.#tables.get(file.id);
    if (known !== undefined) return known;
    if (this.#closed) throw new HeadpondError("unavailable", "the worker is stopping");
    if (this.#tables.size >= this.#limits.tablesMax) {
      throw new HeadpondError("overloaded", `this worker coordinates ${this.#tables.size} files already`, {
        details: { retryAfterMs: 1000 },
      });
    }
    const seed = hashText(file.id, 0);
    const nowMs = this.#clock.monotonicMs();
    const entry: Entry = {
      name: `${this.#incarnation}/${++this.#made}`,
      table: new ClaimTable({
        blockCount: blockCount(file.sizeBytes, file.blockSizeBytes),
        blockSizeBytes: file.blockSizeBytes,
        limits: this.#limits.table,
        nowMs,
        expected: this.#members.peers().length + 1,
        rankOf: (worker) => this.#rankOf(worker, seed),
      }),
      waiters: new Set(),
      looking: new Set(),
      spokenMs: nowMs,
    };
    this.#tables.set(file.id, entry);
    this.#timer ??= this.#clock.timer(this.#limits.tickMs, () => this.#tick());
    return entry;
  }

  #rankOf(worker: WorkerId, seed: number): string {
    const zone = this.#members.place(worker)?.split("/").slice(0, 3).join("/") ?? "";
    return `${zone} ${hashText(worker, seed).toString(16).padStart(8, "0")} ${worker}`;
  }

  #tick(): void {
    this.#timer = undefined;
    const now = this.#clock.monotonicMs();
    for (const [id, entry] of this.#tables) {
      const { table } = entry;
      const before = table.version;
      // Who has everything reports no more: the list of workers says whether it is still there.
      for (const { worker, done } of table.participants()) {
        if (done && this.#members.address(worker) === undefined) table.drop(worker);
      }
      table.tick(now);
      if (table.version !== before) wakeAll(entry);
      if (now - entry.spokenMs > this.#limits.idleMs) this.#tables.delete(id);
    }
    if (this.#tables.size > 0) this.#timer = this.#clock.timer(this.#limits.tickMs, () => this.#tick());
  }

  #change(entry: Entry, waitMs: number, signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const end = (): void => {
        timer.clear();
        entry.waiters.delete(end);
        signal.removeEventListener("abort", end);
        resolve();
      };
      const timer = this.#clock.timer(waitMs, end);
      entry.waiters.add(end);
      signal.addEventListener("abort", end, { once: true });
    });
  }
}

function wakeAll(entry: Entry): void {
  for (const wake of [...entry.waiters]) wake();
}
