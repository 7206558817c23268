import assert from "node:assert/strict";
import { test } from "node:test";
import { Random } from "../base/random.ts";
import { MiB } from "../base/units.ts";
import { boundMs, type FleetCase, type FleetOutcome, FleetSimulator } from "./fleet-simulator.ts";

const MB = 1e6;
/** Eight workers as in the shaped test bed: 20 ms of queue a hop. */
const eight: FleetCase = {
  seed: 1,
  workers: 8,
  fileBytes: 200 * MiB,
  blockBytes: 4 * MiB,
  linkBytesPerSecond: 20 * MB,
  originBytesPerSecond: 20 * MB,
  stepMs: 20,
  roundTripMs: 40,
  reportMs: 200,
};

function efficiency(fleet: FleetCase, { doneMs }: FleetOutcome, but: readonly number[] = []): number {
  const counted = doneMs.filter((_, worker) => !but.includes(worker)).map((ms) => ms ?? Infinity);
  return boundMs(fleet) / Math.max(...counted);
}

for (const [workers, least] of [
  [8, 0.95],
  [16, 0.9],
  [32, 0.9],
] as const) {
  test(`${workers} workers have a cold file in ${least} of the bound or better, and each byte leaves the origin once`, () => {
    const rate = (160 * MB) / workers;
    const fleet = {
      ...eight,
      workers,
      linkBytesPerSecond: rate,
      originBytesPerSecond: rate,
      fileBytes: (workers === 8 ? 200 : 100) * MiB,
    };
    const outcome = new FleetSimulator(fleet).run();
    assert.ok(efficiency(fleet, outcome) >= least, `${efficiency(fleet, outcome)}`);
    assert.ok(Math.abs(outcome.originBytes / fleet.fileBytes - 1) < 1e-6);
  });
}

test("a slow origin is busy all the time, and a fast one holds nobody up", () => {
  const slow = { ...eight, originBytesPerSecond: 5 * MB, fileBytes: 100 * MiB };
  assert.ok(efficiency(slow, new FleetSimulator(slow).run()) >= 0.95);
  const fast = { ...eight, linkBytesPerSecond: 10 * MB, originBytesPerSecond: 40 * MB, fileBytes: 100 * MiB };
  assert.ok(efficiency(fast, new FleetSimulator(fast).run()) >= 0.9);
});

test("a slow worker slows nobody else", () => {
  for (const number of [0, 3, 7]) {
    const fleet = { ...eight, fileBytes: 100 * MiB, slow: new Map([[number, 5 * MB]]) };
    const outcome = new FleetSimulator(fleet).run();
    assert.ok(efficiency(fleet, outcome, [number]) >= 0.8, `worker ${number}: ${efficiency(fleet, outcome, [number])}`);
    assert.ok(
      outcome.originBytes <= 1.02 * fleet.fileBytes,
      `worker ${number}: ${outcome.originBytes / fleet.fileBytes}`,
    );
  }
});

test("a worker whose bytes stop is passed over within a second", () => {
  for (const worker of [0, 3, 6]) {
    const fleet = { ...eight, stall: [{ worker, atMs: 4000, forMs: 60_000 }] };
    const outcome = new FleetSimulator(fleet).run();
    const lateMs = Math.max(...outcome.doneMs.map((ms, i) => (i === worker ? 0 : (ms ?? Infinity)))) - boundMs(fleet);
    assert.ok(lateMs < 2000, `worker ${worker}: ${lateMs} ms behind the bound`);
  }
});

test("whoever is killed, the others are done soon, and what he had half is not fetched twice", () => {
  for (let worker = 0; worker < 8; worker++) {
    const fleet = { ...eight, kill: [{ worker, atMs: 5200, backMs: 7200 }] };
    const outcome = new FleetSimulator(fleet).run();
    assert.ok(
      efficiency(fleet, outcome, [worker]) >= 0.85,
      `worker ${worker}: ${efficiency(fleet, outcome, [worker])}`,
    );
    assert.ok(
      outcome.originBytes <= 1.05 * fleet.fileBytes,
      `worker ${worker}: ${outcome.originBytes / fleet.fileBytes}`,
    );
  }
});

test("a fleet that is killed, stalled and slowed at random always gets there, and fetches little twice", () => {
  const seed = Math.floor(Math.random() * 2 ** 31);
  const random = new Random(seed);
  for (let round = 0; round < 15; round++) {
    const workers = random.between(3, 20);
    const someone = (): number => random.between(0, workers - 2);
    const fleet: FleetCase = {
      ...eight,
      seed: seed + round,
      workers,
      fileBytes: random.between(20, 120) * MiB + random.between(0, MiB),
      originBytesPerSecond: random.between(5, 60) * MB,
      startWithinMs: random.between(0, 2000),
      slow: new Map([[someone(), random.between(1, 10) * MB]]),
      kill: [
        {
          worker: someone(),
          atMs: random.between(100, 6000),
          ...(random.chance(0.6) ? { backMs: random.between(6100, 9000) } : {}),
        },
        { worker: workers - 1, atMs: random.between(100, 3000), backMs: 3500 },
      ],
      stall: [{ worker: someone(), atMs: random.between(100, 5000), forMs: random.between(100, 5000) }],
    };
    const outcome = new FleetSimulator(fleet).run();
    const killedBlocks = 2 * 12 * fleet.blockBytes;
    assert.ok(
      outcome.originBytes <= fleet.fileBytes * 1.05 + killedBlocks,
      `seed ${seed}, round ${round}: ${outcome.originBytes / fleet.fileBytes}`,
    );
  }
});
