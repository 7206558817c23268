/** The OpenAPI document of the master's HTTP API, made from the schemas of the RPC service: neither can drift from the other. */

import { errorTable } from "../base/errors.ts";
import { masterService } from "../rpc/master-service.ts";
import type { AnyMethod } from "../rpc/method.ts";

/** Methods that are spoken by workers only, over their own connection. */
const workerMethods: ReadonlySet<string> = new Set(["attachWorker", "reportHoldings", "heartbeat", "reportLoad"]);

/** The methods that `POST /api/v1/rpc/<method>` answers. */
export const httpMethods: ReadonlyMap<string, AnyMethod> = new Map(
  Object.values(masterService.methods as Readonly<Record<string, AnyMethod>>)
    .filter(({ name }) => !workerMethods.has(name))
    .map((method) => [method.name, method]),
);

export type GetRoute = {
  readonly path: string;
  readonly summary: string;
  readonly query?: Readonly<Record<string, string>>;
};

export function openApiDocument(version: string, getRoutes: readonly GetRoute[]): Readonly<Record<string, unknown>> {
  const paths: Record<string, unknown> = {};
  for (const { path, summary, query = {} } of getRoutes) {
    const parameters = Object.entries(query).map(([name, description]) => ({
      name,
      in: "query",
      description,
      required: description.startsWith("required"),
      schema: { type: "string" },
    }));
    paths[path] = {
      get: { summary, parameters, responses: { "200": { description: "OK" }, default: errorResponse } },
    };
  }
  for (const [name, method] of httpMethods) {
    const isStream = method.kind === "stream";
    const schema = isStream ? method.item : method.reply;
    paths[`/api/v1/rpc/${name}`] = {
      post: {
        operationId: name,
        requestBody: { required: true, content: { "application/json": { schema: method.request } } },
        responses: {
          "200": {
            description: isStream ? "One JSON document a line, as they come." : "The reply.",
            content: { [isStream ? "application/x-ndjson" : "application/json"]: { schema } },
          },
          default: errorResponse,
        },
      },
    };
  }
  return {
    openapi: "3.1.0",
    info: { title: "Headpond master", version, license: { name: "Apache-2.0", identifier: "Apache-2.0" } },
    paths,
    components: { schemas: { Error: errorSchema } },
  };
}

const errorResponse = {
  description: "The operation failed; `outcome` says whether it may have taken effect all the same.",
  content: { "application/json": { schema: { $ref: "#/components/schemas/Error" } } },
};

const errorSchema = {
  type: "object",
  required: ["code", "message", "retryable", "outcome"],
  properties: {
    code: { type: "string", enum: Object.keys(errorTable) },
    message: { type: "string" },
    retryable: { type: "boolean" },
    outcome: { type: "string", enum: ["none", "unknown"] },
    details: { type: "object" },
  },
};
