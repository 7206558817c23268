/**
 * The master over HTTP: health, metrics, a status page, and a JSON API that answers everything the RPC service does (its
 * handlers are called, so there is one behaviour). Streams come as one JSON document a line; `/api/v1/events` as
 * server-sent events. All answers are bounded by limits of the handlers or by those below.
 *
 * A page of another site in the operator's browser must not be able to change anything: changes need the content type
 * of JSON, and an `Origin`, if there is one, must be this server's.
 */

import { Compile } from "typebox/compile";
import { HeadpondError } from "../base/errors.ts";
import type { Clock } from "../io/clock.ts";
import type { HttpRequest } from "../io/http-request.ts";
import type { HttpResponse } from "../io/http-response.ts";
import type { Metrics } from "../io/metrics.ts";
import type { MasterMethods } from "../rpc/master-service.ts";
import type { AnyMethod } from "../rpc/method.ts";
import type { Handlers, RequestContext } from "../rpc/server.ts";
import { type GetRoute, httpMethods, openApiDocument } from "./openapi.ts";
import { statusPage } from "./status-page.ts";

const requestBytesMax = 4 * 1024 * 1024;
const listLimitMax = 10_000;
const jobsShownMax = 50;
const modelsShownMax = 100;
/** A stream with nothing to say sends a comment, so that proxies keep it. */
const eventsIdleMs = 15_000;

export type AdminDependencies = {
  readonly handlers: Handlers<MasterMethods>;
  readonly metrics: Metrics;
  readonly clock: Clock;
  readonly version: string;
  /** Why this master cannot serve; undefined: it can. */
  readonly notReady: () => string | undefined;
};

type Checker = { Check(value: unknown): boolean };

export class Admin {
  readonly #deps: AdminDependencies;
  readonly #checkers = new Map<string, Checker>();
  readonly #openApi: Readonly<Record<string, unknown>>;

  constructor(dependencies: AdminDependencies) {
    this.#deps = dependencies;
    this.#openApi = openApiDocument(dependencies.version, getRoutes);
  }

  /** The handler of an `HttpServer`. */
  async serve(request: HttpRequest, response: HttpResponse): Promise<void> {
    if (request.path.startsWith("/api/v1/rpc/")) {
      await this.#call(request, response, request.path.slice("/api/v1/rpc/".length));
      return;
    }
    if (request.method !== "GET" && request.method !== "HEAD") {
      response.error(new HeadpondError("unsupported", `${request.method} is not answered at ${request.path}`), 405, {
        allow: "GET, HEAD",
      });
      return;
    }
    const { handlers, metrics } = this.#deps;
    const context = contextOf(request);
    switch (request.path) {
      case "/healthz":
        response.text(200, "ok\n");
        return;
      case "/readyz": {
        const reason = this.#deps.notReady();
        response.text(reason === undefined ? 200 : 503, `${reason ?? "ready"}\n`);
        return;
      }
      case "/metrics":
        response.text(200, await metrics.text(), { "content-type": metrics.contentType });
        return;
      case "/":
        response.text(200, await this.#page(context), {
          "content-type": "text/html; charset=utf-8",
          "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
          "cache-control": "no-store",
        });
        return;
      case "/api/v1/openapi.json":
        response.json(200, this.#openApi);
        return;
      case "/api/v1/cluster":
        response.json(200, await handlers.clusterStatus({}, context));
        return;
      case "/api/v1/members":
        response.json(200, await handlers.members({}, context));
        return;
      case "/api/v1/workers":
        response.json(200, { workers: (await handlers.clusterStatus({}, context)).workers });
        return;
      case "/api/v1/mounts":
        response.json(200, await handlers.mounts({}, context));
        return;
      case "/api/v1/models":
        response.json(
          200,
          await handlers.models(optional({ path: query(request, "path"), limit: limitOf(request) }), context),
        );
        return;
      case "/api/v1/jobs":
        response.json(200, await handlers.jobs(optional({ limit: limitOf(request) }), context));
        return;
      case "/api/v1/journal":
        response.json(200, await handlers.journalStatus({}, context));
        return;
      case "/api/v1/fs/stat":
        response.json(200, await handlers.stat({ path: required(request, "path") }, context));
        return;
      case "/api/v1/fs/list":
        await this.#list(request, response, context);
        return;
      case "/api/v1/events":
        await this.#events(request, response, context);
        return;
      default:
        throw new HeadpondError("not-found", `nothing is at ${request.path}: see /api/v1/openapi.json`);
    }
  }

