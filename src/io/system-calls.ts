/**
 * Linux system calls that Node has no words for, through `koffi`, an optional package. Where it is missing, or the system is
 * another one, `systemCalls()` is undefined and whoever asked does without.
 *
 * They return what the kernel returns, or the negated error number; they throw nothing. Memory that the kernel writes to
 * belongs to the caller and outlives the call, because all of them are synchronous.
 */

import { assert } from "../base/assert.ts";

export type SystemCalls = {
  /** A second number for the same open socket or file. */
  duplicate(descriptor: number): number;
  close(descriptor: number): number;
  /** Bytes from a file to a socket, without a copy in this process. `position` and `lengthBytes` below 2^53. */
  sendFile(socket: number, file: number, position: number, lengthBytes: number): number;
  /** Whether the byte at `position` is in memory; true where the file system cannot tell. */
  isInMemory(file: number, position: number): boolean;
  /** Asks the kernel to read ahead. */
  willNeed(file: number, position: number, lengthBytes: number): void;
  epoll(): number;
  /** A counter that can be waited for with `epoll`. */
  eventCounter(): number;
  raise(counter: number): void;
  reset(counter: number): void;
  /** `key`: what `wait` gives back, from 0 to 2^31. `events`: `epollIn`, `epollOut` or 0. */
  watch(epoll: number, change: "add" | "modify" | "delete", descriptor: number, events: number, key: number): number;
  /** Keys of up to `keys.length` descriptors that are ready; returns how many. */
  wait(epoll: number, keys: Uint32Array, timeoutMs: number): number;
};

export const epollIn = 1;
export const epollOut = 4;

export const errorNumbers = { EINTR: 4, EIO: 5, EAGAIN: 11, EINVAL: 22, EPIPE: 32, ECONNRESET: 104 } as const;

const fcntlDuplicateCloseOnExec = 1030;
const closeOnExec = 0o2000000;
const nonBlocking = 0o4000;
const readNoWait = 8;
const adviceWillNeed = 3;
const epollChange = { add: 1, delete: 2, modify: 3 } as const;
const eventsMax = 256;

/** The kernel packs its events on x64 only. */
const eventLayouts: Readonly<Record<string, { readonly bytes: number; readonly keyAt: number }>> = {
  x64: { bytes: 12, keyAt: 4 },
  arm64: { bytes: 16, keyAt: 8 },
};

let loaded: Promise<SystemCalls | undefined> | undefined;

/** Undefined where there is no `koffi`, or no Linux on x64 or arm64. One for each thread. */
export function systemCalls(): Promise<SystemCalls | undefined> {
  loaded ??= load();
  return loaded;
}

async function load(): Promise<SystemCalls | undefined> {
  const layout = eventLayouts[process.arch];
  if (process.platform !== "linux" || layout === undefined) return undefined;
  try {
    const { default: koffi } = await import("koffi");
    return bind(koffi, layout);
  } catch {
    // Not installed, not for this machine, or a C library without one of the calls.
    return undefined;
  }
}

function bind(
  koffi: typeof import("koffi").default,
  layout: { readonly bytes: number; readonly keyAt: number },
): SystemCalls {
  const library = koffi.load(null);
  type Call = (...values: readonly unknown[]) => number;
  const call = (prototype: string): Call => {
    const raw = library.func(prototype) as unknown as Call;
    return (...values) => {
      const result = raw(...values);
      return result === -1 ? -koffi.errno() : result;
    };
  };
  const fcntl = call("int fcntl(int, int, int)");
  const close = call("int close(int)");
  const sendfile = call("int64_t sendfile(int, int, void *, size_t)");
  const fadvise = call("int posix_fadvise(int, int64_t, int64_t, int)");
  koffi.struct("headpond_iovec", { base: "void *", length: "size_t" });
  const preadv2 = call("int64_t preadv2(int, headpond_iovec *, int, int64_t, int)");
  const epollCreate = call("int epoll_create1(int)");
  const epollControl = call("int epoll_ctl(int, int, int, void *)");
  const epollWait = call("int epoll_wait(int, void *, int, int)");
  const eventfd = call("int eventfd(unsigned int, int)");
  const read = call("int64_t read(int, void *, size_t)");
  const write = call("int64_t write(int, void *, size_t)");

  const offset = new DataView(new ArrayBuffer(8));
  const byte = Buffer.alloc(8);
  const vector = { base: byte, length: 1 };
  const one = Buffer.from(BigUint64Array.of(1n).buffer);
  const counted = Buffer.alloc(8);
  const change = new DataView(new ArrayBuffer(layout.bytes));
  const ready = new DataView(new ArrayBuffer(layout.bytes * eventsMax));
  const bytesOf = (view: DataView): Buffer => Buffer.from(view.buffer as ArrayBuffer);
  const [offsetBytes, changeBytes, readyBytes] = [bytesOf(offset), bytesOf(change), bytesOf(ready)];

  return {
    duplicate: (descriptor) => fcntl(descriptor, fcntlDuplicateCloseOnExec, 0),
    close: (descriptor) => close(descriptor),
    sendFile: (socket, file, position, lengthBytes) => {
      offset.setUint32(0, position % 2 ** 32, true);
      offset.setUint32(4, Math.floor(position / 2 ** 32), true);
      return sendfile(socket, file, offsetBytes, lengthBytes);
    },
    isInMemory: (file, position) => preadv2(file, vector, 1, position, readNoWait) !== -errorNumbers.EAGAIN,
    willNeed: (file, position, lengthBytes) => void fadvise(file, position, lengthBytes, adviceWillNeed),
    epoll: () => epollCreate(closeOnExec),
    eventCounter: () => eventfd(0, closeOnExec | nonBlocking),
    raise: (counter) => void write(counter, one, 8),
    reset: (counter) => void read(counter, counted, 8),
    watch: (epoll, kind, descriptor, events, key) => {
      change.setUint32(0, events, true);
      change.setUint32(layout.keyAt, key, true);
      return epollControl(epoll, epollChange[kind], descriptor, changeBytes);
    },
    wait: (epoll, keys, timeoutMs) => {
      assert(keys.length <= eventsMax, `at most ${eventsMax} events are asked for at once`);
      const count = epollWait(epoll, readyBytes, keys.length, timeoutMs);
      for (let i = 0; i < count; i++) keys[i] = ready.getUint32(i * layout.bytes + layout.keyAt, true);
      return count;
    },
  };
}
