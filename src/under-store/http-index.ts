/**
 * What web servers show of a directory: the JSON of nginx (`autoindex_format json`), and the HTML of nginx, Apache,
 * Caddy, Python's http.server and their like. Only names are taken from it: sizes and identities are asked for file by
 * file, because pages round them, and links are believed only when they lead to direct children of the directory.
 */

import { HeadpondError } from "../base/errors.ts";

export type IndexEntry = { readonly kind: "file" | "directory"; readonly name: string };

/** Names in one page of a web server; more are refused. */
const entriesMax = 100_000;

/** Throws `unsupported` when the page is not a listing. `url` is that of the directory, with a slash at the end. */
export function parseIndex(url: string, contentType: string, body: string): readonly IndexEntry[] {
  const type = contentType.toLowerCase();
  if (type.includes("json")) return parseJson(url, body);
  if (type.includes("html")) return parseHtml(url, body);
  throw new HeadpondError("unsupported", `${url} is ${contentType || "of no content type"}, not a listing: ${advice}`);
}

export const advice = "switch on listings at the server (nginx: autoindex on), or name files by their whole path";

function parseJson(url: string, body: string): readonly IndexEntry[] {
  let rows: unknown;
  try {
    rows = JSON.parse(body);
  } catch (error) {
    throw new HeadpondError("unsupported", `${url} is not JSON: ${advice}`, { cause: error });
  }
  if (!Array.isArray(rows)) throw new HeadpondError("unsupported", `${url} is not a list of files in JSON: ${advice}`);
  checkCount(url, rows.length);
  const entries: IndexEntry[] = [];
  for (const row of rows as readonly { readonly name?: unknown; readonly type?: unknown }[]) {
    if (typeof row?.name !== "string") throw new HeadpondError("unsupported", `${url} lists something without a name`);
    const name = row.name.replace(/\/$/, "");
    entries.push({ kind: row.type === "directory" || row.name.endsWith("/") ? "directory" : "file", name });
  }
  return entries;
}

function parseHtml(url: string, body: string): readonly IndexEntry[] {
  const base = new URL(url);
  const entries = new Map<string, IndexEntry>();
  for (const match of body.matchAll(/<a\s[^>]*?href\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s>]+))/gi)) {
    const entry = childOf(base, decodeEntities(match[1] ?? match[2] ?? match[3] ?? ""));
    if (entry !== undefined) entries.set(`${entry.name}/${entry.kind}`, entry);
    checkCount(url, entries.size);
  }
  return [...entries.values()];
}

/** A link to a direct child. Links that sort, lead up or away, or jump within the page are not entries. */
function childOf(base: URL, href: string): IndexEntry | undefined {
  if (href === "" || href.startsWith("?") || href.startsWith("#")) return undefined;
  let target: URL;
  try {
    target = new URL(href, base);
  } catch {
    return undefined;
  }
  if (target.origin !== base.origin || !target.pathname.startsWith(base.pathname)) return undefined;
  const rest = target.pathname.slice(base.pathname.length);
  const isDirectory = rest.endsWith("/");
  const encoded = isDirectory ? rest.slice(0, -1) : rest;
  if (encoded === "" || encoded.includes("/") || target.search !== "") return undefined;
  try {
    return { kind: isDirectory ? "directory" : "file", name: decodeURIComponent(encoded) };
  } catch {
    // Bytes that are not UTF-8: the caller skips and counts what cannot be a name.
    return { kind: isDirectory ? "directory" : "file", name: `\0${encoded}` };
  }
}

function decodeEntities(text: string): string {
  const named: Readonly<Record<string, string>> = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'" };
  return text.replace(/&(?:#x([0-9a-f]{1,6})|#(\d{1,7})|([a-z]{2,4}));/gi, (whole, hex, decimal, name) => {
    if (name !== undefined) return named[String(name).toLowerCase()] ?? whole;
    const code = hex === undefined ? Number(decimal) : Number.parseInt(String(hex), 16);
    return code <= 0x10ffff ? String.fromCodePoint(code) : whole;
  });
}

function checkCount(url: string, count: number): void {
  if (count <= entriesMax) return;
  throw new HeadpondError("unsupported", `${url} lists more than ${entriesMax} names`);
}
