/**
 * Reads that wait for the right to be answered from the local state. All that are asked for in one turn share one
 * question to the core; granted, they wait until the state has come as far as they need.
 */

import type { HeadpondError } from "../base/errors.ts";

type Waiter = { readonly resolve: () => void; readonly reject: (error: HeadpondError) => void };
type Group = { readonly waiters: readonly Waiter[]; readonly calledAtMs: number };

export class RaftBarriers {
  #queue: Waiter[] = [];
  #queuedAtMs = 0;
  #lastContext = 0;
  /** Asked for, by context. */
  readonly #asked = new Map<number, Group>();
  /** Granted, for the state to reach an index. */
  #granted: (Group & { readonly index: number })[] = [];
  #count = 0;
  #passedAtMs: number | undefined;

  /** Waiting reads. */
  get count(): number {
    return this.#count;
  }

  /** Milliseconds since which the state is known to hold all that was acknowledged: since the newest barrier that was passed was called. */
  freshnessMs(nowMs: number): number | undefined {
    return this.#passedAtMs === undefined ? undefined : nowMs - this.#passedAtMs;
  }

  /** The state is about to be replaced: until then it is nothing to read. */
  forgetPassed(): void {
    this.#passedAtMs = undefined;
  }

  add(nowMs: number): Promise<void> {
    if (this.#queue.length === 0) this.#queuedAtMs = nowMs;
    this.#count++;
    return new Promise((resolve, reject) => this.#queue.push({ resolve, reject }));
  }

  /** A context to ask for on behalf of all that wait for a question; `undefined` if none does. */
  takeQuestion(): number | undefined {
    if (this.#queue.length === 0) return undefined;
    const context = ++this.#lastContext;
    this.#asked.set(context, { waiters: this.#queue, calledAtMs: this.#queuedAtMs });
    this.#queue = [];
    return context;
  }

  /** It was not answered: whoever waits for it is asked for again. */
  again(context: number): void {
    const group = this.#asked.get(context);
    if (group === undefined) return;
    this.#asked.delete(context);
    this.#queue = [...group.waiters, ...this.#queue];
    this.#queuedAtMs = group.calledAtMs;
  }

  granted(context: number, index: number, appliedIndex: number): void {
    const group = this.#asked.get(context);
    if (group === undefined) return;
    this.#asked.delete(context);
    if (index <= appliedIndex) this.#pass(group);
    else this.#granted.push({ ...group, index });
  }

  refused(context: number, error: HeadpondError): void {
    const group = this.#asked.get(context);
    if (group === undefined) return;
    this.#asked.delete(context);
    this.#reject(group.waiters, error);
  }

  applied(index: number): void {
    if (this.#granted.length === 0) return;
    const passed = this.#granted.filter((group) => group.index <= index);
    if (passed.length === 0) return;
    this.#granted = this.#granted.filter((group) => group.index > index);
    for (const group of passed) this.#pass(group);
  }

  /** The log ends before what they wait for: they are asked for anew. */
  askAgain(): void {
    const groups = this.#granted;
    this.#granted = [];
    if (groups.length === 0) return;
    this.#queue = [...groups.flatMap(({ waiters }) => waiters), ...this.#queue];
    this.#queuedAtMs = Math.min(...groups.map(({ calledAtMs }) => calledAtMs));
  }

  endAll(error: HeadpondError): void {
    const groups = [...this.#asked.values(), ...this.#granted];
    this.#asked.clear();
    this.#granted = [];
    const queue = this.#queue;
    this.#queue = [];
    this.#reject(queue, error);
    for (const { waiters } of groups) this.#reject(waiters, error);
  }

  #pass({ waiters, calledAtMs }: Group): void {
    this.#passedAtMs = Math.max(this.#passedAtMs ?? calledAtMs, calledAtMs);
    this.#count -= waiters.length;
    for (const { resolve } of waiters) resolve();
  }

  #reject(waiters: readonly Waiter[], error: HeadpondError): void {
    this.#count -= waiters.length;
    for (const { reject } of waiters) reject(error);
  }
}
