/** What the SDK needs of the connection to the masters: calls that find the leader by themselves. `rpc/cluster-client.ts` is one. */

import type { Method, StreamMethod } from "../rpc/method.ts";

export type CallOptions = {
  readonly signal?: AbortSignal;
  /** For the whole call, all attempts included. */
  readonly timeoutMs?: number;
};

export interface MasterCalls {
  /** One request, one reply; sent again, unchanged, across reconnects and redirects. */
  call<Request, Reply>(method: Method<Request, Reply>, request: Request, options?: CallOptions): Promise<Reply>;
  /** One request, items until the server ends. Leaving the loop cancels it. */
  openStream<Request, Item>(
    method: StreamMethod<Request, Item>,
    request: Request,
    options?: CallOptions,
  ): AsyncIterable<Item>;
  close(): Promise<void>;
}
