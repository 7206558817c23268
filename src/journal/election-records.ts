/**
 * One session's part of an election in ZooKeeper: reads and writes the nodes (election-nodes.ts), remembers what it knows of them, and
 * sets the few watches. It decides nothing. After the end of its session it is of no more use.
 */

import { HeadpondError, isHeadpondError } from "../base/errors.ts";
import type { Acl } from "../zookeeper/protocol.ts";
import type { Operation, ZooKeeper } from "../zookeeper/zookeeper.ts";
import {
  type CandidateData,
  type CandidateNode,
  decodeCandidate,
  decodeClusterId,
  decodeLeader,
  type ElectionPaths,
  encodeNode,
  type LeaderData,
  parseCandidateName,
} from "./election-nodes.ts";

export type ElectionRecordsOptions = {
  readonly zookeeper: ZooKeeper;
  readonly paths: ElectionPaths;
  readonly acl: readonly Acl[];
  /** A watch has fired: who takes part, or who leads, is not what was read any more. */
  readonly onStale: (what: "list" | "leader") => void;
};

type ReadLeader = { readonly data: LeaderData | undefined; readonly version: number };

const nothing = new Uint8Array(0);

export class ElectionRecords {
  readonly #options: ElectionRecordsOptions;
  /** By name; a node's data never changes. */
  readonly #nodes = new Map<string, CandidateNode>();
  readonly #known = new Map<string, CandidateData>();
  #own: string | undefined;
  /** A create was sent: it may have been carried out though nothing says so. */
  #mayHaveEntered = false;
  #leader: ReadLeader | undefined;
  #watched: string | undefined;
  #watchesAll = false;

  constructor(options: ElectionRecordsOptions) {
    this.#options = options;
  }

  /** The name of the own node. */
  get own(): string | undefined {
    return this.#own;
  }

