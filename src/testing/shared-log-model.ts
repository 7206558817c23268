/**
 * A bounded, exhaustive model of the log in shared storage (docs/shared-journal.md): writers that claim epochs, walk, seal, write ahead and
 * acknowledge, a standby that follows and makes checkpoints, garbage collection, and writes that land long after their writer was deposed. Every
 * order of steps within the bounds is tried.
 *
 * Each rule can be left out, to show that the model finds what it guards against.
 */

export type ModelBounds = {
  readonly writers: number;
  /** Values that each writer may write in one epoch. */
  readonly values: number;
  /** Epochs that may be claimed in all. */
  readonly epochs: number;
  /** Writes of one writer that are under way at a time. */
  readonly window: number;
};

export type LeftOut =
  | "none"
  /** Acknowledges when the slots are there, without reading the epoch again. */
  | "epoch-read"
  /** Believes what it read or sealed without looking at the checkpoints again. */
  | "checkpoint-look"
  /** Acknowledges a slot although one before it is missing. */
  | "contiguity"
  /** Takes an absent slot for the end of an epoch without creating the seal. */
  | "seal";

export type ModelResult = {
  readonly states: number;
  /** What went wrong, and the steps that lead there; absent: nothing did. */
  readonly violation?: { readonly what: string; readonly steps: readonly string[] };
};

type Position = { e: number; s: number };
type Write = { s: number; v: string; durable: boolean };
type Writer = {
  pc: "idle" | "walk" | "look" | "lead" | "check";
  e: number;
  at: Position;
  mem: string[];
  /** What the last read gave, until it is believed. */
  seen: string;
  next: number;
  left: number;
  writes: Write[];
  /** Slots that were there when the epoch read began. */
  checking: number;
};
type Model = {
  claimed: number;
  /** By `epoch.slot`. */
  slots: Record<string, string>;
  /** Covers everything up to `upTo`. */
  checkpoint: { upTo: Position; vals: string[] };
  acked: string[];
  writers: Writer[];
  /** Writes of writers that have given up: they may still land. */
  late: { e: number; s: number; v: string }[];
  standby: { at: Position; applied: string[]; seen: string; pc: "read" | "look" };
};

const seal = "seal";
const statesMax = 3_000_000;

export function exploreSharedLog(bounds: ModelBounds, leftOut: LeftOut): ModelResult {
  const first = initial(bounds);
  const queue: { readonly state: Model; readonly from: number; readonly step: string }[] = [
    { state: first, from: -1, step: "start" },
  ];
  const seen = new Set([keyOf(first)]);
  for (let head = 0; head < queue.length; head++) {
    const { state } = queue[head] as (typeof queue)[number];
    const what = wrongWith(state);
    if (what !== undefined) return { states: seen.size, violation: { what, steps: stepsTo(queue, head) } };
    for (const [step, next] of steps(state, bounds, leftOut)) {
      const key = keyOf(next);
      if (seen.has(key)) continue;
      seen.add(key);
      queue.push({ state: next, from: head, step });
    }
    if (seen.size > statesMax) throw new Error(`more than ${statesMax} states: smaller bounds are needed`);
  }
  return { states: seen.size };
}

function initial({ writers, values }: ModelBounds): Model {
  const start = { e: 1, s: 0 };
  return {
    claimed: 0,
    slots: {},
    checkpoint: { upTo: start, vals: [] },
    acked: [],
    writers: Array.from({ length: writers }, () => ({
      pc: "idle",
      e: 0,
      at: start,
      mem: [],
      seen: "",
      next: 1,
      left: values,
      writes: [],
      checking: 0,
    })),
    late: [],
    standby: { at: { e: 1, s: 1 }, applied: [], seen: "", pc: "read" },
  };
}

function* steps(state: Model, bounds: ModelBounds, leftOut: LeftOut): Generator<[string, Model]> {
  for (let i = 0; i < state.writers.length; i++) yield* writerSteps(state, i, bounds, leftOut);
  for (let i = 0; i < state.late.length; i++) {
    const next = clone(state);
    const [write] = next.late.splice(i, 1);
    if (write !== undefined) create(next, write.e, write.s, write.v);
    yield [`a late write of epoch ${write?.e} lands at slot ${write?.s}`, next];
  }
  yield* standbySteps(state, leftOut);
  for (const name of Object.keys(state.slots)) {
    if (!isCovered(state, positionOf(name))) continue;
    const next = clone(state);
    delete next.slots[name];
    yield [`garbage collection takes ${name}`, next];
  }
}

