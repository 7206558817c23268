/** What the connections of one server share, and what bounds each of them. */

import type { Clock } from "../io/clock.ts";
import type { Logger } from "../io/logger.ts";
import type { Codec } from "./codec.ts";
import type { ClientHello, ServerHello } from "./hello.ts";
import type { RequestContext } from "./server-call.ts";

export type ConnectionLimits = {
  /** Unary requests of one connection under way; while there are more, it is not read. Clients are told, and keep to it. */
  readonly requestsPerConnectionMax: number;
  /** Streams of one connection; beyond, they are refused as `overloaded`. */
  readonly streamsPerConnectionMax: number;
  readonly requestFrameBytesMax: number;
  /** Bytes waiting for a client to read them; beyond, it is not read. */
  readonly queuedBytesMax: number;
  readonly helloTimeoutMs: number;
  /** A connection on which nothing arrives for so long is cut; clients ping more often. */
  readonly idleTimeoutMs: number;
  /** A client for which bytes wait and that takes none for so long is cut. */
  readonly slowClientTimeoutMs: number;
};

/** A method as the server sees it. */
export type ServerMethod = {
  readonly name: string;
  readonly kind: "unary" | "stream";
  readonly request: Codec;
  readonly answer: Codec;
  readonly handler: (request: unknown, context: RequestContext) => unknown;
};

/** What the connections of one server share. */
export interface ServerHost {
  readonly limits: ConnectionLimits;
  readonly clock: Clock;
  readonly logger: Logger;
  /** By number on the wire. */
  readonly methods: readonly ServerMethod[];
  /** Checks a client's hello and answers it. Throws what the client is to be told. */
  welcome(hello: ClientHello): ServerHello;
  /** Counts a request or stream in. Throws when the server takes no more of them (`overloaded`, `unavailable`). */
  admit(kind: ServerMethod["kind"]): void;
  /** Counts one that was admitted out. */
  release(kind: ServerMethod["kind"]): void;
  /** For the metrics. `code` is an error code or `ok`. */
  answered(methodName: string, code: string): void;
}
