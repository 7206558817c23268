/**
 * A small client of ZooKeeper: what an election and a pointer need, done by the rules of the Java client (session.ts). Neither client on
 * npm can be used for fencing: one turns `check(path, 0)` into "any version" and never notices a dead session, the other has no `multi`.
 *
 * One object is one session. When it has expired the object is of no more use: ephemeral nodes are gone, and whatever was
 * believed because of them is not true any more. Leaves out: reconfiguration, quotas, read-only servers.
 */

import { HeadpondError } from "../base/errors.ts";
import type { JuteReader, JuteWriter } from "./jute.ts";
import {
  type Acl,
  type CreateMode,
  checkNodePath,
  createFlags,
  createTtlFlags,
  openAcl,
  operation,
  readStat,
  rolledBack,
  type Stat,
  writeAcl,
  zookeeperError,
} from "./protocol.ts";
import { type Request, Session, type SessionOptions, type SessionState } from "./session.ts";
import type { WatchListener } from "./watches.ts";

export type CreateOptions = {
  readonly mode?: CreateMode;
  readonly acl?: readonly Acl[];
  /** The node goes when it was not changed for so long and has no children; only for persistent ones. */
  readonly ttlMs?: number;
};

/** One part of a `multi`. Version -1: any. */
export type Operation =
  | { readonly kind: "create"; readonly path: string; readonly data: Uint8Array; readonly options?: CreateOptions }
  | { readonly kind: "set"; readonly path: string; readonly data: Uint8Array; readonly version: number }
  | { readonly kind: "remove"; readonly path: string; readonly version: number }
  | { readonly kind: "check"; readonly path: string; readonly version: number };

export type OperationResult =
  | { readonly kind: "create"; readonly path: string }
  | { readonly kind: "set"; readonly stat: Stat }
  | { readonly kind: "remove" | "check" };

const anyVersion = -1;
/** The servers' limit of one request is 1 MiB by default (jute.maxbuffer). */
const dataBytesMax = 1024 * 1024 - 1024;
const persistentMode = 0;
const recursiveMode = 1;

export class ZooKeeper {
  readonly #session: Session;
  readonly #listeners = new Set<(state: SessionState) => void>();
  #requestCount = 0;

