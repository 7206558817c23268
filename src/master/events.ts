/**
 * Changes of the namespace for watchers, on every master: the last ones are kept in a ring, by the index of the commands that
 * made them, as they are applied. A watcher can go on at another master where it stopped at one; one that asks for older changes than
 * the ring has is told `compacted` and has to look at the tree itself (docs/decisions/0135): the log has the commands, but not
 * which of them succeeded.
 */

import { HeadpondError } from "../base/errors.ts";
import type { InodeId } from "../base/ids.ts";
import { isWithin, type Path } from "../base/path.ts";
import type { Command, CommandResult } from "../namespace/command.ts";
import type { Intent } from "../namespace/registry.ts";
import type { ChangeEvent } from "../rpc/master-service.ts";
import { ChangeRing, changeEvent } from "./change-ring.ts";
import { PushQueue } from "./push-queue.ts";

export type EventLimits = {
  readonly keptMax: number;
  readonly watchersMax: number;
  /** Events that one watcher may be behind. */
  readonly queuedMax: number;
};

export const eventLimits: EventLimits = { keptMax: 65_536, watchersMax: 1000, queuedMax: 100_000 };

type Watcher = { readonly path: Path; readonly fromIndex: number; readonly queue: PushQueue<ChangeEvent> };

export class EventLog {
  readonly #limits: EventLimits;
  readonly #pathOf: (inodeId: InodeId) => Path | undefined;
  #ring: ChangeRing;
  /** Everything from this index on is in the ring. */
  #firstIndex = 1;
  #lastIndex = 0;
  readonly #watchers = new Set<Watcher>();

  constructor(dependencies: {
    readonly pathOf: (inodeId: InodeId) => Path | undefined;
    readonly limits?: Partial<EventLimits>;
  }) {
    this.#pathOf = dependencies.pathOf;
    this.#limits = { ...eventLimits, ...dependencies.limits };
    this.#ring = new ChangeRing(this.#limits.keptMax);
  }

  get watcherCount(): number {
    return this.#watchers.size;
  }

  /** The state is another one than before, as of `appliedIndex`: what made it so is not known. */
  begin(appliedIndex: number): void {
    this.#ring = new ChangeRing(this.#limits.keptMax);
    this.#firstIndex = appliedIndex + 1;
    this.#lastIndex = appliedIndex;
    this.end(this.#compacted());
  }

  /** Ends all watchers. */
  end(error?: Error): void {
    for (const { queue } of this.#watchers) queue.end(error);
    this.#watchers.clear();
  }

  /** In the order of their indexes. `intent`: of `finish-intent`, as it was before. */
  applied(index: number, command: Command, result: CommandResult, intent: Intent | undefined): void {
    this.#lastIndex = index;
    if (!result.ok) return;
    // What waits for its under store is told when it has happened.
    if ("intentId" in result && result.intentId !== undefined) return;
    const inodeId = "inodeId" in result ? result.inodeId : 0;
    switch (command.kind) {
      case "create":
      case "mkdir":
        if ("created" in result && result.created) this.#add(index, command, "created", command.path, inodeId);
        return;
      case "complete":
        this.#add(index, command, "completed", this.#pathOf(command.inodeId), inodeId);
        return;
      case "remove":
        this.#add(index, command, "removed", command.path, inodeId);
        return;
      case "rename":
        this.#add(index, command, "renamed", command.from, inodeId, command.to);
        return;
      case "set-attributes":
      case "pin":
      case "ttl":
      case "replicas":
        this.#add(index, command, "changed", command.path, inodeId);
        return;
      case "mount":
        this.#add(index, command, "mounted", command.path, inodeId);
        return;
      case "unmount":
        this.#add(index, command, "unmounted", command.path, inodeId);
        return;
      case "sync-rows":
      case "sync-end": {
        const { directoryInodeId } = command;
        const changed = "added" in result && (result.added > 0 || result.changed > 0 || result.removed > 0);
        if (changed) this.#add(index, command, "changed", this.#pathOf(directoryInodeId), directoryInodeId);
        return;
      }
      case "finish-intent":
        if (intent !== undefined && command.outcome === "done") this.#addOfIntent(index, command, intent, inodeId);
        return;
      default:
    }
  }

  /** From `fromIndex` on (absent: from now). Throws `compacted` or `overloaded`. Ends when the signal fires. */
  async *watch(
    path: Path,
    fromIndex: number | undefined,
    signal: AbortSignal,
  ): AsyncGenerator<{ events: ChangeEvent[]; index: number }> {
    if (fromIndex !== undefined && fromIndex < this.#firstIndex) throw this.#compacted();
    if (this.#watchers.size >= this.#limits.watchersMax) {
      throw new HeadpondError("overloaded", `there are ${this.#watchers.size} watchers already`);
    }
    const queue = new PushQueue<ChangeEvent>({ name: `changes below ${path}`, limit: this.#limits.queuedMax });
    // This master may be behind the one that the watcher was at before.
    const watcher = { path, fromIndex: fromIndex ?? 0, queue };
    const onAbort = (): void => queue.end();
    const past = fromIndex === undefined ? [] : this.#past(path, fromIndex);
    const index = this.#lastIndex;
    this.#watchers.add(watcher);
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      // The first item says up to where the watcher has seen everything.
      yield { events: past, index };
      for await (const event of queue) yield { events: [event], index: event.index };
    } finally {
      signal.removeEventListener("abort", onAbort);
      this.#watchers.delete(watcher);
    }
  }

  #compacted(): HeadpondError {
    const firstIndex = this.#firstIndex;
    const message = `changes before index ${firstIndex} are not kept here: look at the tree, then watch`;
    return new HeadpondError("compacted", message, { details: { firstIndex } });
  }

  #past(path: Path, fromIndex: number): ChangeEvent[] {
    return this.#ring.since(fromIndex).filter((event) => concerns(event, path));
  }

  #addOfIntent(index: number, command: Command, intent: Intent, inodeId: number): void {
    const { kind, path } = intent;
    if (kind === "mkdir") this.#add(index, command, "created", path, inodeId);
    else if (kind === "remove") this.#add(index, command, "removed", path, inodeId);
    else if (kind === "rename") this.#add(index, command, "renamed", path, inodeId, intent.toPath);
  }

  /** An inode that is nowhere any more has no path, and nothing to tell. */
  #add(index: number, command: Command, kind: string, path: Path | undefined, inodeId: number, to?: Path): void {
    if (path === undefined) return;
    const gone = this.#ring.push(index, command.timeMs, kind, path, to, inodeId);
    if (gone >= this.#firstIndex) this.#firstIndex = gone + 1;
    if (this.#watchers.size === 0) return;
    const event = changeEvent(index, command.timeMs, kind, path, to, inodeId);
    for (const watcher of this.#watchers) {
      if (index >= watcher.fromIndex && concerns(event, watcher.path)) watcher.queue.push(event);
    }
  }
}

function concerns(event: ChangeEvent, path: Path): boolean {
  return isWithin(event.path, path) || (event.to !== undefined && isWithin(event.to, path));
}