  /** All candidates, as of the last `list`. */
  get nodes(): readonly CandidateNode[] {
    return [...this.#nodes.values()];
  }

  /** Makes the nodes that hold all others, once for a cluster. `invalid`: another cluster's are there. */
  async prepare(clusterId: string): Promise<void> {
    const { zookeeper, paths } = this.#options;
    let found: Buffer;
    try {
      found = (await zookeeper.get(paths.cluster)).data;
    } catch (error) {
      if (!isHeadpondError(error, "not-found")) throw error;
      const parts = paths.root.split("/").filter((part) => part !== "");
      const parents = parts.map((_, i) => `/${parts.slice(0, i + 1).join("/")}`);
      for (const path of [...parents, paths.masters, paths.known, paths.leader]) await this.#make(path, nothing);
      // Last: where it is, all are.
      await this.#make(paths.cluster, encodeNode({ clusterId }));
      found = (await zookeeper.get(paths.cluster)).data;
    }
    const present = decodeClusterId(found);
    if (present === clusterId) return;
    throw new HeadpondError(
      "invalid",
      `ZooKeeper: ${paths.root} belongs to cluster ${present}, this master to ${clusterId}: give each cluster its own journal.zookeeper.root`,
    );
  }

  /** Makes sure that there is a node of this session with this mark. */
  async enter(mark: string, data: CandidateData): Promise<void> {
    if (this.#own !== undefined) return;
    const { zookeeper, paths, acl } = this.#options;
    if (this.#mayHaveEntered) {
      const { names } = await zookeeper.children(paths.masters);
      for (const name of names.filter((each) => parseCandidateName(each)?.mark === mark)) {
        if ((await this.#ownerOf(name)) !== zookeeper.sessionId) continue;
        this.#own = name;
        return;
      }
    }
    this.#mayHaveEntered = true;
    const options = { mode: "ephemeral-sequential", acl } as const;
    const { path } = await zookeeper.create(`${paths.masters}/${mark}-`, encodeNode(data), options);
    this.#own = nameOf(path);
    await this.#register(data);
  }

  /**
   * All candidates, as of after the call. The own node, if it has gone, is entered anew next time. `watches`: tells by `onStale` when
   * somebody comes or goes; for one of them, not for all.
   */
  async list(watches: boolean): Promise<readonly CandidateNode[]> {
    const { zookeeper, paths, onStale } = this.#options;
    const watch = (): void => {
      this.#watchesAll = false;
      onStale("list");
    };
    const watched = watches && !this.#watchesAll ? watch : undefined;
    if (watched !== undefined) this.#watchesAll = true;
    // They are answered in the order in which they are asked.
    const asked = Promise.all([zookeeper.sync(paths.masters), zookeeper.children(paths.masters, watched)]);
    const [, { names }] = await asked.catch((error: unknown) => {
      if (watched !== undefined) this.#watchesAll = false;
      throw error;
    });
    const present = new Set(names);
    for (const name of this.#nodes.keys()) if (!present.has(name)) this.#nodes.delete(name);
    await Promise.all(names.map((name) => this.#look(name)));
    if (this.#own !== undefined && !present.has(this.#own)) this.#own = undefined;
    return this.nodes;
  }

  /** The next `enter` makes a new node, after which the present one can go. */
  renew(): void {
    this.#own = undefined;
    this.#mayHaveEntered = false;
  }

  /** Tells by `onStale` when the node goes. False: it has gone. */
  async watch(name: string): Promise<boolean> {
    if (this.#watched === name) return true;
    const { zookeeper, paths, onStale } = this.#options;
    const stat = await zookeeper.exists(`${paths.masters}/${name}`, () => {
      if (this.#watched === name) this.#watched = undefined;
      onStale("list");
    });
    if (stat === undefined) return false;
    this.#watched = name;
    return true;
  }

  /** Who said last that it leads. Tells by `onStale` when that changes. */
  async leader(): Promise<LeaderData | undefined> {
    const { zookeeper, paths, onStale } = this.#options;
    if (this.#leader === undefined) {
      let isStale = false;
      const { data, stat } = await zookeeper.get(paths.leader, () => {
        isStale = true;
        this.#leader = undefined;
        onStale("leader");
      });
      const read = { data: decodeLeader(data), version: stat.version };
      if (isStale) return read.data;
      this.#leader = read;
    }
    return this.#leader.data;
  }

  /** False: somebody wrote meanwhile: read it again. */
  async setLeader(data: LeaderData): Promise<boolean> {
    const { zookeeper, paths } = this.#options;
    const version = this.#leader?.version;
    this.#leader = undefined;
    if (version === undefined) return false;
    try {
      await zookeeper.set(paths.leader, encodeNode(data), version);
      return true;
    } catch (error) {
      if (isHeadpondError(error, "version-mismatch")) return false;
      throw error;
    }
  }

  /** Goes behind all others, with a new mark; in the same step `leader`, if given, is written. */
  async stepBack(mark: string, data: CandidateData, leader: LeaderData | undefined): Promise<void> {
    const { zookeeper, paths, acl } = this.#options;
    const own = this.#own;
    const version = this.#leader?.version ?? -1;
    this.#own = undefined;
    this.#mayHaveEntered = true;
    this.#leader = undefined;
    const operations: Operation[] = [
      ...(leader === undefined
        ? []
        : [{ kind: "set" as const, path: paths.leader, data: encodeNode(leader), version }]),
      ...(own === undefined ? [] : [{ kind: "remove" as const, path: `${paths.masters}/${own}`, version: -1 }]),
      {
        kind: "create",
        path: `${paths.masters}/${mark}-`,
        data: encodeNode(data),
        options: { mode: "ephemeral-sequential", acl },
      },
    ];
    const result = (await zookeeper.multi(operations)).at(-1);
    if (result?.kind === "create") this.#own = nameOf(result.path);
  }

  /** Of a process that is known to be dead, or of an earlier session. */
  async removeNode(name: string): Promise<void> {
    this.#nodes.delete(name);
    await this.#remove(`${this.#options.paths.masters}/${name}`);
  }

  /** Masters that took part once and were not taken out. */
  async known(): Promise<readonly CandidateData[]> {
    const { zookeeper, paths } = this.#options;
    const { names } = await zookeeper.children(paths.known);
    for (const id of this.#known.keys()) if (!names.includes(id)) this.#known.delete(id);
    for (const id of names) {
      if (this.#known.has(id)) continue;
      try {
        this.#known.set(id, decodeCandidate((await zookeeper.get(`${paths.known}/${id}`)).data));
      } catch (error) {
        if (!isHeadpondError(error, "not-found")) throw error;
      }
    }
    return [...this.#known.values()];
  }

  async forget(id: string): Promise<void> {
    this.#known.delete(id);
    await this.#remove(`${this.#options.paths.known}/${id}`);
  }

  async #register(data: CandidateData): Promise<void> {
    const { zookeeper, paths } = this.#options;
    const path = `${paths.known}/${data.id}`;
    this.#known.set(data.id, data);
    const bytes = encodeNode(data);
    try {
      if ((await zookeeper.get(path)).data.equals(bytes)) return;
      await zookeeper.set(path, bytes);
    } catch (error) {
      if (!isHeadpondError(error, "not-found")) throw error;
      await this.#make(path, bytes);
    }
  }

  async #make(path: string, data: Uint8Array): Promise<void> {
    const { zookeeper, acl } = this.#options;
    try {
      await zookeeper.create(path, data, { acl });
    } catch (error) {
      if (!isHeadpondError(error, "already-exists")) throw error;
    }
  }

  async #remove(path: string): Promise<void> {
    try {
      await this.#options.zookeeper.remove(path);
    } catch (error) {
      if (!isHeadpondError(error, "not-found")) throw error;
    }
  }

  async #look(name: string): Promise<void> {
    const parsed = parseCandidateName(name);
    if (parsed === undefined || this.#nodes.has(name)) return;
    const { zookeeper, paths } = this.#options;
    try {
      const { data } = await zookeeper.get(`${paths.masters}/${name}`);
      this.#nodes.set(name, { ...decodeCandidate(data), name, ...parsed });
    } catch (error) {
      if (!isHeadpondError(error, "not-found")) throw error;
    }
  }

  async #ownerOf(name: string): Promise<bigint | undefined> {
    const { zookeeper, paths } = this.#options;
    return (await zookeeper.exists(`${paths.masters}/${name}`))?.ephemeralOwner;
  }
}

function nameOf(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}
