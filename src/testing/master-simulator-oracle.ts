/**
 * What must hold in a simulated cluster at every moment: states are equal where their indexes are, what was applied was durable, reads
 * without a round are a privilege of one, and no proposer is left waiting by a master that leads no more. What clients saw is
 * judged at the end, by the linearizability checker.
 */

import type { Machine, MasterLife } from "./master-simulator-machine.ts";
import type { SimWorld } from "./sim-world.ts";

/** A promise that was broken. */
export class Violation extends Error {
  override readonly name = "Violation";
}

/** How long a proposal may wait at a master that runs, leads no more and has nothing left to apply. */
const promptMs = 1000;

type Applied = { readonly term: number; readonly digest: string; readonly by: string };
type Waiting = { readonly sinceMs: number };

export class MasterOracle {
  readonly #world: SimWorld;
  /** By index: what the first master that stopped there had. */
  readonly #applied = new Map<number, Applied>();
  /** By machine: the last entry that it applied on this disk. */
  readonly #reached = new Map<Machine, number>();
  readonly #waiting = new Map<MasterLife, Set<Waiting>>();
  /** The first broken promise; code under simulation may have swallowed the throw. */
  violation: Violation | undefined;
  comparedStates = 0;
  leaseReads = 0;

  constructor(world: SimWorld) {
    this.#world = world;
  }

  get highestIndex(): number {
    return Math.max(0, ...this.#applied.keys());
  }

  applied(machine: Machine, life: MasterLife): void {
    const { index, term } = life.namespace.applied;
    const digest = life.namespace.digest();
    const known = this.#applied.get(index);
    this.#reached.set(machine, index);
    if (known === undefined) {
      this.#applied.set(index, { term, digest, by: life.process.name });
      return;
    }
    this.comparedStates++;
    if (known.term === term && known.digest === digest) return;
    this.fail(
      `${life.process.name} has term ${term} and digest ${digest} at index ${index}, ${known.by} had ${known.term} and ${known.digest}`,
    );
  }

  /** After a start on the same disk: what was applied before was in the log. */
  recovered(machine: Machine, life: MasterLife): void {
    const before = this.#reached.get(machine) ?? 0;
    const { lastIndex } = life.journal.status();
    if (lastIndex < before) {
      this.fail(`${life.process.name} had applied ${before} entries, and has only ${lastIndex} in its log`);
    }
    this.applied(machine, life);
  }

  wiped(machine: Machine): void {
    this.#reached.delete(machine);
  }

  /** Follows each proposal to its answer. */
  watch(life: MasterLife): void {
    const waiting = new Set<Waiting>();
    this.#waiting.set(life, waiting);
    const { journal, process } = life;
    const propose = journal.propose.bind(journal);
    journal.propose = (payload) => {
      const one: Waiting = { sinceMs: this.#world.nowMs };
      waiting.add(one);
      const end = (): void => void waiting.delete(one);
      const proposed = propose(payload);
      proposed.then(end, end);
      return proposed;
    };
    process.onDeath(() => this.#waiting.delete(life));
  }

  /** After every event. */
  check(machines: readonly Machine[]): void {
    if (this.violation !== undefined) throw this.violation;
    let reader: Machine | undefined;
    for (const machine of machines) {
      if (machine.journal?.mayRead !== true) continue;
      this.leaseReads++;
      if (reader !== undefined) {
        this.fail(`${reader.id} and ${machine.id} may both read without asking: two leases at once`);
        throw this.violation as unknown as Violation;
      }
      reader = machine;
    }
  }

  /** Now and then: machines whose disk hangs or who are paused have an excuse. */
  checkPromptness(machines: readonly Machine[]): void {
    for (const machine of machines) {
      const { life, journal } = machine;
      if (life === undefined || journal === undefined || life.process.isPaused) continue;
      if (machine.lastTroubleMs + promptMs > this.#world.nowMs || journal.role === "leader") continue;
      const { appliedIndex, commitIndex } = journal.status();
      if (appliedIndex < commitIndex) continue;
      for (const { sinceMs } of this.#waiting.get(life) ?? []) {
        const waitedMs = this.#world.nowMs - sinceMs;
        if (waitedMs > 2 * promptMs)
          this.fail(`${life.process.name} leads no more and has left a proposal without an answer for ${waitedMs} ms`);
      }
    }
  }

  fail(message: string): void {
    this.#world.note(`violation: ${message}`);
    this.violation ??= new Violation(message);
  }
}
