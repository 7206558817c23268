import assert from "node:assert/strict";
import { test } from "node:test";
import type { SessionId } from "../base/ids.ts";
import type { Path } from "../base/path.ts";
import { code, NamespaceHarness, ok, Shell, type StoreKind, storeKinds } from "../testing/namespace-harness.ts";
import { requestIdKeptMs } from "./command.ts";
import { unacknowledgedMax } from "./session-table.ts";

function claim(name: string, body: (shell: Shell, harness: NamespaceHarness) => Promise<void> | void): void {
  for (const kind of storeKinds) {
    test(`${name} (${kind})`, async () => {
      const harness = await NamespaceHarness.open(kind as StoreKind);
      try {
        await body(new Shell(harness), harness);
      } finally {
        await harness.close();
      }
    });
  }
}

const at = (text: string): Path => text as Path;

function openSession(harness: NamespaceHarness, timeoutMs = 60_000): SessionId {
  return ok(harness.run("open-session", { timeoutMs, client: "test" })).sessionId;
}

claim("a sequence that comes again gets the first result, success or refusal", (shell, harness) => {
  const sessionId = openSession(harness);
  const first = shell.create("/f", { origin: { sessionId, sequence: 1, acknowledged: 0 } });
  const refused = shell.create("/f", { origin: { sessionId, sequence: 2, acknowledged: 0 } });
  assert.equal(code(refused), "already-exists");
  ok(shell.remove("/f", { origin: { sessionId, sequence: 3, acknowledged: 0 } }));
  assert.deepEqual(shell.create("/f", { origin: { sessionId, sequence: 1, acknowledged: 0 } }), first);
  assert.deepEqual(shell.create("/f", { origin: { sessionId, sequence: 2, acknowledged: 1 } }), refused);
  assert.equal(harness.namespace.find(at("/f")), undefined);
});

claim("the same sequence with other arguments is invalid, as is one that was acknowledged", (shell, harness) => {
  const sessionId = openSession(harness);
  ok(shell.create("/f", { origin: { sessionId, sequence: 1, acknowledged: 0 } }));
  assert.equal(code(shell.create("/g", { origin: { sessionId, sequence: 1, acknowledged: 0 } })), "invalid");
  assert.equal(code(shell.mkdir("/f", { origin: { sessionId, sequence: 1, acknowledged: 0 } })), "invalid");
  ok(shell.create("/h", { origin: { sessionId, sequence: 2, acknowledged: 1 } }));
  assert.equal(code(shell.create("/f", { origin: { sessionId, sequence: 1, acknowledged: 0 } })), "invalid");
  assert.equal(code(shell.create("/i", { origin: { sessionId, sequence: 3, acknowledged: 3 } })), "invalid");
});

claim("a request on a session that is no more has an unknown outcome and is never applied", (shell, harness) => {
  const sessionId = openSession(harness);
  ok(harness.run("close-session", { sessionId }));
  const result = shell.create("/f", { origin: { sessionId, sequence: 1, acknowledged: 0 } });
  assert.equal(code(result), "unknown-outcome");
  assert.equal(result.ok ? "" : result.error.outcome, "unknown");
  assert.equal(harness.namespace.find(at("/f")), undefined);
});

claim("sessions expire by the state's clock unless renewed or used", (shell, harness) => {
  const [idle, renewed, used] = [openSession(harness, 5000), openSession(harness, 5000), openSession(harness, 5000)];
  harness.nowMs += 4000;
  assert.deepEqual(ok(harness.run("renew-sessions", { sessionIds: [renewed, 999 as SessionId] })).unknown, [999]);
  ok(shell.create("/f", { origin: { sessionId: used, sequence: 1, acknowledged: 0 } }));
  assert.deepEqual(ok(harness.run("expire-sessions", { limit: 10 })).expired, []);
  harness.nowMs += 2000;
  assert.deepEqual(ok(harness.run("expire-sessions", { limit: 10 })).expired, [idle]);
  harness.nowMs += 10_000;
  const slice = ok(harness.run("expire-sessions", { limit: 1 }));
  assert.deepEqual([slice.expired, slice.more], [[renewed], true]);
});

