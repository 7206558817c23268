/** One attempt to reach a peer, from the first packet to the end of the connection that came of it. */

import type { Clock } from "../io/clock.ts";
import type { Address, Connection, Network } from "../io/network.ts";
import { PeerConnection } from "./peer-connection.ts";
import { frameKind, peerFrameLimits, strangerFrameLimits } from "./peer-frame.ts";
import { helloDocument, type LaneKind, readRefusal, readWelcome, refusalOfIdentity } from "./peer-hello.ts";
import type { PeerIdentity } from "./peers.ts";

export type DialOptions = {
  readonly network: Network;
  readonly clock: Clock;
  readonly self: PeerIdentity;
  readonly to: string;
  readonly address: Address;
  readonly lane: LaneKind;
  /** For the connection, which needs the other's kernel only. */
  readonly connectTimeoutMs: number;
  /** For the answer to the hello: the other's process must have had its turn. */
  readonly helloTimeoutMs: number;
  readonly silentTicksMax: number;
  readonly refuses: (peer: PeerIdentity) => string | undefined;
  /** Called when both have accepted each other, in the turn in which the answer came: handlers are set here. */
  readonly onOpen: (connection: PeerConnection, peer: PeerIdentity) => void;
};

export type DialEnd = {
  readonly wasOpen: boolean;
  readonly reason: string;
  /** Who refused whom: time alone will not cure it. */
  readonly refusal?: "theirs" | "ours";
};

/** Resolves when the connection is over, or could not be made. Never rejects. */
export async function dialPeer(options: DialOptions, signal: AbortSignal): Promise<DialEnd> {
  const { clock, connectTimeoutMs, address } = options;
  const patience = new AbortController();
  const timer = clock.timer(connectTimeoutMs, () =>
    patience.abort(new Error(`no answer within ${connectTimeoutMs} ms`)),
  );
  let connection: Connection;
  try {
    connection = await options.network.connect(address, AbortSignal.any([signal, patience.signal]));
  } catch (error) {
    return { wasOpen: false, reason: (error as Error).message };
  } finally {
    timer.clear();
  }
  return greet(options, connection, signal);
}

function greet(options: DialOptions, stream: Connection, signal: AbortSignal): Promise<DialEnd> {
  const { clock, self, to, lane, helloTimeoutMs, silentTicksMax } = options;
  return new Promise((resolve) => {
    const connection = new PeerConnection({
      connection: stream,
      isDialer: true,
      limits: strangerFrameLimits,
      silentTicksMax,
    });
    let wasOpen = false;
    let refusal: DialEnd["refusal"];
    const timer = clock.timer(helloTimeoutMs, () => {
      // After a pause of the own process the timer comes before what arrived meanwhile.
      void clock.nextTurn().then(() => {
        if (!wasOpen) connection.destroy(`no answer to the hello within ${helloTimeoutMs} ms`);
      });
    });
    const onAbort = (): void => connection.destroy("closing");
    connection.onClose = (reason) => {
      timer.clear();
      signal.removeEventListener("abort", onAbort);
      resolve({ wasOpen, reason, ...(refusal === undefined ? {} : { refusal }) });
    };
    connection.onFrame = ({ kind, head }) => {
      if (kind === frameKind.refusal) {
        refusal = "theirs";
        connection.destroy(readRefusal(head));
        return;
      }
      if (kind !== frameKind.welcome) {
        connection.destroy(`frame of kind ${kind} instead of a welcome`);
        return;
      }
      const { peer } = readWelcome(head);
      const reason =
        refusalOfIdentity(self, peer) ??
        (peer.id === to ? options.refuses(peer) : `${peer.id} answers at the address of ${to}: check the addresses`);
      if (reason !== undefined) {
        refusal = "ours";
        connection.writeJson(frameKind.refusal, { reason });
        connection.end(reason);
        return;
      }
      timer.clear();
      wasOpen = true;
      connection.limits = peerFrameLimits;
      options.onOpen(connection, peer);
    };
    if (signal.aborted) {
      connection.destroy("closing");
      return;
    }
    signal.addEventListener("abort", onAbort, { once: true });
    connection.writeJson(frameKind.hello, helloDocument(self, lane, to));
    connection.flush();
  });
}
