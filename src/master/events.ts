/**
 * Changes of the namespace for watchers. The last changes are kept in a ring, as the commands that made them; a watcher
 * that asks for older ones is told `compacted` and has to look at the tree itself (docs/decisions/0060): the log has the
 * commands, but not which of them succeeded. The ring begins anew with each leader.
 */

import { HeadpondError } from "../base/errors.ts";
import type { InodeId } from "../base/ids.ts";
import { isWithin, type Path } from "../base/path.ts";
import type { Command, CommandResult } from "../namespace/command.ts";
import type { Intent } from "../namespace/registry.ts";
import type { ChangeEvent } from "../rpc/master-service.ts";
import { PushQueue } from "./push-queue.ts";

export type EventLimits = {
  readonly keptMax: number;
  readonly watchersMax: number;
  /** Events that one watcher may be behind. */
  readonly queuedMax: number;
};

export const eventLimits: EventLimits = { keptMax: 65_536, watchersMax: 1000, queuedMax: 100_000 };

type Watcher = { readonly path: Path; readonly queue: PushQueue<ChangeEvent> };

export class EventLog {
  readonly #limits: EventLimits;
  readonly #pathOf: (inodeId: InodeId) => Path | undefined;
  readonly #intentOf: (id: number) => Intent | undefined;
  #ring: (ChangeEvent | undefined)[] = [];
  #next = 0;
  /** Everything from this index on is in the ring. */
  #firstIndex = 1;
  #lastIndex = 0;
  readonly #watchers = new Set<Watcher>();

  constructor(dependencies: {
    readonly pathOf: (inodeId: InodeId) => Path | undefined;
    readonly intentOf: (id: number) => Intent | undefined;
    readonly limits?: Partial<EventLimits>;
  }) {
    this.#pathOf = dependencies.pathOf;
    this.#intentOf = dependencies.intentOf;
    this.#limits = { ...eventLimits, ...dependencies.limits };
  }

  get watcherCount(): number {
    return this.#watchers.size;
  }

  /** A leader begins behind `appliedIndex`. */
  begin(appliedIndex: number): void {
    this.#ring = [];
    this.#next = 0;
    this.#firstIndex = appliedIndex + 1;
    this.#lastIndex = appliedIndex;
    this.end(new HeadpondError("compacted", "another master leads now: look at the tree, then watch again"));
  }

  /** Ends all watchers. */
  end(error?: Error): void {
    for (const { queue } of this.#watchers) queue.end(error);
    this.#watchers.clear();
  }

  /** An intent as it was before `finish-intent` is applied, which forgets it. */
  intentBefore(command: Command): Intent | undefined {
    return command.kind === "finish-intent" ? this.#intentOf(command.intentId) : undefined;
  }

  applied(index: number, command: Command, result: CommandResult, intent?: Intent): void {
    this.#lastIndex = Math.max(this.#lastIndex, index);
    if (!result.ok) return;
    const event = this.#eventOf(index, command, result, intent);
    if (event === undefined) return;
    if (this.#ring.length < this.#limits.keptMax) {
      this.#ring.push(event);
    } else {
      this.#firstIndex = Math.max(this.#firstIndex, (this.#ring[this.#next]?.index ?? 0) + 1);
      this.#ring[this.#next] = event;
    }
    this.#next = (this.#next + 1) % this.#limits.keptMax;
    for (const watcher of this.#watchers) if (concerns(event, watcher.path)) watcher.queue.push(event);
  }

  /** From `fromIndex` on (absent: from now). Throws `compacted` or `overloaded`. Ends when the signal fires. */
  async *watch(
    path: Path,
    fromIndex: number | undefined,
    signal: AbortSignal,
  ): AsyncGenerator<{ events: ChangeEvent[]; index: number }> {
    if (fromIndex !== undefined && fromIndex < this.#firstIndex) {
      throw new HeadpondError(
        "compacted",
        `changes before ${this.#firstIndex} are not kept: look at the tree, then watch`,
        {
          details: { firstIndex: this.#firstIndex },
        },
      );
    }
    if (this.#watchers.size >= this.#limits.watchersMax) {
      throw new HeadpondError("overloaded", `there are ${this.#watchers.size} watchers already`);
    }
    const queue = new PushQueue<ChangeEvent>({ name: `changes below ${path}`, limit: this.#limits.queuedMax });
    const watcher = { path, queue };
    const onAbort = (): void => queue.end();
    const past = fromIndex === undefined ? [] : this.#past(path, fromIndex);
    const index = this.#lastIndex;
    this.#watchers.add(watcher);
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      // The first item says from where on the watcher sees everything.
      yield { events: past, index };
      for await (const event of queue) yield { events: [event], index: event.index };
    } finally {
      signal.removeEventListener("abort", onAbort);
      this.#watchers.delete(watcher);
    }
  }

  #past(path: Path, fromIndex: number): ChangeEvent[] {
    return this.#ring
      .filter((event): event is ChangeEvent => event !== undefined && event.index >= fromIndex && concerns(event, path))
      .sort((a, b) => a.index - b.index);
  }

  #eventOf(
    index: number,
    command: Command,
    result: CommandResult,
    intent: Intent | undefined,
  ): ChangeEvent | undefined {
    const { timeMs } = command;
    const inodeId = "inodeId" in result ? result.inodeId : undefined;
    const event = (kind: string, path: Path, to?: Path): ChangeEvent => {
      const made: ChangeEvent = { index, timeMs, kind, path };
      if (to !== undefined) made.to = to;
      if (inodeId !== undefined) made.inodeId = inodeId;
      return made;
    };
    // What waits for its under store is told when it has happened.
    if ("intentId" in result && result.intentId !== undefined) return undefined;
    switch (command.kind) {
      case "create":
      case "mkdir":
        return "created" in result && result.created ? event("created", command.path) : undefined;
      case "complete": {
        const path = inodeId === undefined ? undefined : this.#pathOf(inodeId);
        return path === undefined ? undefined : event("completed", path);
      }
      case "remove":
        return event("removed", command.path);
      case "rename":
        return event("renamed", command.from, command.to);
      case "set-attributes":
      case "pin":
      case "ttl":
      case "replicas":
        return event("changed", command.path);
      case "mount":
        return event("mounted", command.path);
      case "unmount":
        return event("unmounted", command.path);
      case "sync-rows":
      case "sync-end": {
        const changed = "added" in result && (result.added > 0 || result.changed > 0 || result.removed > 0);
        const path = changed ? this.#pathOf(command.directoryInodeId) : undefined;
        return path === undefined
          ? undefined
          : { index, timeMs, kind: "changed", path, inodeId: command.directoryInodeId };
      }
      case "finish-intent": {
        if (intent === undefined || command.outcome !== "done") return undefined;
        if (intent.kind === "mkdir") return event("created", intent.path);
        if (intent.kind === "remove") return event("removed", intent.path);
        return intent.kind === "rename" ? event("renamed", intent.path, intent.toPath) : undefined;
      }
      default:
        return undefined;
    }
  }
}

function concerns(event: ChangeEvent, path: Path): boolean {
  return isWithin(event.path, path) || (event.to !== undefined && isWithin(event.to, path));
}
