/** The three pages that every process has: `/healthz` (it lives), `/readyz` (it can serve, or why not), `/metrics`. */

import type { HttpRequest } from "./http-request.ts";
import type { HttpResponse } from "./http-response.ts";
import type { Metrics } from "./metrics.ts";

export type ProcessPagesOptions = {
  readonly metrics: Metrics;
  /** Why the process cannot serve now, in a sentence; `undefined` if it can. */
  readonly unready: () => string | undefined | Promise<string | undefined>;
};

/** Answers the request if it is for one of the pages; false: somebody else's. */
export type ProcessPages = (request: HttpRequest, response: HttpResponse) => Promise<boolean>;

export function processPages({ metrics, unready }: ProcessPagesOptions): ProcessPages {
  return async ({ method, path }, response) => {
    if (method !== "GET" && method !== "HEAD") return false;
    switch (path) {
      case "/healthz":
        response.text(200, "ok\n");
        return true;
      case "/readyz": {
        const reason = await unready();
        response.text(reason === undefined ? 200 : 503, `${reason ?? "ready"}\n`);
        return true;
      }
      case "/metrics":
        response.text(200, await metrics.text(), { "content-type": metrics.contentType });
        return true;
      default:
        return false;
    }
  };
}
