import assert from "node:assert/strict";
import { test } from "node:test";
import { HeadpondError, isHeadpondError } from "../base/errors.ts";
import type { SessionId } from "../base/ids.ts";
import { Random } from "../base/random.ts";
import type { Clock, Timer } from "../io/clock.ts";
import { silentLogger } from "../io/logger.ts";
import { masterService, type Origin } from "../rpc/master-service.ts";
import type { Method } from "../rpc/method.ts";
import type { MasterCallOptions, MasterCalls } from "./master-calls.ts";
import { Session } from "./session.ts";
import { Watermark } from "./watermark.ts";

/** Moves only when told, and then fires what is due. */
class TestClock implements Clock {
  nowMs = 1000;
  readonly #timers = new Set<{ readonly dueMs: number; readonly callback: () => void }>();

  wallMs(): number {
    return this.nowMs;
  }

  monotonicMs(): number {
    return this.nowMs;
  }

  nextTurn(): Promise<void> {
    return Promise.resolve();
  }

  sleep(): Promise<void> {
    return Promise.reject(new Error("a session never sleeps"));
  }

  timer(durationMs: number, callback: () => void): Timer {
    const timer = { dueMs: this.nowMs + durationMs, callback };
    this.#timers.add(timer);
    return { clear: () => void this.#timers.delete(timer) };
  }

  async advance(durationMs: number): Promise<void> {
    this.nowMs += durationMs;
    for (const timer of [...this.#timers]) {
      if (timer.dueMs > this.nowMs || !this.#timers.delete(timer)) continue;
      timer.callback();
    }
    await settled();
  }
}

/** Lets everything that can go on without time go on. */
async function settled(): Promise<void> {
  for (let turn = 0; turn < 20; turn++) await Promise.resolve();
}

/** Masters of which the test decides every answer. */
class ScriptedMasters implements MasterCalls {
  readonly lifeMs = 9000;
  readonly sessions = new Set<number>();
  readonly changes: {
    readonly origin: Origin;
    readonly options: MasterCallOptions;
    answer: PromiseWithResolvers<unknown>;
  }[] = [];
  readonly kept: number[] = [];
  reachable = true;
  #nextSession = 1;

  call<Request, Reply>(
    method: Method<Request, Reply>,
    request: Request,
    options: MasterCallOptions = {},
  ): Promise<Reply> {
    return this.#answer(method.name, request as never, options) as Promise<Reply>;
  }

  openStream(): AsyncIterable<never> {
    throw new Error("a session opens no streams");
  }

  async close(): Promise<void> {}

  async #answer(
    name: string,
    request: { readonly sessionId: SessionId; readonly acknowledged: number; readonly origin: Origin },
    options: MasterCallOptions,
  ): Promise<unknown> {
    if (!this.reachable) throw new HeadpondError("unavailable", "no master answers");
    if (name === "openSession") {
      const sessionId = this.#nextSession++;
      this.sessions.add(sessionId);
      return { sessionId, expiresAfterMs: this.lifeMs };
    }
    if (name === "keepSession") {
      if (!this.sessions.has(request.sessionId)) throw new HeadpondError("not-found", "no such session");
      this.kept.push(request.acknowledged);
      return { expiresAfterMs: this.lifeMs };
    }
    if (name === "closeSession") {
      this.sessions.delete(request.sessionId);
      return {};
    }
    if (!this.sessions.has(request.origin.sessionId))
      throw new HeadpondError("unknown-outcome", "the session has expired");
    const answer = Promise.withResolvers<unknown>();
    this.changes.push({ origin: request.origin, options, answer });
    return answer.promise;
  }
}

function setUp(): {
  clock: TestClock;
  masters: ScriptedMasters;
  session: Session;
  mkdir: (path: string) => Promise<unknown>;
} {
  const clock = new TestClock();
  const masters = new ScriptedMasters();
  const session = new Session({ masters, clock, logger: silentLogger, clientName: "test" });
  const mkdir = (path: string): Promise<unknown> => session.change(masterService.methods.mkdir, { path });
  return { clock, masters, session, mkdir };
}

test("every change gets a number of its own, in one session, and may be sent again", async () => {
  const { masters, mkdir } = setUp();
  const changes = ["/a", "/b", "/c"].map((path) => mkdir(path));
  await settled();
  assert.deepEqual(
    masters.changes.map(({ origin }) => [origin.sessionId, origin.sequence, origin.acknowledged]),
    [
      [1, 1, 0],
      [1, 2, 0],
      [1, 3, 0],
    ],
  );
  assert.ok(masters.changes.every(({ options }) => options.retryUnknown === true));
  for (const { answer } of masters.changes) answer.resolve({});
  await Promise.all(changes);
});

test("the mark moves only over answers without a gap", async () => {
  const { masters, mkdir } = setUp();
  const changes = ["/a", "/b", "/c"].map((path) => mkdir(path));
  await settled();
  masters.changes[2]?.answer.resolve({});
  masters.changes[1]?.answer.resolve({});
  await settled();
  changes.push(mkdir("/d"));
  await settled();
  assert.equal(masters.changes[3]?.origin.acknowledged, 0);
  masters.changes[0]?.answer.resolve({});
  await settled();
  changes.push(mkdir("/e"));
  await settled();
  assert.equal(masters.changes[4]?.origin.acknowledged, 3);
  for (const { answer } of masters.changes) answer.resolve({});
  await Promise.all(changes);
});

test("a session is kept alive while the client lives, and tells what is acknowledged", async () => {
  const { clock, masters, session, mkdir } = setUp();
  const change = mkdir("/a");
  await settled();
  masters.changes[0]?.answer.resolve({});
  await change;
  for (let round = 0; round < 3; round++) await clock.advance(masters.lifeMs / 3);
  assert.deepEqual(masters.kept, [1, 1, 1]);
  await session.close();
  assert.equal(masters.sessions.size, 0);
  await clock.advance(masters.lifeMs);
  assert.equal(masters.kept.length, 3);
});

test("a change in flight when its session expired is unknown, and later ones get a new session", async () => {
  const { clock, masters, mkdir } = setUp();
  const inFlight = mkdir("/a");
  const outcome = assert.rejects(inFlight, (error: unknown) => {
    assert.ok(isHeadpondError(error, "unknown-outcome"));
    assert.equal(error.outcome, "unknown");
    return true;
  });
  await settled();
  masters.sessions.clear();
  masters.changes[0]?.answer.reject(new HeadpondError("unknown-outcome", "the session has expired"));
  await outcome;
  const later = mkdir("/b");
  await settled();
  assert.deepEqual(masters.changes[1]?.origin, { sessionId: 2, sequence: 1, acknowledged: 0 });
  masters.changes[1]?.answer.resolve({});
  await later;
  await clock.advance(1);
});

test("after a long pause the session is checked before a change is risked on it", async () => {
  const { clock, masters, mkdir } = setUp();
  const first = mkdir("/a");
  await settled();
  masters.changes[0]?.answer.resolve({});
  await first;
  masters.sessions.clear();
  // The whole process slept: no timer has fired, but the clock has moved.
  clock.nowMs += masters.lifeMs * 2;
  const second = mkdir("/b");
  await settled();
  assert.deepEqual(masters.changes[1]?.origin, { sessionId: 2, sequence: 1, acknowledged: 0 });
  masters.changes[1]?.answer.resolve({});
  await second;
});

test("without a master a change fails as not done, and the next attempt opens the session", async () => {
  const { masters, mkdir } = setUp();
  masters.reachable = false;
  await assert.rejects(
    mkdir("/a"),
    (error: unknown) => isHeadpondError(error, "unavailable") && error.outcome === "none",
  );
  masters.reachable = true;
  const change = mkdir("/a");
  await settled();
  assert.equal(masters.changes.length, 1);
  masters.changes[0]?.answer.resolve({});
  await change;
});

test("a change of a closed client is refused", async () => {
  const { session, mkdir } = setUp();
  await session.close();
  await assert.rejects(mkdir("/a"), (error: unknown) => isHeadpondError(error, "cancelled"));
});

test("a cancelled wait for a session is over at once", async () => {
  const { masters, session } = setUp();
  const never = Promise.withResolvers<never>();
  masters.call = () => never.promise;
  const stop = new AbortController();
  const change = session.change(masterService.methods.mkdir, { path: "/a" }, { signal: stop.signal });
  stop.abort();
  await assert.rejects(change, (error: unknown) => isHeadpondError(error, "cancelled") && error.outcome === "none");
});

test("the mark is always the longest settled stretch, whatever the order of answers", async () => {
  const seed = Date.now() % 2 ** 31;
  const random = new Random(seed);
  console.log(`seed ${seed}`);
  const mark = new Watermark(50);
  const open: number[] = [];
  const done = new Set<number>();
  let last = 0;
  for (let step = 0; step < 5000; step++) {
    if (open.length > 0 && (last - mark.acknowledged >= 50 || random.chance(0.5))) {
      const [sequence] = open.splice(random.between(0, open.length - 1), 1) as [number];
      done.add(sequence);
      mark.settle(sequence);
    } else {
      const sequence = (await mark.next()) as number;
      assert.equal(sequence, ++last);
      open.push(sequence);
    }
    let expected = 0;
    while (done.has(expected + 1)) expected++;
    assert.equal(mark.acknowledged, expected, `seed ${seed}, step ${step}`);
  }
});

test("numbers beyond the limit wait until the oldest is settled, and an ended session gives none", async () => {
  const mark = new Watermark(2);
  await mark.next();
  await mark.next();
  let third: number | undefined;
  const waiting = mark.next().then((sequence) => (third = sequence));
  mark.settle(2);
  await settled();
  assert.equal(third, undefined);
  mark.settle(1);
  await waiting;
  assert.equal(third, 3);
  await mark.next();
  const stranded = mark.next();
  mark.end();
  assert.equal(await stranded, undefined);
});
