/**
 * xxh64 of bytes where they lie: in a buffer of `alignedBuffer`, whose memory WebAssembly can reach, nothing is copied for it. A
 * hash can follow a buffer that is being filled, while its last bytes are still in the processor's cache.
 *
 * The loop over stripes of 32 bytes is a WebAssembly function of 300 bytes, put together below; the rest (the last 31 bytes, the
 * mixing at the end) is done here, once for a whole block. The algorithm is that of the xxHash specification, seed 0.
 */

import { assert } from "../base/assert.ts";

/** TypeScript knows it only together with everything else of a browser. */
declare const WebAssembly: {
  readonly Module: new (bytes: Uint8Array) => object;
  readonly Instance: new (module: object, imports: object) => { readonly exports: unknown };
};

const prime1 = 11400714785074694791n;
const prime2 = 14029467366897019727n;
const prime3 = 1609587929392839161n;
const prime4 = 9650029242287828579n;
const prime5 = 2870177450012600261n;
const stripeBytes = 32;
const wrap = (value: bigint): bigint => BigInt.asUintN(64, value);

type Lane = { value: bigint };
type Stripes = {
  /** Takes up whole stripes from address `from` to `to`, at least one. */
  readonly run: (from: number, to: number) => void;
  readonly lane0: Lane;
  readonly lane1: Lane;
  readonly lane2: Lane;
  readonly lane3: Lane;
};

let compiled: object | undefined;
const stripesOf = new WeakMap<ArrayBufferLike, Stripes>();

/** From `alignedBuffer`: the memory behind its buffers. */
export function registerMemory(memory: { readonly buffer: ArrayBuffer }): void {
  compiled ??= new WebAssembly.Module(stripesModule());
  const { exports } = new WebAssembly.Instance(compiled, { io: { memory } });
  stripesOf.set(memory.buffer, exports as Stripes);
}

/** Whether `bytes` lie in memory that can be hashed in place. */
export function canHashInPlace(bytes: Uint8Array): boolean {
  return stripesOf.has(bytes.buffer);
}

/** Follows a buffer from its first byte on. */
export class InPlaceHash {
  readonly #bytes: Uint8Array;
  readonly #stripes: Stripes;
  #lanes: [bigint, bigint, bigint, bigint] = firstLanes();
  /** Whole stripes from the beginning that are in the lanes. */
  #takenBytes = 0;

  /** `bytes`: see `canHashInPlace`. */
  constructor(bytes: Uint8Array) {
    const stripes = stripesOf.get(bytes.buffer);
    assert(stripes !== undefined, "the bytes are not in memory of alignedBuffer");
    this.#bytes = bytes;
    this.#stripes = stripes;
  }

