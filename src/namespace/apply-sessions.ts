/** Sessions: opened, kept alive, closed and expired by commands, so that every master agrees on who may still retry. */

import type { SessionId } from "../base/ids.ts";
import type { CommandOf, ResultOf } from "./command.ts";
import { fail } from "./failure.ts";
import { sessionsMax } from "./session-table.ts";
import type { State } from "./state.ts";

const timeoutMinMs = 1000;
const timeoutMaxMs = 24 * 3600_000;
const clientBytesMax = 512;

export function applyOpenSession(state: State, command: CommandOf<"open-session">): ResultOf<"open-session"> {
  const { timeoutMs, client } = command;
  if (!(timeoutMs >= timeoutMinMs && timeoutMs <= timeoutMaxMs)) {
    return fail("invalid", `a session timeout of ${timeoutMs} ms is not within 1 s to 24 h`);
  }
  if (Buffer.byteLength(client) > clientBytesMax)
    return fail("invalid", `a client's name has more than ${clientBytesMax} bytes`);
  if (state.sessions.size >= sessionsMax) return fail("overloaded", `there are ${sessionsMax} sessions already`);
  const sessionId = state.header.nextSessionId++ as SessionId;
  state.sessions.open(sessionId, client, Math.floor(timeoutMs), state.header.nowMs);
  return { ok: true, sessionId };
}

export function applyRenewSessions(state: State, command: CommandOf<"renew-sessions">): ResultOf<"renew-sessions"> {
  const unknown: SessionId[] = [];
  for (const id of command.sessionIds) {
    const session = state.sessions.get(id);
    if (session === undefined) {
      unknown.push(id);
      continue;
    }
    state.sessions.touch(session);
    session.lastSeenMs = state.header.nowMs;
  }
  return { ok: true, unknown };
}

export function applyCloseSession(state: State, command: CommandOf<"close-session">): ResultOf<"close-session"> {
  const session = state.sessions.get(command.sessionId);
  if (session === undefined) return fail("not-found", `no session ${command.sessionId}: it was closed or has expired`);
  state.sessions.remove(session);
  return { ok: true };
}

export function applyExpireSessions(state: State, command: CommandOf<"expire-sessions">): ResultOf<"expire-sessions"> {
  const { limit } = command;
  if (!(limit >= 1)) return fail("invalid", `a slice of ${limit} is below 1`);
  const over = state.sessions.all().filter((session) => session.lastSeenMs + session.timeoutMs < state.header.nowMs);
  const expired = over.slice(0, limit);
  for (const session of expired) state.sessions.remove(session);
  return { ok: true, expired: expired.map((session) => session.id), more: over.length > expired.length };
}
