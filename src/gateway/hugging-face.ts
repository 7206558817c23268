/**
 * The Hugging Face mirror: stock clients pointed at it by `HF_ENDPOINT` find the models of the cluster as repositories.
 * Which requests come, and which answers the clients need, was captured from the clients themselves
 * (docs/hugging-face.md).
 *
 * Promises: no answer hints at Xet, which would lead clients past the mirror; a busy mirror says 429 with `Retry-After`
 * where bytes are asked for; every answer comes in bounded time. Leaves out: uploads, accounts, gated repositories.
 */

import { toHeadpondError } from "../base/errors.ts";
import type { HeadpondClient } from "../client/client.ts";
import type { Clock } from "../io/clock.ts";
import type { HttpRequest } from "../io/http-request.ts";
import type { HttpResponse } from "../io/http-response.ts";
import type { Logger } from "../io/logger.ts";
import type { HubEntry } from "./hub-commit.ts";
import {
  agentHarnessesDocument,
  refsDocument,
  repositoryDocument,
  summaryDocument,
  treeEntry,
  whoamiDocument,
} from "./hub-documents.ts";
import { entryNotFound, HubError, sendHubError } from "./hub-error.ts";
import { HubRepositories, type HubRepositoriesLimits, type HubRoots } from "./hub-repositories.ts";
import { resolveFile } from "./hub-resolve.ts";
import { type HubRoute, parseHubRoute, type RepositoryKind } from "./hub-routes.ts";

export type HuggingFaceLimits = HubRepositoriesLimits & {
  readonly firstBytesMs: number;
  /** Entries of one page of a tree, and repositories of one page. */
  readonly pageEntriesMax: number;
  /** Paths that one `paths-info` may ask for. */
  readonly pathsMax: number;
};

const firstBytesMsDefault = 8000;
const pageEntriesDefault = 1000;
const pathsMaxDefault = 10_000;

export class HuggingFaceGateway {
  readonly #client: HeadpondClient;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #repositories: HubRepositories;
  readonly #limits: Pick<HuggingFaceLimits, "firstBytesMs" | "pageEntriesMax" | "pathsMax">;