function* writerSteps(state: Model, i: number, bounds: ModelBounds, leftOut: LeftOut): Generator<[string, Model]> {
  const step = (what: string, change: (next: Model, writer: Writer) => void): [string, Model] => {
    const next = clone(state);
    change(next, next.writers[i] as Writer);
    return [`writer ${i} ${what}`, next];
  };
  const writer = state.writers[i] as Writer;
  switch (writer.pc) {
    case "idle":
      if (state.claimed >= bounds.epochs) return;
      yield step("claims an epoch", (next, self) => {
        self.e = ++next.claimed;
        self.next = 1;
        self.left = bounds.values;
        beginWalk(next, self);
      });
      return;
    case "walk": {
      if (writer.at.e >= writer.e) {
        yield step("leads", (_next, self) => {
          self.pc = "lead";
        });
        return;
      }
      const { e, s } = writer.at;
      const found = state.slots[nameOf(e, s)];
      yield step(`reads ${e}.${s}`, (next, self) => {
        self.seen = found ?? seal;
        if (found === undefined && leftOut !== "seal") create(next, e, s, seal);
        self.pc = "look";
      });
      return;
    }
    case "look":
      yield step("looks at the checkpoints", (next, self) => {
        self.pc = "walk";
        if (leftOut !== "checkpoint-look" && isCovered(next, self.at)) {
          beginWalk(next, self);
        } else if (self.seen === seal) {
          self.at = { e: self.at.e + 1, s: 1 };
        } else {
          self.mem.push(self.seen);
          self.at = { e: self.at.e, s: self.at.s + 1 };
        }
        self.seen = "";
      });
      return;
    case "check":
      yield step("ends its epoch read", (next, self) => {
        const isStill = next.claimed === self.e || leftOut === "epoch-read";
        if (!isStill) return giveUp(next, self);
        for (const { s, v, durable } of self.writes) if (durable && s <= self.checking) next.acked.push(v);
        self.writes = self.writes.filter(({ s, durable }) => !(durable && s <= self.checking));
        self.pc = "lead";
      });
      break;
    case "lead": {
      if (writer.left > 0 && writer.writes.length < bounds.window) {
        yield step(`sends slot ${writer.next}`, (_next, self) => {
          self.writes.push({ s: self.next, v: `${self.e}:${self.next}`, durable: false });
          self.next++;
          self.left--;
        });
      }
      const upTo = durableUpTo(writer, leftOut);
      if (upTo > 0) {
        yield step(`begins an epoch read with slots up to ${upTo}`, (_next, self) => {
          self.checking = upTo;
          self.pc = "check";
        });
      }
      break;
    }
    default:
      return writer.pc satisfies never;
  }
  for (const [k, { s, v, durable }] of writer.writes.entries()) {
    if (durable) continue;
    yield step(`'s slot ${s} lands`, (next, self) => {
      if (create(next, self.e, s, v)) (self.writes[k] as Write).durable = true;
      else {
        self.writes.splice(k, 1);
        giveUp(next, self);
      }
    });
  }
  if (state.claimed > writer.e) yield step("is paused and taken for dead", giveUp);
}

function* standbySteps(state: Model, leftOut: LeftOut): Generator<[string, Model]> {
  const { at, pc } = state.standby;
  if (pc === "read") {
    const found = state.slots[nameOf(at.e, at.s)];
    if (found === undefined && !isCovered(state, at)) return;
    const next = clone(state);
    next.standby.seen = found ?? "";
    next.standby.pc = "look";
    yield [`the standby reads ${at.e}.${at.s}`, next];
    const { applied } = state.standby;
    const last = { e: at.e, s: at.s - 1 };
    if (applied.length > state.checkpoint.vals.length) {
      const published = clone(state);
      published.checkpoint = { upTo: last, vals: [...applied] };
      yield [`the standby publishes a checkpoint at ${last.e}.${last.s}`, published];
    }
    return;
  }
  const next = clone(state);
  const { standby, checkpoint } = next;
  standby.pc = "read";
  if ((leftOut !== "checkpoint-look" || standby.seen === "") && isCovered(next, standby.at)) {
    standby.at = { e: checkpoint.upTo.e, s: checkpoint.upTo.s + 1 };
    standby.applied = [...checkpoint.vals];
  } else if (standby.seen === seal) standby.at = { e: standby.at.e + 1, s: 1 };
  else if (standby.seen !== "") {
    standby.applied.push(standby.seen);
    standby.at = { e: standby.at.e, s: standby.at.s + 1 };
  }
  standby.seen = "";
  yield ["the standby looks at the checkpoints", next];
}

