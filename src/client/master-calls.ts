/** What the SDK needs of the connection to the masters: calls that find the leader by themselves. `rpc/cluster-client.ts` is one. */

import { HeadpondError } from "../base/errors.ts";
import type { ReadFrom } from "../rpc/cluster-client.ts";
import type { Method, StreamMethod } from "../rpc/method.ts";

export type CallOptions = {
  readonly signal?: AbortSignal;
  /** For the whole call, all attempts included. */
  readonly timeoutMs?: number;
};

export type MasterCallOptions = CallOptions & {
  /** The same request may be sent again when it is not known whether it took effect. */
  readonly retryUnknown?: boolean;
  /** It changes nothing: it may be sent again, and its outcome is never unknown. */
  readonly readOnly?: boolean;
  /** Of reads: which master answers. Default: the leader. */
  readonly from?: ReadFrom;
  /** The work itself takes long: one attempt may take all the time of the call. */
  readonly isLong?: boolean;
};

export type MasterStreamOptions = CallOptions & { readonly from?: ReadFrom };

export interface MasterCalls {
  /** One request, one reply; sent again, unchanged, across reconnects and redirects. */
  call<Request, Reply>(
    method: Method<Request, Reply>,
    request: NoInfer<Request>,
    options?: MasterCallOptions,
  ): Promise<Reply>;
  /** One request, items until the server ends. Leaving the loop cancels it. */
  openStream<Request, Item>(
    method: StreamMethod<Request, Item>,
    request: NoInfer<Request>,
    options?: MasterStreamOptions,
  ): AsyncIterable<Item>;
  close(): Promise<void>;
}

/**
 * The same calls, but a path that UTF-8 cannot carry (half of a surrogate pair) is refused: on the wire it would become the
 * path of something else.
 */
export function withCheckedPaths(masters: MasterCalls): MasterCalls {
  return {
    // No async function: it would cost every call two promises more.
    call: (method, request, options) => {
      const problem = pathProblem(request);
      return problem === undefined ? masters.call(method, request, options) : Promise.reject(problem);
    },
    openStream: (method, request, options) => {
      const problem = pathProblem(request);
      if (problem !== undefined) throw problem;
      return masters.openStream(method, request, options);
    },
    close: () => masters.close(),
  };
}

function pathProblem(request: unknown): HeadpondError | undefined {
  const { path, from, to } = request as { path?: unknown; from?: unknown; to?: unknown };
  return textProblem(path) ?? textProblem(from) ?? textProblem(to);
}

function textProblem(text: unknown): HeadpondError | undefined {
  if (typeof text !== "string" || text.isWellFormed()) return undefined;
  return new HeadpondError("invalid", `path ${JSON.stringify(text.slice(0, 80))} is not valid Unicode`);
}