  constructor(parts: {
    readonly client: HeadpondClient;
    readonly clock: Clock;
    readonly logger: Logger;
    readonly roots?: Partial<HubRoots>;
    readonly limits?: Partial<HuggingFaceLimits>;
  }) {
    const { client, roots, limits } = parts;
    this.#client = client;
    this.#clock = parts.clock;
    this.#logger = parts.logger;
    this.#repositories = new HubRepositories({
      client,
      ...(roots === undefined ? {} : { roots }),
      ...(limits === undefined ? {} : { limits }),
    });
    this.#limits = {
      firstBytesMs: limits?.firstBytesMs ?? firstBytesMsDefault,
      pageEntriesMax: limits?.pageEntriesMax ?? pageEntriesDefault,
      pathsMax: limits?.pathsMax ?? pathsMaxDefault,
    };
  }

  readonly handle = async (request: HttpRequest, response: HttpResponse): Promise<void> => {
    let forBytes = false;
    try {
      const route = parseHubRoute(request.path);
      forBytes = route.kind === "resolve" && request.method === "GET";
      await this.#answer(route, request, response);
    } catch (thrown) {
      if (response.headSent) throw thrown;
      const error = thrown instanceof HubError ? thrown : toHeadpondError(thrown);
      if (!(error instanceof HubError) && error.code === "internal") {
        this.#logger.error("a request to the Hub mirror failed", { target: request.target, error: thrown });
      }
      sendHubError(response, error, forBytes);
    }
  };

  async #answer(route: HubRoute, request: HttpRequest, response: HttpResponse): Promise<void> {
    const isRead = request.method === "GET" || request.method === "HEAD";
    if (!isRead && !(route.kind === "paths-info" && request.method === "POST")) {
      throw new HubError(405, `${request.method} ${request.path} is not served: the mirror is read only`);
    }
    switch (route.kind) {
      case "agent-harnesses":
        return response.json(200, agentHarnessesDocument);
      case "whoami":
        if (request.headers["authorization"] === undefined) throw new HubError(401, "Invalid username or password.");
        return response.json(200, whoamiDocument);
      case "repositories":
        return this.#listRepositories(route.of, request, response);
      case "info": {
        const commit = await this.#repositories.commit(route.repository, route.revision);
        const blobs = isTrue(request.query.get("blobs"));
        return response.json(200, repositoryDocument(route.repository, commit, blobs));
      }
      case "refs":
        return response.json(200, refsDocument(await this.#repositories.commit(route.repository, "main")));
      case "tree":
        return this.#tree(route, request, response);
      case "paths-info":
        return this.#pathsInfo(route, request, response);
      case "resolve": {
        const parts = { client: this.#client, repositories: this.#repositories, clock: this.#clock };
        return resolveFile({ ...parts, firstBytesMs: this.#limits.firstBytesMs }, route, request, response);
      }
      case "unknown":
        throw new HubError(404, `${request.path} is not served by this mirror`);
    }
  }

  async #tree(route: Extract<HubRoute, { kind: "tree" }>, request: HttpRequest, response: HttpResponse): Promise<void> {
    const { query } = request;
    const commit = await this.#repositories.commit(route.repository, route.revision);
    const entries = commit.list(route.path, isTrue(query.get("recursive")));
    if (entries === undefined) throw entryNotFound(route.repository.name, route.path, commit.commit);
    const limit = this.#pageLimit(request);
    const start = Number(query.get("cursor") ?? 0);
    if (!Number.isSafeInteger(start) || start < 0)
      throw new HubError(400, `cursor ${query.get("cursor")} is not one of ours`);
    const page = entries.slice(start, start + limit);
    const expand = isTrue(query.get("expand"));
    const headers = { "x-repo-commit": commit.commit };
    // The commit, not the branch: pages of one listing belong to one commit.
    const api = `/api/${route.repository.kind}s/${route.repository.name}/tree/${commit.commit}`;
    const path = route.path === "" ? api : `${api}/${route.path}`;
    const more = start + limit < entries.length ? { link: this.#nextLink(request, path, start + limit) } : {};
    response.json(
      200,
      page.map((entry) => treeEntry(entry, commit, expand)),
      { ...headers, ...more },
    );
  }

  async #pathsInfo(
    route: Extract<HubRoute, { kind: "paths-info" }>,
    request: HttpRequest,
    response: HttpResponse,
  ): Promise<void> {
    const { paths, expand } = await this.#pathsAsked(request);
    const commit = await this.#repositories.commit(route.repository, route.revision);
    const entries = paths.map((path) => commit.entry(path.replace(/^\/+|\/+$/g, "")));
    const found = entries.filter((entry): entry is HubEntry => entry !== undefined);
    response.json(
      200,
      found.map((entry) => treeEntry(entry, commit, expand)),
      { "x-repo-commit": commit.commit },
    );
  }

  /** From a form (Python) or from JSON (JavaScript). */
  async #pathsAsked(request: HttpRequest): Promise<{ readonly paths: readonly string[]; readonly expand: boolean }> {
    if (request.method !== "POST") throw new HubError(405, "paths-info takes POST");
    let paths: unknown;
    let expand: unknown;
    if ((request.headers["content-type"] ?? "").includes("application/json")) {
      ({ paths, expand } = ((await request.json()) ?? {}) as { paths?: unknown; expand?: unknown });
      if (typeof paths === "string") paths = [paths];
    } else {
      const form = new URLSearchParams(await request.text());
      paths = form.getAll("paths");
      expand = form.get("expand");
    }
    if (!Array.isArray(paths) || !paths.every((path) => typeof path === "string")) {
      throw new HubError(400, "paths must be a list of paths");
    }
    if (paths.length > this.#limits.pathsMax) {
      throw new HubError(400, `${paths.length} paths at once are too many: ask for at most ${this.#limits.pathsMax}`);
    }
    return { paths: paths as string[], expand: isTrue(String(expand ?? "")) };
  }

  async #listRepositories(kind: RepositoryKind, request: HttpRequest, response: HttpResponse): Promise<void> {
    const { query } = request;
    const limit = this.#pageLimit(request);
    const search = query.get("search")?.toLowerCase();
    const author = query.get("author");
    const after = query.get("cursor") ?? "";
    const names = await this.#repositories.names(kind, limit + 1, after, request.signal);
    const last = names[limit - 1];
    const more = names.length > limit && last !== undefined;
    const documents = names
      .slice(0, limit)
      .filter((name) => search === undefined || name.toLowerCase().includes(search))
      .filter((name) => author === null || name.startsWith(`${author}/`))
      .map((name) => summaryDocument({ kind, name }));
    response.json(200, documents, more ? { link: this.#nextLink(request, `/api/${kind}s`, last) } : {});
  }

  #pageLimit(request: HttpRequest): number {
    const asked = Number(request.query.get("limit") ?? this.#limits.pageEntriesMax);
    if (!Number.isSafeInteger(asked) || asked < 1)
      throw new HubError(400, `limit ${request.query.get("limit")} is not a number from 1`);
    return Math.min(asked, this.#limits.pageEntriesMax);
  }

  /** Clients follow only absolute links. */
  #nextLink(request: HttpRequest, path: string, cursor: string | number): string {
    const query = new URLSearchParams(request.query);
    query.set("cursor", String(cursor));
    const host = request.headers["x-forwarded-host"] ?? request.headers["host"] ?? "localhost";
    const scheme = request.headers["x-forwarded-proto"] ?? "http";
    const encoded = path.split("/").map(encodeURIComponent).join("/");
    return `<${scheme}://${host}${encoded}?${query.toString()}>; rel="next"`;
  }
}

function isTrue(text: string | null): boolean {
  return text !== null && /^(true|1)$/i.test(text);
}
