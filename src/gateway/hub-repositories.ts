/**
 * Repositories and commits behind the Hub mirror: `org/name` is a directory, `main` is what it holds now. Commits never
 * change, so they are kept (bounded); what `main` is, is asked every time.
 */

import { isHeadpondError } from "../base/errors.ts";
import type { FileStatus } from "../base/file.ts";
import { baseName, type Path, parsePath } from "../base/path.ts";
import type { HeadpondClient } from "../client/client.ts";
import { HubCommit, type HubFile } from "./hub-commit.ts";
import { repositoryNotFound, revisionNotFound } from "./hub-error.ts";
import type { Repository, RepositoryKind } from "./hub-routes.ts";

/** The directory under which the repositories of each kind lie. */
export type HubRoots = Readonly<Record<RepositoryKind, string>>;

export const hubRootsDefault: HubRoots = { model: "/models", dataset: "/datasets", space: "/spaces" };

export type HubRepositoriesLimits = {
  /** Files and directories of all commits kept. */
  readonly entriesMax: number;
  /** How long a master may take: clients wait for an answer without a limit of their own. */
  readonly metadataTimeoutMs: number;
};

const defaultLimits: HubRepositoriesLimits = { entriesMax: 200_000, metadataTimeoutMs: 5000 };

/** A question under way, and the one that those who asked meanwhile wait for. */
type Asking = { readonly answer: Promise<HubCommit>; next: Promise<HubCommit> | undefined };

const commitPattern = /^[0-9a-f]{40}$/;

export class HubRepositories {
  readonly #client: HeadpondClient;
  readonly #roots: Readonly<Record<RepositoryKind, Path>>;
  readonly #limits: HubRepositoriesLimits;
  /** By directory and commit, oldest use first. */
  readonly #commits = new Map<string, HubCommit>();
  #weight = 0;
  /** Questions under way: all readers of a model begin at once. */
  readonly #asking = new Map<string, Asking>();

