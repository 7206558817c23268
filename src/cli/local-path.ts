/**
 * Which side of a copy a word on the command line names: a bare `/path` is Headpond's; `./`, `../`, `~` and `file:` are
 * local; `-` is standard input or output (surface.md).
 */

import { homedir } from "node:os";
import { resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { HeadpondError } from "../base/errors.ts";

export type Location =
  | { readonly kind: "headpond"; readonly path: string }
  | { readonly kind: "local"; readonly path: string }
  | { readonly kind: "standard" };

export function parseLocation(word: string): Location {
  if (word === "-") return { kind: "standard" };
  if (word.startsWith("/")) return { kind: "headpond", path: word };
  if (word === "." || word === ".." || word.startsWith("./") || word.startsWith("../")) {
    return { kind: "local", path: resolve(word) };
  }
  if (word === "~" || word.startsWith("~/")) return { kind: "local", path: resolve(homedir(), `.${word.slice(1)}`) };
  if (word.startsWith("file://")) return { kind: "local", path: fileURLToPath(word) };
  if (word.startsWith("file:")) return { kind: "local", path: resolve(word.slice(5)) };
  throw new HeadpondError("invalid", `${JSON.stringify(word)}: write /path for Headpond's, ./path for a local one`);
}
