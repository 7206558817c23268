/**
 * Who wants to hear of which nodes. Watches live on the server that the session is connected with, so a new connection sets them
 * again, with the last transaction that was seen: the server answers at once with what was missed.
 */

import { JuteWriter } from "./jute.ts";
import { operation, reservedXid, type WatchEventType } from "./protocol.ts";

export type WatchEvent = { readonly type: WatchEventType; readonly path: string };
export type WatchListener = (event: WatchEvent) => void;

/** `data`, `exists` and `children` are heard once; `persistent` and `recursive` until they are removed. */
export type WatchKind = "data" | "exists" | "children" | "persistent" | "recursive";

const kinds = ["data", "exists", "children", "persistent", "recursive"] as const satisfies readonly WatchKind[];
/** A request must stay below the servers' limit of 1 MiB; the Java client splits at this, too. */
const setWatchesBytes = 128 * 1024;

/** Which one-shot watches an event sets off. */
const heardBy: Readonly<Record<WatchEventType, readonly WatchKind[]>> = {
  created: ["data", "exists"],
  changed: ["data", "exists"],
  deleted: ["data", "exists", "children"],
  children: ["children"],
  removed: [],
};

export class Watches {
  readonly #listeners: Readonly<Record<WatchKind, Map<string, Set<WatchListener>>>> = {
    data: new Map(),
    exists: new Map(),
    children: new Map(),
    persistent: new Map(),
    recursive: new Map(),
  };

  add(kind: WatchKind, path: string, listener: WatchListener): void {
    const at = this.#listeners[kind];
    const listeners = at.get(path);
    if (listeners === undefined) at.set(path, new Set([listener]));
    else listeners.add(listener);
  }

  has(kind: WatchKind, path: string): boolean {
    return this.#listeners[kind].has(path);
  }

  /** The servers may still tell of it; nobody hears it then. */
  remove(kind: WatchKind, path: string, listener: WatchListener): void {
    const listeners = this.#listeners[kind].get(path);
    listeners?.delete(listener);
    if (listeners?.size === 0) this.#listeners[kind].delete(path);
  }

  fire(event: WatchEvent): void {
    const heard = new Set<WatchListener>();
    for (const kind of heardBy[event.type]) {
      for (const listener of this.#listeners[kind].get(event.path) ?? []) heard.add(listener);
      this.#listeners[kind].delete(event.path);
    }
    for (const listener of this.#listeners.persistent.get(event.path) ?? []) heard.add(listener);
    // Recursive ones hear of everything at and below their path, but not separately that children come and go.
    if (event.type !== "children") {
      for (const [path, listeners] of this.#listeners.recursive) {
        if (event.path !== path && !event.path.startsWith(path === "/" ? path : `${path}/`)) continue;
        for (const listener of listeners) heard.add(listener);
      }
    }
    for (const listener of heard) listener(event);
  }

  /** Requests that set all watches again, each of a bounded size. */
  frames(lastZxid: bigint): Buffer[] {
    const frames: Buffer[] = [];
    let batch = emptyBatch();
    let bytes = 0;
    for (const kind of kinds) {
      for (const path of this.#listeners[kind].keys()) {
        if (bytes > 0 && bytes + path.length > setWatchesBytes) {
          frames.push(frameOf(batch, lastZxid));
          batch = emptyBatch();
          bytes = 0;
        }
        batch[kind].push(path);
        bytes += Buffer.byteLength(path) + 4;
      }
    }
    if (bytes > 0) frames.push(frameOf(batch, lastZxid));
    return frames;
  }
}

type Batch = Record<WatchKind, string[]>;

function emptyBatch(): Batch {
  return { data: [], exists: [], children: [], persistent: [], recursive: [] };
}

function frameOf(batch: Batch, lastZxid: bigint): Buffer {
  const writer = new JuteWriter().int(reservedXid.setWatches).int(operation.setWatches2).long(lastZxid);
  for (const kind of kinds) writer.texts(batch[kind]);
  return writer.frame();
}
