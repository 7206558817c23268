import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { ManualClock } from "../io/manual-clock.ts";
import { LeaderClock } from "./leader-clock.ts";

describe("leader clock", () => {
  it("follows a wall clock that agrees with the monotonic one", () => {
    const clock = new ManualClock({ wallMs: 1_000_000 });
    const leader = new LeaderClock({ clock });
    clock.advanceSync(5000);
    assert.equal(leader.nowMs(), 1_005_000);
  });

  it("never runs backwards, whatever the wall clock does", () => {
    const clock = new ManualClock({ wallMs: 1_000_000_000 });
    const leader = new LeaderClock({ clock });
    let last = leader.nowMs();
    for (const jumpMs of [-500, -3_600_000, 7_200_000, -10, 400, -9e8]) {
      clock.jumpWall(jumpMs);
      for (let i = 0; i < 10; i++) {
        clock.advanceSync(7);
        const now = leader.nowMs();
        assert.ok(now >= last, `${now} after ${last}`);
        last = now;
      }
    }
  });

  it("a wall clock that jumps an hour ahead is held back: a minute stays about a minute", () => {
    const clock = new ManualClock({ wallMs: 1_000_000 });
    const leader = new LeaderClock({ clock });
    clock.jumpWall(3_600_000);
    for (let s = 0; s < 60; s++) {
      clock.advanceSync(1000);
      leader.nowMs();
    }
    const passed = leader.nowMs() - 1_000_000;
    assert.ok(passed >= 60_000 && passed <= 66_001, `${passed} ms passed`);
    assert.ok(leader.heldBackMs > 3_500_000);
  });

  it("a jump is made up for in the end", () => {
    const clock = new ManualClock({ wallMs: 1_000_000 });
    const leader = new LeaderClock({ clock });
    clock.jumpWall(60_000);
    for (let s = 0; s < 700; s++) {
      clock.advanceSync(1000);
      leader.nowMs();
    }
    assert.equal(leader.nowMs(), 1_000_000 + 60_000 + 700_000);
    assert.equal(leader.heldBackMs, 0);
  });

  it("a new leader goes on from the clock of the state, also when its own wall clock is behind", () => {
    const clock = new ManualClock({ wallMs: 1_000_000 });
    const leader = new LeaderClock({ clock });
    leader.begin(5_000_000);
    assert.ok(leader.nowMs() >= 5_000_000);
    clock.advanceSync(10_000);
    const now = leader.nowMs();
    assert.ok(now >= 5_008_999 && now <= 5_010_000, "time does not stand still until the wall clock has caught up");
  });
});