  constructor(options: Omit<SessionOptions, "onState">) {
    this.#session = new Session({
      ...options,
      onState: (state) => {
        for (const listener of this.#listeners) listener(state);
      },
    });
  }

  get state(): SessionState {
    return this.#session.state;
  }

  /** Tells of changes from now on; the answer ends it. */
  onState(listener: (state: SessionState) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /** 0 before the first connection. An ephemeral node's `ephemeralOwner` is this if it is ours. */
  get sessionId(): bigint {
    return this.#session.sessionId;
  }

  /** As negotiated with the servers. */
  get sessionTimeoutMs(): number {
    return this.#session.timeoutMs;
  }

  /** The session was alive at this time by the monotonic clock: when the youngest answered request was sent. */
  get lastTouchMs(): number | undefined {
    return this.#session.lastTouchMs;
  }

  /** Requests that were made in this session, pings not counted. */
  get requestCount(): number {
    return this.#requestCount;
  }

  /** `path` is the real one, with the number of a sequential node. `already-exists`, `not-found` (the parent). */
  create(
    path: string,
    data: Uint8Array = new Uint8Array(0),
    options: CreateOptions = {},
  ): Promise<{ readonly path: string; readonly stat: Stat }> {
    const { code, write } = creation(path, data, options);
    return this.#ask({ what: `create ${path}`, code, changes: true, write, read: createReader(path) });
  }

  /** `not-found`, `not-empty`, `version-mismatch`. */
  remove(path: string, version = anyVersion): Promise<void> {
    checkNodePath(path);
    return this.#ask({
      what: `remove ${path}`,
      code: operation.delete,
      changes: true,
      write: (writer) => writer.text(path).int(version),
      read: (_reader, error) => throwIf(error, `remove ${path}`),
    });
  }

  /** `undefined`: there is no such node; a watch then tells of its creation. */
  exists(path: string, watch?: WatchListener): Promise<Stat | undefined> {
    checkNodePath(path);
    return this.#ask({
      what: `exists ${path}`,
      code: operation.exists,
      changes: false,
      write: (writer) => writer.text(path).boolean(watch !== undefined),
      read: (reader, error) => {
        if (isNoNode(error)) {
          if (watch !== undefined) this.#session.watches.add("exists", path, watch);
          return undefined;
        }
        throwIf(error, `exists ${path}`);
        if (watch !== undefined) this.#session.watches.add("data", path, watch);
        return readStat(reader);
      },
    });
  }

  /** `not-found`. */
  get(path: string, watch?: WatchListener): Promise<{ readonly data: Buffer; readonly stat: Stat }> {
    checkNodePath(path);
    return this.#ask({
      what: `get ${path}`,
      code: operation.getData,
      changes: false,
      write: (writer) => writer.text(path).boolean(watch !== undefined),
      read: (reader, error) => {
        throwIf(error, `get ${path}`);
        if (watch !== undefined) this.#session.watches.add("data", path, watch);
        return { data: reader.buffer(), stat: readStat(reader) };
      },
    });
  }

  /** `not-found`, `version-mismatch`. */
  set(path: string, data: Uint8Array, version = anyVersion): Promise<Stat> {
    checkNodePath(path);
    checkData(path, data);
    return this.#ask({
      what: `set ${path}`,
      code: operation.setData,
      changes: true,
      write: (writer) => writer.text(path).buffer(data).int(version),
      read: (reader, error) => {
        throwIf(error, `set ${path}`);
        return readStat(reader);
      },
    });
  }

  /** Names, in no order. `not-found`. */
  children(path: string, watch?: WatchListener): Promise<{ readonly names: readonly string[]; readonly stat: Stat }> {
    checkNodePath(path);
    return this.#ask({
      what: `list ${path}`,
      code: operation.getChildren2,
      changes: false,
      write: (writer) => writer.text(path).boolean(watch !== undefined),
      read: (reader, error) => {
        throwIf(error, `list ${path}`);
        if (watch !== undefined) this.#session.watches.add("children", path, watch);
        return { names: reader.texts(), stat: readStat(reader) };
      },
    });
  }

  /** What is read after it is at least as new as what anybody had written before it. */
  sync(path: string): Promise<void> {
    checkNodePath(path);
    return this.#ask({
      what: `sync ${path}`,
      code: operation.sync,
      changes: false,
      write: (writer) => writer.text(path),
      read: (_reader, error) => throwIf(error, `sync ${path}`),
    });
  }

  /**
   * Hears of changes at a path, or at and below it, until the returned function is called or the session is over. One path is watched
   * in one of the two ways: the servers replace one by the other.
   */
  async addWatch(path: string, kind: "persistent" | "recursive", listener: WatchListener): Promise<() => void> {
    checkNodePath(path);
    if (this.#session.watches.has(kind === "recursive" ? "persistent" : "recursive", path)) {
      throw new HeadpondError("invalid", `ZooKeeper: ${path} is watched already, and not as ${kind}`);
    }
    await this.#ask({
      what: `watch ${path}`,
      code: operation.addWatch,
      changes: false,
      write: (writer) => writer.text(path).int(kind === "recursive" ? recursiveMode : persistentMode),
      read: (_reader, error) => {
        throwIf(error, `watch ${path}`);
        this.#session.watches.add(kind, path, listener);
      },
    });
    return () => this.#session.watches.remove(kind, path, listener);
  }

  /** All or nothing. Rejects with the error of the operation that failed; `details.operation` is its position. */
  multi(operations: readonly Operation[]): Promise<readonly OperationResult[]> {
    const what = `multi of ${operations.map(({ kind, path }) => `${kind} ${path}`).join(", ")}`;
    const parts = operations.map(part);
    return this.#ask({
      what,
      code: operation.multi,
      changes: operations.some(({ kind }) => kind !== "check"),
      write: (writer) => {
        for (const { code, write } of parts) {
          writer.int(code).boolean(false).int(-1);
          write(writer);
        }
        writer.int(-1).boolean(true).int(-1);
      },
      read: (reader, error) => readResults(reader, error, operations, what),
    });
  }

  /** Ends the session: its ephemeral nodes go at once, if a server can be reached. */
  close(): Promise<void> {
    return this.#session.close();
  }

  #ask<Reply>(request: Request<Reply>): Promise<Reply> {
    this.#requestCount++;
    return this.#session.request(request);
  }
}

