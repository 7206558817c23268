/**
 * An election among simulated processes: sessions end when nothing is heard of their process for a time, news takes time, the service is away now and
 * then, and sometimes somebody is told to lead who should not. Nothing that it says is to be relied upon.
 */

import { HeadpondError } from "../base/errors.ts";
import type { Candidate, Election, ElectionView } from "../journal/election.ts";
import type { SimProcess, SimWorld } from "./sim-world.ts";

export class SimElections {
  readonly #world: SimWorld;
  #line: { readonly candidate: Candidate; readonly member: SimElection }[] = [];
  #leaderId: string | undefined;
  readonly #members = new Set<SimElection>();
  /** News takes at most so long. */
  delayMs = 5;
  sessionMs = 500;
  /** Until then nobody hears anything, and no session ends. */
  downUntilMs = 0;

  constructor(world: SimWorld) {
    this.#world = world;
    const tend = (): void => {
      this.#expire();
      world.events.after(50, tend);
    };
    world.events.after(50, tend);
  }

  joined(member: SimElection): void {
    this.#members.add(member);
  }

  get isDown(): boolean {
    return this.downUntilMs > this.#world.nowMs;
  }

  get world(): SimWorld {
    return this.#world;
  }

  enter(member: SimElection): void {
    if (this.#line.some((one) => one.member === member)) return;
    // One that comes again takes the place of its former self.
    this.#line = this.#line.filter(({ candidate }) => candidate.id !== member.id);
    this.#line.push({ candidate: member.candidate, member });
    this.tell();
  }

  leave(member: SimElection): void {
    const before = this.#line.length;
    this.#line = this.#line.filter((one) => one.member !== member);
    if (this.#line.length === before) return;
    if (this.#leaderId === member.id) this.#leaderId = undefined;
    this.tell();
  }

  announce(member: SimElection): void {
    if (this.isDown) return;
    this.#leaderId = member.id;
    this.tell();
  }

  yieldTo(member: SimElection, id: string | undefined): void {
    const wanted = id ?? member.id;
    const found = this.#line.find(({ candidate }) => candidate.id === wanted);
    if (found === undefined) {
      if (id !== undefined) throw new HeadpondError("not-found", `${wanted} does not take part`);
      return;
    }
    const others = this.#line.filter((one) => one !== found);
    this.#line = id === undefined ? [...others, found] : [found, ...others];
    if (this.#leaderId === member.id) this.#leaderId = undefined;
    this.tell();
  }

  /** Somebody is told that it should lead, for no reason. */
  mislead(): void {
    if (this.#line.length === 0 || this.isDown) return;
    const { member } = this.#world.random.pick(this.#line);
    member.tellLater({ ...this.#viewOf(member), shouldLead: true }, this.delayMs);
    this.#world.events.after(200, () => this.tell());
  }

  tell(): void {
    if (this.isDown) return;
    for (const { member } of this.#line) member.tellLater(this.#viewOf(member), this.delayMs);
  }

  #viewOf(member: SimElection): ElectionView {
    return {
      shouldLead: this.#line[0]?.member === member,
      leaderId: this.#leaderId,
      candidates: this.#line.map(({ candidate }) => candidate),
      connected: true,
    };
  }

  #expire(): void {
    if (this.isDown) return;
    const { nowMs } = this.#world;
    for (const { member } of [...this.#line]) {
      if (!member.isSilent) member.heardAtMs = nowMs;
      else if (nowMs - member.heardAtMs > this.sessionMs) this.leave(member);
    }
    for (const member of this.#members) if (!member.isSilent && member.isIn) this.enter(member);
    for (const member of this.#members) if (!member.isThere) this.#members.delete(member);
    // News that somebody missed comes again.
    if (this.#world.random.chance(0.2)) this.tell();
  }
}

export class SimElection implements Election {
  readonly candidate: Candidate;
  heardAtMs = 0;
  /** Has entered and not left. */
  isIn = false;
  readonly #elections: SimElections;
  readonly #process: SimProcess;
  readonly #listeners: ((view: ElectionView) => void)[] = [];
  #view: ElectionView = { shouldLead: false, leaderId: undefined, candidates: [], connected: false };
  #told = 0;
  #heard = 0;

  constructor(elections: SimElections, process: SimProcess, candidate: Candidate) {
    this.#elections = elections;
    this.#process = process;
    this.candidate = candidate;
  }

  get id(): string {
    return this.candidate.id;
  }

  get isThere(): boolean {
    return this.#process.isAlive;
  }

  get isSilent(): boolean {
    return !this.#process.isAlive || this.#process.isPaused;
  }

  get view(): ElectionView {
    return this.#view;
  }

  onChange(listener: (view: ElectionView) => void): void {
    this.#listeners.push(listener);
  }

  async start(): Promise<void> {
    this.isIn = true;
    this.heardAtMs = this.#elections.world.nowMs;
    this.#elections.joined(this);
    if (!this.#elections.isDown) this.#elections.enter(this);
  }

  announce(): void {
    this.#elections.announce(this);
  }

  async yieldTo(id: string | undefined): Promise<void> {
    this.#view = { ...this.#view, shouldLead: false };
    if (!this.#elections.isDown) {
      this.#elections.yieldTo(this, id);
      return;
    }
    if (id !== undefined) throw new HeadpondError("unavailable", "the election does not answer");
  }

  async close(): Promise<void> {
    this.isIn = false;
    this.#elections.leave(this);
  }

  tellLater(view: ElectionView, delayMs: number): void {
    const number = ++this.#told;
    this.#process.after(this.#process.world.random.float() * delayMs, () => {
      if (number < this.#heard) return;
      this.#heard = number;
      this.#view = view;
      for (const listener of this.#listeners) listener(view);
    });
  }
}
