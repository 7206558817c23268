/**
 * The SASL mechanism DIGEST-MD5 (RFC 2831) as ZooKeeper's servers offer it: a password is proved without being sent, and the server
 * proves that it knows it, too. MD5 is what the servers have; use TLS where the network is not trusted.
 */

import { HeadpondError } from "../base/errors.ts";
import { Digest, digestHex } from "../io/hash.ts";

/** The Java servers' name for themselves, whatever they are called. */
const digestUri = "zookeeper/zk-sasl-md5";

export class DigestMd5 {
  readonly #user: string;
  readonly #password: string;
  readonly #nonce: () => string;

  /** `nonce`: new and not to be guessed at each call. */
  constructor(options: { readonly user: string; readonly password: string; readonly nonce: () => string }) {
    this.#user = options.user;
    this.#password = options.password;
    this.#nonce = options.nonce;
  }

  /** Answers the server's challenge; `isProof` checks what it says to that. Throws `denied` for a challenge of another kind. */
  respond(challenge: string): { readonly response: string; readonly isProof: (answer: string) => boolean } {
    const fields = parseFields(challenge);
    const nonce = fields.get("nonce");
    const realm = fields.get("realm") ?? "";
    const qop = fields.get("qop") ?? "auth";
    if (nonce === undefined || !qop.split(",").includes("auth") || fields.get("algorithm") !== "md5-sess") {
      throw new HeadpondError("denied", "ZooKeeper: the server offers no DIGEST-MD5 with quality of protection auth");
    }
    const cnonce = this.#nonce();
    const secret = new Digest("md5").update(`${this.#user}:${realm}:${this.#password}`).bytes();
    const first = new Digest("md5").update(secret).update(`:${nonce}:${cnonce}`).hex();
    const proofOf = (method: string): string => {
      const second = digestHex("md5", `${method}:${digestUri}`);
      return digestHex("md5", `${first}:${nonce}:00000001:${cnonce}:auth:${second}`);
    };
    const response = [
      "charset=utf-8",
      `username="${quoted(this.#user)}"`,
      `realm="${quoted(realm)}"`,
      `nonce="${quoted(nonce)}"`,
      "nc=00000001",
      `cnonce="${cnonce}"`,
      `digest-uri="${digestUri}"`,
      "maxbuf=65536",
      `response=${proofOf("AUTHENTICATE")}`,
      "qop=auth",
    ].join(",");
    return { response, isProof: (answer) => parseFields(answer).get("rspauth") === proofOf("") };
  }
}

function parseFields(text: string): ReadonlyMap<string, string> {
  const fields = new Map<string, string>();
  for (const [, name = "", inQuotes, bare] of text.matchAll(/([a-z-]+)=(?:"((?:[^"\\]|\\.)*)"|([^,]*))/g)) {
    fields.set(name, inQuotes === undefined ? (bare ?? "") : inQuotes.replace(/\\(.)/g, "$1"));
  }
  return fields;
}

function quoted(text: string): string {
  return text.replace(/["\\]/g, "\\$&");
}
