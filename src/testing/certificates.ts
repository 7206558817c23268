/** Certificates for tests, made by openssl: an authority, and what it signs for a name. They are good for two days. */

import { spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

export type Identity = { readonly certificate: string; readonly key: string };

export function hasOpenSsl(): boolean {
  return spawnSync("openssl", ["version"], { stdio: "ignore" }).status === 0;
}

export class Authority {
  readonly #directory: string;
  readonly #name: string;
  readonly certificate: string;

  /** Writes its files into `directory`. */
  constructor(directory: string, name: string) {
    this.#directory = directory;
    this.#name = name;
    const files = ["-keyout", this.#path("key"), "-out", this.#path("pem")];
    openssl("req", "-x509", ...curve, ...files, "-days", "2", "-subj", `/CN=${name}`);
    this.certificate = readFileSync(this.#path("pem"), "utf8");
  }

  /** For the host `name` and the address of loopback. */
  sign(name: string, alternatives = `DNS:${name},IP:127.0.0.1`): Identity {
    const path = (kind: string): string => join(this.#directory, `${this.#name}-${name}.${kind}`);
    openssl("req", ...curve, "-keyout", path("key"), "-out", path("csr"), "-subj", `/CN=${name}`);
    writeFileSync(path("ext"), `subjectAltName=${alternatives}\n`);
    const authority = ["-CA", this.#path("pem"), "-CAkey", this.#path("key"), "-CAcreateserial"];
    openssl(
      "x509",
      "-req",
      "-in",
      path("csr"),
      ...authority,
      "-days",
      "2",
      "-extfile",
      path("ext"),
      "-out",
      path("pem"),
    );
    return { certificate: readFileSync(path("pem"), "utf8"), key: readFileSync(path("key"), "utf8") };
  }

  #path(kind: string): string {
    return join(this.#directory, `${this.#name}.${kind}`);
  }
}

const curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];

function openssl(...args: readonly string[]): void {
  const done = spawnSync("openssl", args);
  if (done.status !== 0) throw new Error(`openssl ${args.join(" ")}: ${String(done.stderr)}`);
}
