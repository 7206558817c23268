/** The `http` port of a worker: health, readiness, metrics, status. */

import { HeadpondError } from "../base/errors.ts";
import type { HttpRequest } from "../io/http-request.ts";
import type { HttpResponse } from "../io/http-response.ts";
import type { Metrics } from "../io/metrics.ts";
import type { WorkerReport } from "./worker-report.ts";

export class WorkerAdmin {
  readonly #metrics: Metrics;
  readonly #status: () => WorkerReport;

  constructor(options: { readonly metrics: Metrics; readonly status: () => WorkerReport }) {
    this.#metrics = options.metrics;
    this.#status = options.status;
  }

  async serve(request: HttpRequest, response: HttpResponse): Promise<void> {
    if (request.method !== "GET" && request.method !== "HEAD") {
      throw new HeadpondError("unsupported", `${request.method} ${request.path}: this port is only read`);
    }
    switch (request.path) {
      case "/healthz":
        return response.text(200, "ok\n");
      case "/readyz": {
        const reason = unreadiness(this.#status());
        return reason === undefined ? response.text(200, "ready\n") : response.text(503, `${reason}\n`);
      }
      case "/metrics":
        return response.text(200, await this.#metrics.text(), { "content-type": this.#metrics.contentType });
      case "/v1/status":
        return response.json(200, this.#status());
      default:
        throw new HeadpondError("not-found", `${request.path.slice(0, 200)}: there is nothing here`);
    }
  }
}

/** Why nothing can be served; undefined: something can. */
function unreadiness({ capacityBytes, problems, masters, files }: WorkerReport): string | undefined {
  if (capacityBytes === 0) return `no cache directory is in service: ${problems.join("; ")}`;
  if (files === 0 && !masters.some((master) => master.attached)) {
    const reasons = masters.map(({ name, problem = "no answer yet" }) => `${name}: ${problem}`);
    return `nothing is held and not attached to any master (${reasons.join("; ")})`;
  }
  return undefined;
}
