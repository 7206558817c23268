/**
 * Drives a namespace as a journal would: keeps the log, crashes the process between flushes, starts again from what the store
 * holds and applies the rest of the log. For tests of the namespace on both of its stores.
 */

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Path } from "../base/path.ts";
import { NodeDisk } from "../io/node-disk.ts";
import type { Command, CommandKind, CommandOf, Failed, ResultOf, Stamp } from "../namespace/command.ts";
import { encodeCommand } from "../namespace/command-codec.ts";
import { LmdbStore } from "../namespace/lmdb-store.ts";
import { MemoryStore } from "../namespace/memory-store.ts";
import { Namespace, type NamespaceOptions } from "../namespace/namespace.ts";
import type { Store } from "../namespace/store.ts";

export type StoreKind = "memory" | "lmdb";
export const storeKinds: readonly StoreKind[] = ["memory", "lmdb"];

type Distribute<T> = T extends Stamp ? Omit<T, "timeMs"> & { timeMs?: number } : never;
export type CommandFields = Distribute<Command>;
type FieldsOf<K extends CommandKind> = Omit<CommandOf<K>, "timeMs" | "kind"> & { timeMs?: number };

type HarnessOptions = Omit<NamespaceOptions, "store"> & { readonly store?: MemoryStore };

export class NamespaceHarness {
  readonly kind: StoreKind;
  readonly #options: HarnessOptions;
  readonly #directory: string;
  readonly log: Buffer[] = [];
  store: Store;
  namespace: Namespace;
  nowMs = 1_000_000;
  /** Entries that crashes lost from the state and the log brought back. */
  replayedEntries = 0;

  private constructor(kind: StoreKind, options: HarnessOptions, directory: string, store: Store) {
    this.kind = kind;
    this.#options = options;
    this.#directory = directory;
    this.store = store;
    this.namespace = this.#make();
  }

  static async open(kind: StoreKind, options: HarnessOptions = {}): Promise<NamespaceHarness> {
    if (kind === "memory") return new NamespaceHarness(kind, options, "", options.store ?? new MemoryStore());
    const directory = await mkdtemp(join(tmpdir(), "headpond-namespace-"));
    return new NamespaceHarness(kind, options, directory, await openStore(directory));
  }

  /** A path for a checkpoint. */
  path(name: string): string {
    return join(this.#directory === "" ? "/memory" : this.#directory, name);
  }

  /** Applies one command and returns its result. */
  run<K extends CommandKind>(kind: K, fields: FieldsOf<K>): ResultOf<K> {
    return this.submit({ kind, ...fields } as unknown as CommandFields) as ResultOf<K>;
  }

  submit(fields: CommandFields): ReturnType<Namespace["apply"]>[number] {
    this.nowMs += 1;
    return this.append(encodeCommand({ timeMs: this.nowMs, ...fields } as Command));
  }

  append(payload: Buffer): ReturnType<Namespace["apply"]>[number] {
    this.log.push(payload);
    const [result] = this.namespace.apply([{ index: this.log.length, term: 1, payload }]);
    return result as ReturnType<Namespace["apply"]>[number];
  }

  /** As a kill of the process: what was not flushed is lost, then applied again from the log. */
  async crash(): Promise<void> {
    if (this.store instanceof MemoryStore) this.store.crash();
    await this.namespace.abandon();
    if (this.kind === "lmdb") {
      await this.store.close();
      this.store = await openStore(this.#directory);
    }
    this.namespace = this.#make();
    this.replay();
  }

  replay(): void {
    const { index } = this.namespace.applied;
    const rest = this.log.slice(index).map((payload, i) => ({ index: index + 1 + i, term: 1, payload }));
    this.replayedEntries += rest.length;
    this.namespace.apply(rest);
  }

  async close(): Promise<void> {
    await this.namespace.close();
    if (this.#directory !== "") await rm(this.#directory, { recursive: true, force: true });
  }

  #make(): Namespace {
    return new Namespace({ ...this.#options, store: this.store });
  }
}

function openStore(directory: string): Promise<LmdbStore> {
  return LmdbStore.open({ directory, disk: new NodeDisk() });
}

export const ownership = { mode: 0o644, owner: "ann", group: "staff" } as const;

/** Short forms of the frequent commands. */
export class Shell {
  readonly harness: NamespaceHarness;

  constructor(harness: NamespaceHarness) {
    this.harness = harness;
  }

  create(path: string, fields: Partial<FieldsOf<"create">> = {}): ResultOf<"create"> {
    const given = {
      path: path as Path,
      exclusive: true,
      recursive: false,
      forWriting: false,
      attributes: {},
      ...ownership,
    };
    return this.harness.run("create", { ...given, ...fields });
  }

  mkdir(path: string, fields: Partial<FieldsOf<"mkdir">> = {}): ResultOf<"mkdir"> {
    const given = { path: path as Path, recursive: true, exclusive: false, attributes: {}, ...ownership, mode: 0o755 };
    return this.harness.run("mkdir", { ...given, ...fields });
  }

  remove(path: string, fields: Partial<FieldsOf<"remove">> = {}): ResultOf<"remove"> {
    return this.harness.run("remove", { path: path as Path, recursive: false, ...fields });
  }

  rename(from: string, to: string, replace = true): ResultOf<"rename"> {
    return this.harness.run("rename", { from: from as Path, to: to as Path, replace });
  }

  set(path: string, fields: Partial<FieldsOf<"set-attributes">>): ResultOf<"set-attributes"> {
    return this.harness.run("set-attributes", { path: path as Path, set: {}, remove: [], ...fields });
  }

  mount(path: string, fields: Partial<FieldsOf<"mount">> = {}): ResultOf<"mount"> {
    const given = { path: path as Path, uri: "s3://bucket/prefix", options: {}, secretOptions: [], readOnly: false };
    return this.harness.run("mount", { ...given, ...fields });
  }

  names(path: string): string[] {
    return this.harness.namespace
      .list(path as Path, { limit: 10_000 })
      .map((row) => row.path.slice(row.path.lastIndexOf("/") + 1));
  }
}

/** The success, or an error that names the failure. */
export function ok<T extends { readonly ok: boolean }>(result: T): Exclude<T, Failed> {
  if (!result.ok) throw new Error(`refused: ${JSON.stringify((result as unknown as Failed).error)}`);
  return result as Exclude<T, Failed>;
}

/** The code of a refusal. */
export function code(result: { readonly ok: boolean }): string {
  return result.ok ? "ok" : (result as Failed).error.code;
}