claim("results survive flushes, crashes and checkpoints", async (shell, harness) => {
  const sessionId = openSession(harness);
  const first = shell.create("/f", { origin: { sessionId, sequence: 1, acknowledged: 0 } });
  const refused = shell.create("/f", { origin: { sessionId, sequence: 2, acknowledged: 0 } });
  await harness.namespace.flush();
  const third = shell.create("/g", { origin: { sessionId, sequence: 3, acknowledged: 0 }, requestId: "r3" });
  await harness.crash();
  assert.deepEqual(shell.create("/f", { origin: { sessionId, sequence: 1, acknowledged: 0 } }), first);
  const path = harness.path("checkpoint");
  await harness.namespace.writeCheckpoint(path);
  await harness.namespace.reset(path);
  assert.deepEqual(shell.create("/f", { origin: { sessionId, sequence: 2, acknowledged: 0 } }), refused);
  assert.deepEqual(shell.create("/g", { origin: { sessionId, sequence: 3, acknowledged: 0 }, requestId: "r3" }), third);
  assert.deepEqual(shell.create("/g", { requestId: "r3" }), third, "the request id alone finds it, too");
  ok(shell.create("/h", { origin: { sessionId, sequence: 4, acknowledged: 3 } }));
  await harness.namespace.flush();
  await harness.crash();
  assert.equal(
    code(shell.create("/g", { origin: { sessionId, sequence: 3, acknowledged: 0 } })),
    "invalid",
    "acknowledged, so forgotten",
  );
});

claim("a client that acknowledges nothing is stopped at a limit", (shell, harness) => {
  const sessionId = openSession(harness);
  for (let sequence = 1; sequence <= unacknowledgedMax; sequence++) {
    ok(shell.mkdir("/d", { origin: { sessionId, sequence, acknowledged: 0 } }));
  }
  const next = { sessionId, sequence: unacknowledgedMax + 1 };
  assert.equal(code(shell.mkdir("/d", { origin: { ...next, acknowledged: 0 } })), "overloaded");
  ok(shell.mkdir("/d", { origin: { ...next, acknowledged: unacknowledgedMax } }));
});

claim("a request id is applied once for ten minutes of the state's time, then forgotten", (shell, harness) => {
  const { namespace } = harness;
  const first = shell.create("/f", { requestId: "once" });
  ok(shell.remove("/f"));
  assert.deepEqual(shell.create("/f", { requestId: "once" }), first);
  assert.equal(namespace.find(at("/f")), undefined);
  assert.equal(code(shell.create("/g", { requestId: "once" })), "invalid");
  assert.equal(code(shell.create("/g", { requestId: "x".repeat(129) })), "invalid");
  harness.nowMs += requestIdKeptMs - 10;
  assert.deepEqual(shell.create("/f", { requestId: "once" }), first);
  harness.nowMs += 20;
  assert.equal(ok(harness.run("reclaim", { limit: 10 })).reclaimed, 1);
  assert.equal(namespace.counters.requestIds, 0);
  assert.equal(ok(shell.create("/f", { requestId: "once" })).created, true);
});

claim("a request that waits for an under store ends with one final result", (shell, harness) => {
  const sessionId = openSession(harness);
  const { mountId, inodeId } = ok(shell.mount("/m"));
  const rows = ["f", "g"].map((name) => ({ name, kind: "file" as const, sizeBytes: 1, etag: "e", modifiedMs: 1 }));
  ok(
    harness.run("sync-rows", {
      mountId,
      directoryInodeId: inodeId,
      listingBeganVersion: harness.namespace.version,
      rows,
    }),
  );
  const origin = { sessionId, sequence: 1, acknowledged: 0 };
  const waiting = ok(shell.remove("/m/f", { origin, requestId: "r" }));
  assert.ok(waiting.intentId !== undefined);
  assert.deepEqual(shell.remove("/m/f", { origin, requestId: "r" }), waiting);
  const error = { code: "denied" as const, message: "the bucket says no", retryable: false, outcome: "none" as const };
  ok(harness.run("finish-intent", { intentId: waiting.intentId ?? 0, outcome: "undone", error }));
  assert.deepEqual(shell.remove("/m/f", { origin, requestId: "r" }), { ok: false, error });
  assert.deepEqual(shell.remove("/m/f", { requestId: "r" }), { ok: false, error });
  const second = { sessionId, sequence: 2, acknowledged: 0 };
  const { intentId } = ok(shell.remove("/m/g", { origin: second }));
  ok(harness.run("finish-intent", { intentId: intentId ?? 0, outcome: "done" }));
  assert.equal(ok(shell.remove("/m/g", { origin: second })).intentId, undefined);
});

claim("the final result of a request that waited survives a crash", async (shell, harness) => {
  const sessionId = openSession(harness);
  ok(shell.mount("/m"));
  const origin = { sessionId, sequence: 1, acknowledged: 0 };
  const { intentId } = ok(shell.mkdir("/m/d", { origin, requestId: "r" }));
  await harness.namespace.flush();
  ok(harness.run("finish-intent", { intentId: intentId ?? 0, outcome: "done" }));
  const final = shell.mkdir("/m/d", { origin, requestId: "r" });
  assert.equal(ok(final).intentId, undefined);
  await harness.namespace.flush();
  const before = harness.replayedEntries;
  await harness.crash();
  assert.equal(harness.replayedEntries, before, "the store alone must know it");
  assert.deepEqual(shell.mkdir("/m/d", { origin, requestId: "r" }), final);
  assert.deepEqual(shell.mkdir("/m/d", { requestId: "r" }), final);
});
