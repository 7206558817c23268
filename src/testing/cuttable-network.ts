/**
 * A network with a switch, for clients: cut, nothing gets through in either direction and nobody is told; deaf, what is sent arrives
 * and what is answered does not. A connection that lost bytes breaks when it is healed, as no real one goes on without them.
 */

import type { Address, Connection, Network } from "../io/network.ts";

export class CuttableNetwork implements Network {
  readonly #network: Network;
  readonly #damaged = new Set<Connection>();
  #state: "whole" | "cut" | "deaf" = "whole";

  constructor(network: Network) {
    this.#network = network;
  }

  cut(): void {
    this.#state = "cut";
  }

  dropReplies(): void {
    this.#state = "deaf";
  }

  heal(): void {
    this.#state = "whole";
    for (const connection of this.#damaged) connection.destroy(new Error("bytes were lost"));
    this.#damaged.clear();
  }

  async connect(address: Address, signal?: AbortSignal): Promise<Connection> {
    if (this.#state !== "whole") {
      await new Promise((_, reject) => {
        if (signal?.aborted) reject(signal.reason as Error);
        signal?.addEventListener("abort", () => reject(signal.reason as Error), { once: true });
      });
    }
    const connection = await this.#network.connect(address, signal);
    const outer: Connection = {
      remote: connection.remote,
      onData: () => {},
      onClose: () => {},
      onDrain: () => {},
      write: (bytes) => {
        if (this.#state !== "cut") return connection.write(bytes);
        this.#damaged.add(connection);
        return true;
      },
      pause: () => connection.pause(),
      resume: () => connection.resume(),
      get pendingBytes() {
        return connection.pendingBytes;
      },
      end: () => connection.end(),
      destroy: (error) => connection.destroy(error),
    };
    connection.onData = (chunk) => {
      if (this.#state === "whole") outer.onData(chunk);
      else this.#damaged.add(connection);
    };
    connection.onClose = (error) => {
      this.#damaged.delete(connection);
      outer.onClose(error);
    };
    return outer;
  }

  listen(): never {
    throw new Error("a client does not listen");
  }
}
