/**
 * `PUT /v1/objects/<mountId>?key=<key>&ifAbsent=<bool>`: a body goes through to the under store, whole or not at all. A
 * `content-length` and the optional header `x-headpond-sha256` are checked before the under store makes it visible.
 */

import { HeadpondError } from "../base/errors.ts";
import type { MountId } from "../base/ids.ts";
import { Digest } from "../io/hash.ts";
import type { HttpRequest } from "../io/http-request.ts";
import type { HttpResponse } from "../io/http-response.ts";
import { checkFileKey } from "../under-store/under-store.ts";
import type { UnderStores } from "./under-stores.ts";

/** One object; larger ones are written by other means. */
const objectBytesMax = 5 * 1024 ** 4;

export class ObjectRoutes {
  readonly #stores: UnderStores;
  readonly #writesMax: number;
  #writes = 0;

  constructor(options: { readonly stores: UnderStores; readonly writesMax: number }) {
    this.#stores = options.stores;
    this.#writesMax = options.writesMax;
  }

  async serve(request: HttpRequest, response: HttpResponse, mountText: string): Promise<void> {
    if (!/^[0-9]{1,16}$/.test(mountText)) throw new HeadpondError("invalid", "not a mount id");
    const key = request.query.get("key");
    if (key === null) throw new HeadpondError("invalid", "the query has no key");
    checkFileKey(key);
    const ifAbsent = request.query.get("ifAbsent") === "true";
    const expected = request.headers["x-headpond-sha256"]?.toLowerCase();
    const store = await this.#stores.writable(Number(mountText) as MountId);
    if (this.#writes >= this.#writesMax) {
      throw new HeadpondError("overloaded", `${this.#writesMax} objects are being written already`, {
        details: { retryAfterMs: 1000 },
      });
    }
    this.#writes++;
    try {
      const digest = new Digest("sha256");
      let sha256 = "";
      const body = async function* (): AsyncGenerator<Uint8Array> {
        for await (const chunk of request.stream(objectBytesMax)) {
          digest.update(chunk);
          yield chunk;
        }
        sha256 = digest.hex();
        if (expected === undefined || expected === sha256) return;
        throw new HeadpondError("invalid", `${key}: the body has the SHA-256 ${sha256}, not ${expected}`);
      };
      const sizeBytes = request.lengthBytes;
      const info = await store.write(key, {
        body: body(),
        ifAbsent,
        signal: request.signal,
        ...(sizeBytes === undefined ? {} : { sizeBytes }),
      });
      response.json(200, {
        sizeBytes: info.sizeBytes,
        etag: info.etag,
        modifiedMs: info.modifiedMs,
        digest: { algorithm: "sha256", value: sha256 },
      });
    } finally {
      this.#writes--;
    }
  }
}
