/** What the SDK needs of the connection to the masters: calls that find the leader by themselves. `rpc/cluster-client.ts` is one. */

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
};

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
    options?: CallOptions,
  ): AsyncIterable<Item>;
  close(): Promise<void>;
}
