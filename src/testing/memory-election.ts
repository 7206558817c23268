/**
 * An election in memory, for tests and simulations: the masters that take part stand in line, and the first should lead. A test may tell any of
 * them what it likes, for nothing that an election says is to be relied upon.
 */

import { HeadpondError } from "../base/errors.ts";
import type { Candidate, Election, ElectionView } from "../journal/election.ts";

export class MemoryElections {
  /** In order of their coming. */
  #line: Candidate[] = [];
  readonly #members = new Map<string, MemoryElection>();
  /** What each announced last. */
  readonly announced = new Map<string, number>();
  leaderId: string | undefined;

  /** `isReachable: false`: nobody hears anything new. */
  isReachable = true;

  join(id: string): MemoryElection {
    const member = new MemoryElection(this, {
      id,
      rpc: `${id}:7070`,
      http: `${id}:7071`,
      featureLevel: 1,
    });
    this.#members.set(id, member);
    return member;
  }

  get line(): readonly string[] {
    return this.#line.map(({ id }) => id);
  }

  /** As when a session expires. */
  expire(id: string): void {
    this.#line = this.#line.filter((candidate) => candidate.id !== id);
    if (this.leaderId === id) this.leaderId = undefined;
    this.tell();
  }

  enter(candidate: Candidate): void {
    if (this.#line.some(({ id }) => id === candidate.id)) return;
    this.#line = [...this.#line, candidate];
    this.tell();
  }

  announce(id: string, epoch: number): void {
    this.announced.set(id, epoch);
    this.leaderId = id;
    this.tell();
  }

  /** `first` comes to the head of the line; without it `id` goes to the end. */
  reorder(id: string, first: string | undefined): void {
    const wanted = first ?? id;
    const found = this.#line.find((candidate) => candidate.id === wanted);
    if (found === undefined) throw new HeadpondError("not-found", `${wanted} does not take part`);
    const others = this.#line.filter((candidate) => candidate !== found);
    this.#line = first === undefined ? [...others, found] : [found, ...others];
    this.tell();
  }

  tell(): void {
    if (!this.isReachable) {
      for (const member of this.#members.values()) member.lose();
      return;
    }
    const candidates = this.#line;
    for (const member of this.#members.values()) {
      member.hear({
        shouldLead: candidates[0]?.id === member.id,
        leaderId: this.leaderId,
        candidates,
        connected: true,
      });
    }
  }

  leave(member: MemoryElection): void {
    if (this.#members.get(member.id) !== member) return;
    this.#members.delete(member.id);
    this.expire(member.id);
  }
}

export class MemoryElection implements Election {
  readonly id: string;
  readonly #elections: MemoryElections;
  readonly #candidate: Candidate;
  readonly #listeners: ((view: ElectionView) => void)[] = [];
  #view: ElectionView = { shouldLead: false, leaderId: undefined, candidates: [], connected: false };
  /** The process stands still, or is cut off: it hears nothing. */
  isDeaf = false;

  constructor(elections: MemoryElections, candidate: Candidate) {
    this.#elections = elections;
    this.#candidate = candidate;
    this.id = candidate.id;
  }

  get view(): ElectionView {
    return this.#view;
  }

  onChange(listener: (view: ElectionView) => void): void {
    this.#listeners.push(listener);
  }

  async start(): Promise<void> {
    this.#elections.enter(this.#candidate);
  }

  announce(epoch: number): void {
    if (!this.isDeaf) this.#elections.announce(this.id, epoch);
  }

  async yieldTo(id: string | undefined): Promise<void> {
    if (this.isDeaf) throw new HeadpondError("unavailable", "the election does not answer");
    this.#elections.reorder(this.id, id);
  }

  async close(): Promise<void> {
    this.#elections.leave(this);
  }

  hear(view: ElectionView): void {
    if (this.isDeaf) return;
    this.#view = view;
    for (const listener of this.#listeners) listener(view);
  }

  lose(): void {
    this.hear({ ...this.#view, connected: false });
  }

  /** Whatever the others are told. */
  pretend(shouldLead: boolean): void {
    this.#view = { ...this.#view, shouldLead };
    for (const listener of this.#listeners) listener(this.#view);
  }
}