type Part = { readonly code: number; readonly write: (writer: JuteWriter) => void };

function part(item: Operation): Part {
  const { path } = item;
  switch (item.kind) {
    case "create":
      return creation(path, item.data, item.options ?? {});
    case "set":
      checkNodePath(path);
      checkData(path, item.data);
      return { code: operation.setData, write: (writer) => writer.text(path).buffer(item.data).int(item.version) };
    case "remove":
    case "check": {
      checkNodePath(path);
      const code = item.kind === "remove" ? operation.delete : operation.check;
      return { code, write: (writer) => writer.text(path).int(item.version) };
    }
    default:
      return item satisfies never;
  }
}

function creation(path: string, data: Uint8Array, options: CreateOptions): Part {
  const { mode = "persistent", acl = openAcl, ttlMs } = options;
  // The number is put behind the path, so that of a sequential node may end with a slash.
  checkNodePath(mode.endsWith("-sequential") && path.endsWith("/") ? `${path}0` : path);
  checkData(path, data);
  const write = (writer: JuteWriter): void => {
    writer.text(path).buffer(data);
    writeAcl(writer, acl);
  };
  if (ttlMs === undefined) {
    const code = mode === "container" ? operation.createContainer : operation.create2;
    return {
      code,
      write: (writer) => {
        write(writer);
        writer.int(createFlags[mode]);
      },
    };
  }
  if (mode !== "persistent" && mode !== "persistent-sequential") {
    throw new HeadpondError(
      "invalid",
      `${path}: only a persistent node can have a time to live, not one that is ${mode}`,
    );
  }
  return {
    code: operation.createTtl,
    write: (writer) => {
      write(writer);
      writer.int(createTtlFlags[mode]).long(BigInt(ttlMs));
    },
  };
}

function createReader(path: string) {
  return (reader: JuteReader, error: number): { readonly path: string; readonly stat: Stat } => {
    throwIf(error, `create ${path}`);
    return { path: reader.text(), stat: readStat(reader) };
  };
}

function readResults(
  reader: JuteReader,
  error: number,
  operations: readonly Operation[],
  what: string,
): readonly OperationResult[] {
  const errors: number[] = [];
  const results: OperationResult[] = [];
  // A failed multi carries one error for each operation; a request that was not even looked into has no body.
  while (!reader.isAtEnd) {
    const type = reader.int();
    const isEnd = reader.boolean();
    const number = reader.int();
    if (isEnd) break;
    if (type === -1) {
      errors.push(reader.int());
      continue;
    }
    if (number !== 0) throw zookeeperError(number, what);
    results.push(readResult(reader, type));
  }
  const position = errors.findIndex((number) => number !== 0 && number !== rolledBack);
  const failed = operations[position];
  if (failed !== undefined) {
    const cause = zookeeperError(errors[position] as number, `${failed.kind} ${failed.path} in ${what}`);
    const details = { ...cause.details, operation: position };
    throw new HeadpondError(cause.code, cause.message, { details });
  }
  throwIf(error, what);
  if (errors.length > 0 || results.length !== operations.length) {
    throw new HeadpondError("corrupt", `ZooKeeper: ${what}: ${results.length} results came for ${operations.length}`);
  }
  return results;
}

function readResult(reader: JuteReader, type: number): OperationResult {
  switch (type) {
    // Servers turn a `create2` in a multi into a plain `create`.
    case operation.create:
      return { kind: "create", path: reader.text() };
    case operation.create2:
    case operation.createContainer:
    case operation.createTtl: {
      const path = reader.text();
      readStat(reader);
      return { kind: "create", path };
    }
    case operation.setData:
      return { kind: "set", stat: readStat(reader) };
    case operation.delete:
      return { kind: "remove" };
    case operation.check:
      return { kind: "check" };
    default:
      throw new HeadpondError("corrupt", `ZooKeeper answered with a result of kind ${type}`);
  }
}

function isNoNode(error: number): boolean {
  return error === -101;
}

function throwIf(error: number, what: string): void {
  if (error !== 0) throw zookeeperError(error, what);
}

function checkData(path: string, data: Uint8Array): void {
  if (data.length <= dataBytesMax) return;
  throw new HeadpondError("invalid", `${path}: ${data.length} bytes are more than a node can hold (${dataBytesMax})`);
}
