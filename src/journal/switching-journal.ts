/**
 * The masters' journal as the master sees it, whichever it is at the moment: hands everything to the journal in force, and moves to another
 * one while it runs (docs/migration.md). What a move is decided by is the mark, an entry of the old journal; from that entry on the old one's
 * entries are void (`move-gate.ts`), and the new one goes on with the same state.
 */

import { HeadpondError, toHeadpondError } from "../base/errors.ts";
import type { Timer } from "../io/clock.ts";
import type { Logger } from "../io/logger.ts";
import type {
  Entry,
  Journal,
  JournalCluster,
  JournalMoves,
  JournalStatus,
  Proposed,
  Role,
  SavedCheckpoint,
} from "./journal.ts";
import {
  forgetPrepared,
  type MovedFile,
  type MoveMark,
  type MoveMember,
  type MovePlan,
  type MoveReport,
  type PreparedFile,
  readMoved,
  readPrepared,
  targetDirectory,
  writeCurrent,
  writeMoved,
  writePrepared,
} from "./migration.ts";
import { MoveArrivals } from "./move-arrivals.ts";
import { MoveCopy } from "./move-copy.ts";
import { type MoveCut, MoveGate } from "./move-gate.ts";
import { leftBehindBy, reportOf } from "./move-report.ts";
import type { MoveTarget } from "./move-target.ts";
import {
  defaultSwitchingLimits,
  type InnerJournal,
  type JournalPlace,
  type SwitchingJournalOptions,
  type SwitchingLimits,
} from "./switching-options.ts";

type Reign<Result> = InnerJournal<Result> & {
  readonly place: JournalPlace;
  readonly gate: MoveGate<Result>;
  /** The move that brought it. */
  readonly moved: MovedFile | undefined;
};

export class SwitchingJournal<Result> implements Journal<Result>, JournalMoves {
  readonly #options: SwitchingJournalOptions<Result>;
  readonly #limits: SwitchingLimits;
  readonly #logger: Logger;
  readonly #closing = new AbortController();
  readonly #roleListeners: ((role: Role) => void)[] = [];
  readonly #memberListeners: (() => void)[] = [];
  readonly #former = new Map<Reign<Result>, Timer>();
  readonly #arrivals: MoveArrivals;
  #reign: Reign<Result> | undefined;
  #role: Role = "standby";
  #copy: MoveCopy | undefined;
  /** From the mark's proposal until it is known what became of it. */
  #seal: PromiseWithResolvers<void> | undefined;
  #held = 0;
  /** From the cut until the new journal is open. */
  #switching: Promise<void> | undefined;
  #leftBehind: string | undefined;

