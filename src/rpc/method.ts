/**
 * What a remote call is: a name, the shape of its request and the shape of its answer. A service is a record of methods;
 * server and client are typed from it, so neither can drift from the other. The wire knows methods by small numbers that
 * the server's hello lists (hello.ts): names may be added to a service without breaking older callers.
 *
 * Fields of a message may be appended as optional ones, never moved, retyped or removed (docs/formats/rpc.md).
 */

import Type, { type Static, type TSchema, type TUnsafe } from "typebox";
import { assert } from "../base/assert.ts";

/** Carries the static types of a method; never present at run time. */
declare const types: unique symbol;

/** One request, one reply. */
export type Method<Request, Reply> = {
  readonly name: string;
  readonly kind: "unary";
  readonly request: TSchema;
  readonly reply: TSchema;
  readonly [types]?: { readonly request: Request; readonly reply: Reply };
};

/** One request; the server answers with items until it ends or fails. */
export type StreamMethod<Request, Item> = {
  readonly name: string;
  readonly kind: "stream";
  readonly request: TSchema;
  readonly item: TSchema;
  readonly [types]?: { readonly request: Request; readonly item: Item };
};

export type AnyMethod = Method<unknown, unknown> | StreamMethod<unknown, unknown>;
export type Methods = Readonly<Record<string, AnyMethod>>;

/** `version` is raised when a change breaks older callers; hello refuses a caller of another version. */
export type Service<M extends Methods = Methods> = {
  readonly name: string;
  readonly version: number;
  readonly methods: M;
};

export type RequestOf<M> =
  M extends Method<infer Request, unknown> ? Request : M extends StreamMethod<infer Request, unknown> ? Request : never;
export type ReplyOf<M> = M extends Method<unknown, infer Reply> ? Reply : never;
export type ItemOf<M> = M extends StreamMethod<unknown, infer Item> ? Item : never;

export function unary<const Request extends TSchema, const Reply extends TSchema>(
  name: string,
  request: Request,
  reply: Reply,
): Method<Static<Request>, Static<Reply>> {
  return { name, kind: "unary", request, reply };
}

export function stream<const Request extends TSchema, const Item extends TSchema>(
  name: string,
  request: Request,
  item: Item,
): StreamMethod<Static<Request>, Static<Item>> {
  return { name, kind: "stream", request, item };
}

export function service<const M extends Methods>(name: string, version: number, methods: M): Service<M> {
  const names = new Set(Object.values(methods).map((method) => method.name));
  assert(names.size === Object.keys(methods).length, `service ${name}: two methods share a name`);
  return { name, version, methods };
}

/** The schema of a binary field: travels as it is, arrives as a `Uint8Array` that owns its memory. */
export function bytes(maxBytes?: number): TUnsafe<Uint8Array> {
  return Type.Refine(
    Type.Unsafe<Uint8Array>({ binary: true }),
    (value) => value instanceof Uint8Array && (maxBytes === undefined || value.length <= maxBytes),
    () => (maxBytes === undefined ? "must be bytes" : `must be at most ${maxBytes} bytes`),
  );
}