  async #page(context: RequestContext): Promise<string> {
    const { handlers, clock, notReady } = this.#deps;
    const reason = notReady();
    const cluster = await handlers.clusterStatus({}, context);
    // A standby has no jobs to show; a page with less is better than none.
    const none = { jobs: [], models: [], mounts: [] };
    const [{ jobs }, { models }, { mounts }] = await Promise.all([
      reason === undefined ? Promise.resolve(handlers.jobs({ limit: jobsShownMax }, context)).catch(() => none) : none,
      reason === undefined
        ? Promise.resolve(handlers.models({ limit: modelsShownMax }, context)).catch(() => none)
        : none,
      Promise.resolve(handlers.mounts({}, context)).catch(() => none),
    ]);
    return statusPage({ cluster, jobs, models, mounts, notReady: reason, nowMs: clock.wallMs() });
  }

  async #list(request: HttpRequest, response: HttpResponse, context: RequestContext): Promise<void> {
    const limit = limitOf(request) ?? 1000;
    const entries: unknown[] = [];
    const list = this.#deps.handlers.list(
      optional({ path: required(request, "path"), limit, afterName: query(request, "after") }),
      context,
    );
    for await (const page of list) entries.push(...page.entries);
    response.json(200, { entries });
  }

  async #events(request: HttpRequest, response: HttpResponse, context: RequestContext): Promise<void> {
    const fromText = query(request, "from") ?? request.headers["last-event-id"];
    const fromIndex = fromText === undefined ? undefined : wholeNumber("from", fromText);
    const items = this.#deps.handlers.watch(optional({ path: query(request, "path") ?? "/", fromIndex }), context);
    response.head(200, { "content-type": "text/event-stream", "cache-control": "no-store" });
    response.flushHead();
    if (request.method === "HEAD") {
      response.end();
      return;
    }
    const idle = setIdle(this.#deps.clock, () => response.write(Buffer.from(": idle\n\n")));
    try {
      for await (const { events, index } of items) {
        idle.reset();
        for (const event of events) {
          await response.write(Buffer.from(`id: ${index}\nevent: ${event.kind}\ndata: ${JSON.stringify(event)}\n\n`));
        }
      }
    } finally {
      idle.clear();
    }
    response.end();
  }

  async #call(request: HttpRequest, response: HttpResponse, name: string): Promise<void> {
    const method = httpMethods.get(name);
    if (method === undefined) throw new HeadpondError("not-found", `there is no method ${name.slice(0, 64)}`);
    if (request.method !== "POST")
      throw new HeadpondError("unsupported", `${name} is called by POST, not ${request.method}`);
    refuseForeign(request);
    const message = await request.json(requestBytesMax);
    if (!this.#checkerOf(method).Check(message)) {
      throw new HeadpondError("invalid", `the request does not fit ${name}: see /api/v1/openapi.json`);
    }
    const context = contextOf(request);
    const handler = (this.#deps.handlers as unknown as Record<string, (m: unknown, c: RequestContext) => unknown>)[
      name
    ];
    if (handler === undefined) throw new HeadpondError("unsupported", `${name} is not answered here`);
    if (method.kind === "unary") {
      response.json(200, await handler(message, context));
      return;
    }
    const items = (handler(message, context) as AsyncIterable<unknown>)[Symbol.asyncIterator]();
    // The status waits for the first item: what fails at once fails as an error, not as a broken stream.
    let next = await items.next();
    response.head(200, { "content-type": "application/x-ndjson", "cache-control": "no-store" });
    for (; next.done !== true; next = await items.next()) {
      await response.write(Buffer.from(`${JSON.stringify(next.value)}\n`));
    }
    response.end();
  }

  #checkerOf(method: AnyMethod): Checker {
    let checker = this.#checkers.get(method.name);
    if (checker === undefined) {
      checker = Compile(method.request);
      this.#checkers.set(method.name, checker);
    }
    return checker;
  }
}