  constructor(parts: {
    readonly client: HeadpondClient;
    readonly roots?: Partial<HubRoots>;
    readonly limits?: Partial<HubRepositoriesLimits>;
  }) {
    this.#client = parts.client;
    const roots = { ...hubRootsDefault, ...parts.roots };
    this.#roots = {
      model: parsePath(roots.model),
      dataset: parsePath(roots.dataset),
      space: parsePath(roots.space),
    };
    this.#limits = { ...defaultLimits, ...parts.limits };
  }

  /** Throws `RepoNotFound` or `RevisionNotFound`. */
  async commit(repository: Repository, revision: string): Promise<HubCommit> {
    const directory = this.#directory(repository);
    const key = `${directory}@${revision}`;
    const ask = (): Promise<HubCommit> => this.#ask(repository, directory, revision);
    if (!commitPattern.test(revision)) return this.#join(key, ask, false);
    const known = this.#commits.get(key);
    if (known === undefined) return this.#join(key, ask, true);
    this.#commits.delete(key);
    this.#commits.set(key, known);
    return known;
  }

  /** Whether the bytes of `file` can be had: it is what its path holds now, or somebody holds the old version. */
  async isServable(repository: Repository, file: HubFile): Promise<boolean> {
    const options = { timeoutMs: this.#limits.metadataTimeoutMs };
    const { id, inodeId, contentVersion } = file.file;
    try {
      const status = await this.#client.stat(`${this.#directory(repository)}/${file.path}`, options);
      if (status.inodeId === inodeId && status.contentVersion === contentVersion) return true;
    } catch (error) {
      if (isUnreachable(error)) return true;
      if (!isAbsent(error)) throw error;
    }
    try {
      return (await this.#client.holders(id, options)).length > 0;
    } catch (error) {
      if (isUnreachable(error)) return true;
      if (isAbsent(error)) return false;
      throw error;
    }
  }

  /**
   * Names after `after`, at most `limit`: a directory directly below the root that has files of its own is a repository,
   * one that has none is an organisation.
   */
  async names(kind: RepositoryKind, limit: number, after: string, signal: AbortSignal): Promise<readonly string[]> {
    const root = this.#roots[kind];
    const names: string[] = [];
    for await (const first of this.#directories(root, signal)) {
      const children: string[] = [];
      let hasFiles = false;
      for await (const child of this.#client.list(first.path, { signal })) {
        hasFiles = child.kind === "file";
        if (hasFiles) break;
        children.push(`${baseName(first.path)}/${baseName(child.path)}`);
      }
      names.push(...(hasFiles ? [baseName(first.path)] : children).filter((name) => name > after));
      if (names.length >= limit) break;
    }
    return names.slice(0, limit);
  }

  async *#directories(root: Path, signal: AbortSignal): AsyncGenerator<FileStatus, void, undefined> {
    try {
      for await (const status of this.#client.list(root, { signal })) if (status.kind === "directory") yield status;
    } catch (error) {
      if (!isAbsent(error)) throw error;
    }
  }

  #directory(repository: Repository): Path {
    try {
      const path = parsePath(`${this.#roots[repository.kind]}/${repository.name}`);
      if (path !== this.#roots[repository.kind]) return path;
    } catch (error) {
      if (!isHeadpondError(error, "invalid")) throw error;
    }
    throw repositoryNotFound(repository.name);
  }

  /**
   * Many that ask the same are answered together: what never changes by the question under way, anything else by one that
   * begins after they asked, so that nobody is told what was true before.
   */
  #join(key: string, ask: () => Promise<HubCommit>, isImmutable: boolean): Promise<HubCommit> {
    const running = this.#asking.get(key);
    if (running === undefined) return this.#start(key, ask);
    if (isImmutable) return running.answer;
    running.next ??= running.answer.then(
      () => this.#start(key, ask),
      () => this.#start(key, ask),
    );
    return running.next;
  }

  #start(key: string, ask: () => Promise<HubCommit>): Promise<HubCommit> {
    const asking: Asking = { answer: ask(), next: undefined };
    this.#asking.set(key, asking);
    const end = (): void => {
      if (asking.next === undefined && this.#asking.get(key) === asking) this.#asking.delete(key);
    };
    asking.answer.then(end, end);
    return asking.answer;
  }

  async #ask(repository: Repository, directory: Path, revision: string): Promise<HubCommit> {
    const answer = await this.#answer(repository, directory, revision);
    const key = `${directory}@${answer.commit}`;
    const known = this.#commits.get(key);
    if (known !== undefined) return known;
    const commit = new HubCommit(answer);
    // A directory of repositories is an organisation, not a repository.
    const isOrganisation = !repository.name.includes("/") && commit.files.every((file) => file.path.includes("/"));
    if (isOrganisation) throw repositoryNotFound(repository.name);
    this.#keep(key, commit);
    return commit;
  }

  async #answer(repository: Repository, directory: Path, revision: string): ReturnType<HeadpondClient["revision"]> {
    const options = { timeoutMs: this.#limits.metadataTimeoutMs };
    try {
      return await this.#client.revision(directory, revision, options);
    } catch (error) {
      if (!isAbsent(error)) throw error;
      // The masters do not say which of the two is missing.
      const exists = revision !== "main" && (await this.#isDirectory(directory));
      throw exists ? revisionNotFound(repository.name, revision) : repositoryNotFound(repository.name);
    }
  }

  async #isDirectory(path: Path): Promise<boolean> {
    try {
      return (await this.#client.stat(path, { timeoutMs: this.#limits.metadataTimeoutMs })).kind === "directory";
    } catch (error) {
      if (isAbsent(error)) return false;
      throw error;
    }
  }

  #keep(key: string, commit: HubCommit): void {
    this.#commits.set(key, commit);
    this.#weight += commit.weight;
    for (const [oldest, { weight }] of this.#commits) {
      if (this.#weight <= this.#limits.entriesMax) break;
      this.#commits.delete(oldest);
      this.#weight -= weight;
    }
  }
}

function isAbsent(error: unknown): boolean {
  return isHeadpondError(error, "not-found", "not-a-directory", "is-a-directory", "invalid", "compacted");
}

function isUnreachable(error: unknown): boolean {
  return isHeadpondError(error, "unavailable", "not-leader", "timeout");
}
