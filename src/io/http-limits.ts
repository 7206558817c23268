/** What the HTTP server allows its clients, in bytes and in time. */

export type HttpLimits = {
  /** Request line and headers together. */
  readonly headerBytesMax: number;
  /** From the first byte of a request (or the accepted connection) to the end of its headers. */
  readonly headersTimeoutMs: number;
  /** How long a connection may be kept between two requests. */
  readonly idleTimeoutMs: number;
  /** How long a request's body may pause while somebody reads it. */
  readonly bodyTimeoutMs: number;
  /** How long a client may take to accept one buffer of a response (at most a few MiB). */
  readonly stallTimeoutMs: number;
  /** Open connections of the own port; more are closed at once. */
  readonly connectionsMax: number;
  /** The most that `request.bytes()`, `text()` and `json()` take unless they are told. */
  readonly bodyBytesMax: number;
};

export const defaultHttpLimits: HttpLimits = {
  headerBytesMax: 64 * 1024,
  headersTimeoutMs: 20_000,
  idleTimeoutMs: 75_000,
  bodyTimeoutMs: 60_000,
  stallTimeoutMs: 120_000,
  connectionsMax: 20_000,
  bodyBytesMax: 8 * 1024 * 1024,
};
