/**
 * What one client or worker believes about the masters, from all that they tell it: who they are, where, and who leads. It asks
 * nobody and waits for nothing.
 *
 * Of two claims the one of the higher term counts, so an old leader that was cut off or paused is not believed once anybody
 * has told of its successor, and beliefs never go back and forth. Who belongs to the masters only a leader says; before one was
 * heard, everyone who was named counts.
 */

import type { MasterList } from "../base/masters.ts";

export class MasterDirectory {
  readonly #seeds: readonly string[];
  /** Where the masters are, by id, as far as their addresses are known. */
  #members = new Map<string, string>();
  #membersTerm = -1;
  #term = -1;
  #leader: string | undefined;
  #readyTerm = -1;
  /** Who said that it does not lead, and in which term: claims that are older mean nothing. */
  #denied: { readonly address: string; readonly term: number } | undefined;
  /** The addresses under which masters have answered, by id: one that was given may differ from the one that they tell. */
  readonly #reachedAt = new Map<string, string>();

  /** `seeds`: addresses that the user gave. */
  constructor(seeds: readonly string[]) {
    this.#seeds = seeds;
  }

  /** Highest term of a leader that was heard of; -1: none yet. */
  get term(): number {
    return this.#term;
  }

  /** The address of the leader of that term, unless it has denied it. */
  get leader(): string | undefined {
    return this.#leader;
  }

  /** The last term whose leader said that it has taken over. */
  get readyTerm(): number {
    return this.#readyTerm;
  }

  /** Whether a leader has said who the masters are. */
  get isComplete(): boolean {
    return this.#membersTerm >= 0;
  }

  /** By id. */
  get members(): ReadonlyMap<string, string> {
    return this.#members;
  }

  /** All masters to ask: the members first; seeds that are no addresses of theirs may still lead to one. */
  get addresses(): readonly string[] {
    return [...new Set([...this.#members.values(), ...this.#seeds])];
  }

  /** What the master at `from` says. True: another one leads than before, or is where it was not. */
  note(from: string, list: MasterList): boolean {
    this.#reachedAt.set(list.self, from);
    this.#noteMembers(list);
    const { leader, term, leads } = list;
    if (leader === undefined) return false;
    if (leads === true) this.#readyTerm = Math.max(this.#readyTerm, term);
    const address = this.#members.get(leader);
    return address !== undefined && this.#claim(address, term);
  }

  /** A master refused a request and named the one that leads, with its term if it gave one. True: it is believed, and new. */
  hint(address: string, term: number | undefined): boolean {
    if (term === undefined) {
      // Of masters that tell no terms the last word counts.
      if (this.#term >= 0 || this.#leader === address) return false;
      this.#leader = address;
      return true;
    }
    return this.#claim(address, term);
  }

  /** The master at `address` says that it does not lead in `term`. True: so nobody is known to lead. */
  deny(address: string, term: number | undefined): boolean {
    if (this.#leader !== address) return false;
    if (term !== undefined && term < this.#term) return false;
    this.#denied = { address, term: Math.max(term ?? this.#term, this.#term) };
    this.#leader = undefined;
    return true;
  }

  /** The master cannot be reached where it was: the address that it tells the others may be a better one. */
  unreachable(address: string): void {
    for (const [id, at] of this.#reachedAt) if (at === address) this.#reachedAt.delete(id);
  }

  #noteMembers(list: MasterList): void {
    const isLeaders = list.leader === list.self;
    if (isLeaders ? list.term < this.#membersTerm : this.#membersTerm >= 0) {
      this.#noteAddresses(list);
      return;
    }
    const members = new Map(isLeaders ? [] : this.#members);
    for (const { id, rpc } of list.masters) {
      const address = this.#reachedAt.get(id) ?? rpc;
      if (address !== undefined) members.set(id, address);
    }
    this.#members = members;
    if (isLeaders) this.#membersTerm = list.term;
  }

  /** Members whose address the leader did not know yet, or that cannot be reached where it said. */
  #noteAddresses(list: MasterList): void {
    if (list.term < this.#membersTerm) return;
    for (const { id, rpc } of list.masters) {
      const address = this.#reachedAt.get(id) ?? rpc;
      if (address !== undefined && this.#members.has(id)) this.#members.set(id, address);
    }
  }

  #claim(address: string, term: number): boolean {
    if (term < this.#term) return false;
    if (this.#denied !== undefined) {
      if (term < this.#denied.term || (term === this.#denied.term && address === this.#denied.address)) return false;
      this.#denied = undefined;
    }
    const isNew = term !== this.#term || this.#leader !== address;
    this.#term = term;
    this.#leader = address;
    return isNew;
  }
}