const getRoutes: readonly GetRoute[] = [
  { path: "/api/v1/cluster", summary: "Masters and workers." },
  { path: "/api/v1/members", summary: "The masters: who votes and leads, how far each is." },
  { path: "/api/v1/workers", summary: "Workers." },
  { path: "/api/v1/mounts", summary: "The mount table, without secrets." },
  { path: "/api/v1/models", summary: "Which model is where.", query: { path: "below", limit: "at most so many" } },
  { path: "/api/v1/jobs", summary: "Load jobs, the newest first.", query: { limit: "at most so many" } },
  { path: "/api/v1/journal", summary: "The journal's status." },
  { path: "/api/v1/fs/stat", summary: "One file or directory.", query: { path: "required: its path" } },
  {
    path: "/api/v1/fs/list",
    summary: "Children of a directory.",
    query: {
      path: "required: its path",
      limit: `at most so many, 1000 if absent, ${listLimitMax} at most`,
      after: "name",
    },
  },
  {
    path: "/api/v1/events",
    summary: "Changes of the namespace as server-sent events.",
    query: { path: "at or below", from: "index to begin at" },
  },
];

function contextOf(request: HttpRequest): RequestContext {
  return {
    get signal() {
      return request.signal;
    },
    deadlineMs: Number.POSITIVE_INFINITY,
    remainingMs: () => Number.POSITIVE_INFINITY,
    remote: request.remote,
    peer: { software: "http", role: "client", name: request.remote },
  };
}

function refuseForeign(request: HttpRequest): void {
  const type = request.headers["content-type"] ?? "";
  if (!/^application\/json\b/i.test(type)) {
    throw new HeadpondError(
      "invalid",
      `the content type is ${JSON.stringify(type.slice(0, 64))}, not application/json`,
    );
  }
  const { origin } = request.headers;
  const host = request.headers["host"];
  if (origin === undefined || host === undefined) return;
  if (origin === `http://${host}` || origin === `https://${host}`) return;
  throw new HeadpondError("denied", `a page of ${origin.slice(0, 128)} may not change anything here`);
}

function query(request: HttpRequest, name: string): string | undefined {
  return request.query.get(name) ?? undefined;
}

function required(request: HttpRequest, name: string): string {
  const value = query(request, name);
  if (value === undefined || value === "") throw new HeadpondError("invalid", `${request.path} needs ?${name}=`);
  return value;
}

function limitOf(request: HttpRequest): number | undefined {
  const value = query(request, "limit");
  return value === undefined ? undefined : Math.min(listLimitMax, wholeNumber("limit", value));
}

function wholeNumber(name: string, value: string): number {
  if (!/^[0-9]{1,15}$/.test(value))
    throw new HeadpondError("invalid", `${name} is ${JSON.stringify(value.slice(0, 32))}, not a whole number`);
  return Number(value);
}

/** Fields that are undefined are left out. */
function optional<T extends object>(fields: T): { [K in keyof T]: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]: Exclude<T[K], undefined>;
  };
}

function setIdle(clock: Clock, speak: () => Promise<void>): { reset(): void; clear(): void } {
  let timer = clock.timer(eventsIdleMs, beat);
  function beat(): void {
    // A client that has left is noticed by the stream itself.
    speak().catch(() => {});
    timer = clock.timer(eventsIdleMs, beat);
  }
  return {
    reset() {
      timer.clear();
      timer = clock.timer(eventsIdleMs, beat);
    },
    clear: () => timer.clear(),
  };
}