/** The checks of every state. */
function wrongWith(state: Model): string | undefined {
  const log = logOf(state);
  for (const value of state.acked)
    if (!log.includes(value)) return `${value} was acknowledged and is lost: ${log.join(" ")}`;
  if (new Set(log).size < log.length) return `the log has something twice: ${log.join(" ")}`;
  const { applied } = state.standby;
  for (const { pc, e, mem } of state.writers) {
    const leads = (pc === "lead" || pc === "check") && e === state.claimed;
    if (leads && !isPrefix(mem, log)) return `the primary begins with ${mem.join(" ")}, the log is ${log.join(" ")}`;
  }
  return isPrefix(applied, log) ? undefined : `the standby has ${applied.join(" ")}, the log ${log.join(" ")}`;
}

function isPrefix(values: readonly string[], log: readonly string[]): boolean {
  return values.every((value, k) => log[k] === value);
}

/** What a new reader would take for the log, if everybody else stood still. */
function logOf(state: Model): string[] {
  const { upTo, vals } = state.checkpoint;
  const log = [...vals];
  let at = { e: upTo.e, s: upTo.s + 1 };
  while (at.e <= Math.max(1, state.claimed)) {
    const found = state.slots[`${at.e}.${at.s}`] ?? seal;
    if (found === seal) at = { e: at.e + 1, s: 1 };
    else {
      log.push(found);
      at = { e: at.e, s: at.s + 1 };
    }
  }
  return log;
}

function beginWalk({ checkpoint }: Model, writer: Writer): void {
  writer.pc = "walk";
  writer.mem = [...checkpoint.vals];
  writer.at = { e: checkpoint.upTo.e, s: checkpoint.upTo.s + 1 };
}

function giveUp(state: Model, writer: Writer): void {
  for (const { s, v, durable } of writer.writes) if (!durable) state.late.push({ e: writer.e, s, v });
  writer.writes = [];
  writer.mem = [];
  writer.seen = "";
  writer.checking = 0;
  writer.pc = "idle";
}

/** Exclusive: false if something is there. */
function create(state: Model, e: number, s: number, value: string): boolean {
  const name = nameOf(e, s);
  if (state.slots[name] !== undefined) return false;
  state.slots[name] = value;
  return true;
}

function durableUpTo({ writes }: Writer, leftOut: LeftOut): number {
  const sorted = [...writes].sort((a, b) => a.s - b.s);
  let upTo = 0;
  for (const { s, durable } of sorted) {
    if (durable) upTo = s;
    else if (leftOut !== "contiguity") break;
  }
  return upTo;
}

function isCovered({ checkpoint }: Model, { e, s }: Position): boolean {
  const { upTo } = checkpoint;
  return e < upTo.e || (e === upTo.e && s <= upTo.s);
}

function nameOf(e: number, s: number): string {
  return `${e}.${s}`;
}

function positionOf(name: string): Position {
  const [e = 0, s = 0] = name.split(".").map(Number);
  return { e, s };
}

function clone({ claimed, slots, checkpoint, acked, writers, late, standby }: Model): Model {
  return {
    claimed,
    slots: { ...slots },
    checkpoint,
    acked: [...acked],
    writers: writers.map((writer) => ({
      ...writer,
      mem: [...writer.mem],
      writes: writer.writes.map((write) => ({ ...write })),
    })),
    late: [...late],
    standby: { ...standby, applied: [...standby.applied] },
  };
}

/** Writers are alike, and what is a set has no order. */
function keyOf({ claimed, slots, checkpoint, acked, writers, late, standby }: Model): string {
  const all = [
    Object.keys(slots)
      .sort()
      .map((name) => `${name}=${slots[name]}`),
    writers.map((writer) => JSON.stringify(writer)).sort(),
    late.map(({ e, s }) => `${e}.${s}`).sort(),
    [...acked].sort(),
  ];
  return JSON.stringify([claimed, checkpoint, standby, all]);
}

function stepsTo(queue: readonly { readonly from: number; readonly step: string }[], last: number): string[] {
  const path: string[] = [];
  for (let at = last; at >= 0; at = queue[at]?.from ?? -1) path.push(queue[at]?.step ?? "");
  return path.reverse();
}