  constructor(options: SwitchingJournalOptions<Result>) {
    this.#options = options;
    this.#limits = { ...defaultSwitchingLimits, ...options.limits };
    this.#logger = options.logger.child({ part: "move" });
    this.#arrivals = new MoveArrivals({
      ...options,
      logger: this.#logger,
      lookMs: this.#limits.lookMs,
      onDiffers: () => this.#setRole("standby"),
    });
  }

  async start(): Promise<void> {
    await this.#open(this.#options.current);
    const prepared = await readPrepared(this.#options.disk, this.#options.master);
    if (prepared !== undefined) await this.#resume(prepared);
    this.#current.gate.look();
    // What an earlier life did not finish; the state is not to be read before. It begins in a microtask.
    await Promise.resolve();
    await this.#switching;
  }

  get role(): Role {
    return this.#role;
  }

  onRoleChange(listener: (role: Role) => void): void {
    this.#roleListeners.push(listener);
  }

  get leaderAddress(): string | undefined {
    return this.#reign?.journal.leaderAddress;
  }
  get noSpace(): string | undefined {
    return this.#reign?.journal.noSpace;
  }

  get cluster(): JournalCluster | undefined {
    return this.#reign?.journal.cluster;
  }

  /** As `JournalCluster.onMembersChange`, of this journal and those to come. */
  onMembersChange(listener: () => void): void {
    this.#memberListeners.push(listener);
  }

  get moves(): JournalMoves {
    return this;
  }

  propose(payload: Uint8Array): Promise<Proposed<Result>> {
    if (this.#seal !== undefined || this.#leftBehind !== undefined) return this.#proposeLater(payload);
    return this.#current.journal.propose(payload);
  }

  get mayRead(): boolean {
    const reign = this.#reign;
    if (this.#seal !== undefined || this.#switching !== undefined || this.#arrivals.differs !== undefined) return false;
    return reign?.gate.cut === undefined && reign?.journal.mayRead === true;
  }

  async readBarrier(): Promise<void> {
    for (;;) {
      await this.#seal?.promise;
      await this.#switching;
      this.#requireHere();
      const reign = this.#current;
      if (reign.gate.cut === undefined) await reign.journal.readBarrier();
      // The mark came meanwhile: what was acknowledged since is in the new journal.
      if (reign.gate.cut === undefined) return;
      await this.#passed(reign);
    }
  }

  async *committed(fromIndex: number, signal: AbortSignal): AsyncIterable<Entry> {
    for (let next = fromIndex; !signal.aborted && !this.#closing.signal.aborted; ) {
      const reign = this.#current;
      const last = (): number => reign.gate.cut?.index ?? Number.POSITIVE_INFINITY;
      for await (const entry of reign.journal.committed(next, signal)) {
        if (entry.index > last()) break;
        yield entry;
        next = entry.index + 1;
        if (next > last()) break;
      }
      if (reign.gate.cut === undefined) return;
      await this.#passed(reign);
    }
  }

  get checkpoints(): readonly SavedCheckpoint[] {
    return this.#reign?.journal.checkpoints ?? [];
  }

  checkpoint(): ReturnType<Journal<Result>["checkpoint"]> {
    return this.#current.journal.checkpoint();
  }

  status(): JournalStatus {
    const status = this.#reign?.journal.status();
    if (status !== undefined) return { ...status, role: this.#role };
    const { index, term } = this.#options.machine.applied;
    const { type } = this.#options.current;
    const nothing = { firstIndex: index + 1, lastIndex: index, commitIndex: index, checkpointIndex: 0, bytes: 0 };
    return { type, role: "standby", term, appliedIndex: index, ...nothing };
  }

  async close(): Promise<void> {
    if (this.#closing.signal.aborted) return;
    this.#closing.abort(new HeadpondError("unavailable", "the journal was closed"));
    this.#unseal();
    await this.#switching?.catch(() => {});
    await this.#arrivals.close();
    await this.#copy?.close();
    if (this.#reign !== undefined) await closeInner(this.#reign);
    await this.#closeFormer();
    this.#setRole("standby");
  }

  /** Where the journal in force is. */
  get place(): JournalPlace {
    return this.#reign?.place ?? this.#options.current;
  }

  /** Why nothing here must be relied on; undefined: it can. */
  get alarm(): string | undefined {
    return this.#leftBehind ?? this.#arrivals.differs ?? this.#reign?.alarm();
  }

  // The move, as its driver asks for it.

  report(): MoveReport {
    const { id, machine, marks } = this.#options;
    return reportOf({
      id,
      machine,
      marks,
      ...this.#current,
      leads: this.#role === "leader",
      copy: this.#copy,
      levelEntries: this.#limits.levelEntries,
      leftBehind: this.#leftBehind,
    });
  }

  async prepare(plan: MovePlan): Promise<MoveReport> {
    const { type, generation } = this.#current.place;
    const before = this.#copy?.plan;
    if (before !== undefined && before.move === plan.move) return this.report();
    if (before !== undefined) {
      throw new HeadpondError(
        "already-exists",
        `a move to ${before.to} (${before.move}) is prepared already: finish it, or take it back with --abort`,
      );
    }
    if (this.#switching !== undefined || this.#leftBehind !== undefined) {
      throw new HeadpondError("unavailable", this.#leftBehind ?? "this master is moving: ask again in a moment");
    }
    if (plan.to === type) throw new HeadpondError("invalid", `the journal of this master is ${type} already`);
    const incarnation = this.#options.newIncarnation();
    const prepared = { ...plan, generation: generation + 1, incarnation };
    const target = await this.#options.openTarget(prepared, this.#pathOf(plan.move));
    await writePrepared(this.#options.disk, this.#options.master, prepared);
    this.#follow(prepared, target);
    return this.report();
  }

  async commit(move: string, members: Readonly<Record<string, MoveMember>>): Promise<MoveReport> {
    const { id, marks } = this.#options;
    const reign = this.#current;
    const plan = this.#copy?.plan;
    if (this.#role !== "leader") throw this.#notLeader("only the leader can end it");
    if (plan === undefined || plan.move !== move) {
      throw new HeadpondError("not-found", `the move ${move} is not prepared here: run the command again`);
    }
    if (this.report().phase !== "ready") {
      throw new HeadpondError("unavailable", `the copy is not level yet: ${this.#copy?.problem ?? "it follows"}`);
    }
    if (members[id]?.incarnation !== plan.incarnation) {
      throw new HeadpondError("invalid", `the members of the new journal do not include ${id} as it is prepared`);
    }
    if (this.#seal !== undefined) throw new HeadpondError("overloaded", "the move is being committed already");
    const { type: from, generation } = reign.place;
    this.#seal = Promise.withResolvers<void>();
    try {
      await reign.journal.propose(
        marks.encode({ move, generation: generation + 1, from, to: plan.to, leader: id, members }),
      );
    } catch (error) {
      if (reign.gate.cut === undefined) {
        await this.#learnFate(reign, toHeadpondError(error));
        if (reign.gate.cut === undefined) throw error;
      }
    } finally {
      if (reign.gate.cut === undefined) this.#unseal();
    }
    await this.#switching;
    return this.report();
  }

  async abort(move: string): Promise<MoveReport> {
    if (this.#role === "leader") await this.readBarrier();
    const copy = this.#copy;
    if (this.#current.place.generation > 0 && this.#options.marks.newest()?.move === move) {
      throw new HeadpondError("invalid", `the move ${move} is done: move back by another one`);
    }
    if (this.#switching !== undefined) throw new HeadpondError("invalid", `the move ${move} is committed already`);
    if (this.#seal !== undefined) throw new HeadpondError("overloaded", "the move is being committed: ask again");
    if (copy === undefined || copy.plan.move !== move) return this.report();
    await this.#forget();
    return this.report();
  }

  async #forget(): Promise<void> {
    const copy = this.#copy;
    if (copy === undefined) return;
    const { disk, master } = this.#options;
    this.#copy = undefined;
    await copy.close();
    await forgetPrepared(disk, master);
    await disk.removeTree(this.#pathOf(copy.plan.move));
  }

  // Opening.

  async #open(place: JournalPlace): Promise<void> {
    const { generation } = place;
    const moved = await readMoved(this.#options.disk, place.directory);
    const about = { generation, beganIndex: moved?.index ?? 0 };
    const gate = new MoveGate<Result>({ ...this.#options, ...about, onCut: (cut) => this.#onCut(cut) });
    const inner = await this.#options.open(place, gate);
    const reign = { ...inner, place, gate, moved };
    inner.journal.onRoleChange((role) => this.#onRole(reign, role));
    this.#reign = reign;
    inner.journal.cluster?.onMembersChange(() => {
      if (this.#reign === reign) for (const listener of this.#memberListeners) listener();
    });
    await inner.journal.start();
    if (moved !== undefined) this.#arrivals.compare(moved);
  }

  async #resume(prepared: PreparedFile): Promise<void> {
    if (prepared.generation !== this.#current.place.generation + 1) {
      await forgetPrepared(this.#options.disk, this.#options.master);
      return;
    }
    this.#follow(prepared, await this.#options.openTarget(prepared, this.#pathOf(prepared.move)));
  }

  #follow(plan: PreparedFile, target: MoveTarget): void {
    const { clock, marks } = this.#options;
    const { journal } = this.#current;
    const parts = { plan, target, journal, marks, clock, logger: this.#logger, limits: this.#limits.copy };
    this.#copy = new MoveCopy(parts);
    this.#copy.start();
  }

  // The cut.

  #onCut(cut: MoveCut): void {
    this.#setRole("standby");
    const { mark, index } = cut;
    this.#logger.info("the journal ends here", { move: mark.move, index, digest: cut.digest, to: mark.to });
    this.#switching = this.#switch(cut)
      .catch((error: unknown) => {
        if (!this.#closing.signal.aborted) this.#options.onFatal(toHeadpondError(error));
      })
      .finally(() => {
        this.#switching = undefined;
        this.#unseal();
      });
  }

  async #switch(cut: MoveCut): Promise<void> {
    const { disk, id, master } = this.#options;
    const { mark } = cut;
    const copy = this.#copy;
    const former = this.#current;
    if (copy?.plan.move !== mark.move || mark.members[id]?.incarnation !== copy.plan.incarnation) {
      this.#stay(mark);
      await this.#forget();
      return;
    }
    const { to: type, settings, generation, move, address, incarnation } = copy.plan;
    const { index, term, digest } = cut;
    const about = {
      move,
      generation,
      from: mark.from,
      to: type,
      settings,
      address,
      incarnation,
      index,
      term,
      digest,
    };
    const directory = this.#pathOf(move);
    await copy.finish(cut, () => writeMoved(disk, directory, about), this.#closing.signal);
    await copy.close();
    await writeCurrent(disk, master, targetDirectory(move));
    // Those of earlier moves: the new one may need what they listen on.
    await this.#closeFormer();
    const succession = mark.leader === id ? "led" : "followed";
    this.#linger(former);
    this.#copy = undefined;
    await this.#open({ type, directory, generation, settings, succession });
    this.#logger.info("moved", { move: mark.move, journal: type, index: cut.index });
  }

  /** Others may not have come as far as the cut, and ask this one for it. */
  #linger(reign: Reign<Result>): void {
    const { clock } = this.#options;
    const isAlone = (reign.journal.cluster?.members().length ?? 1) <= 1;
    const timer = clock.timer(isAlone ? 0 : this.#limits.lingerMs, () => {
      if (!this.#former.delete(reign)) return;
      closeInner(reign).catch((error: unknown) => this.#logger.warn("the old journal was not closed", { error }));
    });
    this.#former.set(reign, timer);
  }

  async #closeFormer(): Promise<void> {
    const all = [...this.#former];
    this.#former.clear();
    for (const [reign, timer] of all) {
      timer.clear();
      await closeInner(reign);
    }
  }

  #stay(mark: MoveMark): void {
    this.#leftBehind = leftBehindBy(mark, this.#options.id);
    this.#logger.error(this.#leftBehind);
  }

  // Roles.

  #onRole(reign: Reign<Result>, role: Role): void {
    if (reign !== this.#reign || reign.gate.cut !== undefined) return;
    const { moved, journal } = reign;
    if (role === "standby" || moved === undefined || this.#arrivals.isIn(moved)) return this.#setRole(role);
    // The first leader of a new journal lets all compare their states before it takes anything in.
    this.#arrivals.propose(moved, journal, () => {
      if (this.#reign === reign && journal.role === "leader") this.#setRole("leader");
    });
  }

  #setRole(role: Role): void {
    if (this.#role === role || (role === "leader" && this.#arrivals.differs !== undefined)) return;
    this.#role = role;
    for (const listener of this.#roleListeners) listener(role);
  }

  // Waiting.

  async #proposeLater(payload: Uint8Array): Promise<Proposed<Result>> {
    if (this.#held >= this.#limits.heldMax) {
      throw new HeadpondError("overloaded", `${this.#held} commands wait for a move of the journal: retry later`, {
        details: { retryAfterMs: this.#limits.lookMs },
      });
    }
    this.#held++;
    try {
      await this.#seal?.promise;
    } finally {
      this.#held--;
    }
    this.#requireHere();
    if (this.#role !== "leader") throw this.#notLeader("ask again in a moment");
    return this.#current.journal.propose(payload);
  }

  /** The journal of `reign` has ended: until there is another one. Throws `unavailable` when there will be none here. */
  async #passed(reign: Reign<Result>): Promise<void> {
    await Promise.resolve();
    await this.#switching;
    this.#requireHere();
    if (this.#reign === reign)
      throw new HeadpondError("unavailable", "this master could not follow the cluster to its new journal");
  }

  /** The mark's proposal failed, and the mark may be committed all the same. */
  async #learnFate({ journal, gate }: Reign<Result>, error: HeadpondError): Promise<void> {
    const { clock } = this.#options;
    if (error.outcome === "none") return;
    while (gate.cut === undefined && !this.#closing.signal.aborted) {
      try {
        await journal.readBarrier();
        return;
      } catch (failure) {
        this.#logger.warn("it is not known yet whether the journal ends", { error: toHeadpondError(failure).message });
        await clock.sleep(this.#limits.lookMs, this.#closing.signal).catch(() => {});
      }
    }
  }

  #unseal(): void {
    this.#seal?.resolve();
    this.#seal = undefined;
  }

  #requireHere(): void {
    this.#closing.signal.throwIfAborted();
    const alarm = this.#leftBehind ?? this.#arrivals.differs;
    if (alarm !== undefined) throw new HeadpondError("unavailable", alarm);
  }

  #notLeader(what: string): HeadpondError {
    const leader = this.leaderAddress;
    return new HeadpondError("not-leader", `this master does not lead the journal: ${what}`, {
      details: leader === undefined ? {} : { leader },
    });
  }

  get #current(): Reign<Result> {
    if (this.#reign === undefined) throw new HeadpondError("unavailable", "the journal is not started yet");
    return this.#reign;
  }

  #pathOf(move: string): string {
    return `${this.#options.master}/${targetDirectory(move)}`;
  }
}

async function closeInner({ journal, release }: InnerJournal<unknown>): Promise<void> {
  await journal.close();
  await release?.();
}