  /** The first `count` bytes are what they will be; what was taken up before must not have changed. */
  update(count: number): void {
    const whole = count - (count % stripeBytes);
    if (whole <= this.#takenBytes) return;
    const { byteOffset } = this.#bytes;
    const { run, lane0, lane1, lane2, lane3 } = this.#stripes;
    [lane0.value, lane1.value, lane2.value, lane3.value] = this.#lanes;
    run(byteOffset + this.#takenBytes, byteOffset + whole);
    this.#lanes = [lane0.value, lane1.value, lane2.value, lane3.value];
    this.#takenBytes = whole;
  }

  /** Begins again: the bytes have changed. */
  reset(): void {
    this.#lanes = firstLanes();
    this.#takenBytes = 0;
  }

  /** Of the first `count` bytes; 8 bytes, big-endian. */
  digest(count: number): Uint8Array {
    if (count < this.#takenBytes) this.reset();
    this.update(count);
    let sum = this.#takenBytes === 0 ? prime5 : mixLanes(this.#lanes.map(wrap));
    sum = wrap(sum + BigInt(count));
    const view = new DataView(this.#bytes.buffer, this.#bytes.byteOffset, count);
    let at = this.#takenBytes;
    for (; at + 8 <= count; at += 8) {
      sum ^= round(0n, view.getBigUint64(at, true));
      sum = wrap(rotate(sum, 27n) * prime1 + prime4);
    }
    if (at + 4 <= count) {
      sum ^= wrap(BigInt(view.getUint32(at, true)) * prime1);
      sum = wrap(rotate(sum, 23n) * prime2 + prime3);
      at += 4;
    }
    for (; at < count; at++) {
      sum ^= wrap(BigInt(view.getUint8(at)) * prime5);
      sum = wrap(rotate(sum, 11n) * prime1);
    }
    sum = wrap((sum ^ (sum >> 33n)) * prime2);
    sum = wrap((sum ^ (sum >> 29n)) * prime3);
    sum ^= sum >> 32n;
    const digest = new Uint8Array(8);
    new DataView(digest.buffer).setBigUint64(0, sum);
    return digest;
  }
}

function firstLanes(): [bigint, bigint, bigint, bigint] {
  return [wrap(prime1 + prime2), prime2, 0n, wrap(-prime1)];
}

function rotate(value: bigint, bits: bigint): bigint {
  return wrap((value << bits) | (value >> (64n - bits)));
}

function round(lane: bigint, input: bigint): bigint {
  return wrap(rotate(wrap(lane + input * prime2), 31n) * prime1);
}

function mixLanes(lanes: readonly bigint[]): bigint {
  const turns = [1n, 7n, 12n, 18n];
  const sum = lanes.reduce((mixed, lane, i) => wrap(mixed + rotate(lane, turns[i] as bigint)), 0n);
  return lanes.reduce((mixed, lane) => wrap((mixed ^ round(0n, lane)) * prime1 + prime4), sum);
}

/**
 * (module (import "io" "memory" (memory 0)) (global (export "lane0".."lane3") (mut i64))
 *   (func (export "run") (param $at i32) (param $end i32)
 *     loop: lane[i] = rotl(lane[i] + load(at + 8 i) * prime2, 31) * prime1, at += 32, again if at < end))
 */
function stripesModule(): Uint8Array {
  const [i32, i64] = [0x7f, 0x7e];
  const lanes = [0, 1, 2, 3];
  const constant = (value: bigint): number[] => [0x42, ...signed(value)];
  const text = (name: string): number[] => [name.length, ...Buffer.from(name)];
  const items = (...all: readonly number[][]): number[] => [...unsigned(all.length), ...all.flat()];
  const section = (id: number, body: number[]): number[] => [id, ...unsigned(body.length), ...body];
  // Locals 0 and 1 are `at` and `end`, 2 to 5 the lanes.
  const laneRound = (lane: number): number[] => [
    ...[0x20, 2 + lane, 0x20, 0, 0x29, 3, 8 * lane], // lane, i64.load(at + 8 * lane)
    ...[...constant(prime2), 0x7e, 0x7c, ...constant(31n), 0x89], // mul, add, rotl
    ...[...constant(prime1), 0x7e, 0x21, 2 + lane], // mul, local.set
  ];
  const code = [
    ...[1, 4, i64],
    ...lanes.flatMap((lane) => [0x23, lane, 0x21, 2 + lane]),
    ...[0x03, 0x40, ...lanes.flatMap(laneRound)],
    ...[0x20, 0, 0x41, stripeBytes, 0x6a, 0x22, 0, 0x20, 1, 0x49, 0x0d, 0, 0x0b], // at += 32; br_if at < end
    ...lanes.flatMap((lane) => [0x20, 2 + lane, 0x24, lane]),
    0x0b,
  ];
  return Uint8Array.from([
    ...[0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, items([0x60, ...items([i32], [i32]), 0])),
    ...section(2, items([...text("io"), ...text("memory"), 2, 0, 0])),
    ...section(3, items([0])),
    ...section(6, items(...lanes.map(() => [i64, 1, ...constant(0n), 0x0b]))),
    ...section(7, items([...text("run"), 0, 0], ...lanes.map((lane) => [...text(`lane${lane}`), 3, lane]))),
    ...section(10, items([...unsigned(code.length), ...code])),
  ]);
}

/** LEB128. */
function unsigned(value: number): number[] {
  return value < 128 ? [value] : [(value & 127) | 128, ...unsigned(value >>> 7)];
}

function signed(value: bigint): number[] {
  const rest = BigInt.asIntN(64, value);
  const low = Number(rest & 127n);
  const isLast = (rest >> 7n === 0n && low < 64) || (rest >> 7n === -1n && low >= 64);
  return isLast ? [low] : [low | 128, ...signed(rest >> 7n)];
}
