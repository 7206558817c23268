/**
 * What the command line prints. Results go to stdout: aligned tables for people, one JSON document (or NDJSON for
 * streams) with `--json`, and then nothing else. Diagnostics and progress go to stderr.
 */

import { toHeadpondError } from "../base/errors.ts";

export type Column<Row> = {
  readonly title: string;
  readonly value: (row: Row) => string;
  readonly align?: "left" | "right";
};

export type OutputStreams = {
  readonly out: { write(text: string): unknown; readonly isTTY?: boolean; readonly columns?: number };
  readonly err: { write(text: string): unknown; readonly isTTY?: boolean; readonly columns?: number };
};

export class Output {
  readonly json: boolean;
  readonly #streams: OutputStreams;
  readonly #colour: boolean;

  constructor(options: { json: boolean; streams: OutputStreams; noColour: boolean }) {
    this.json = options.json;
    this.#streams = options.streams;
    this.#colour = options.streams.out.isTTY === true && !options.noColour && !options.json;
  }

  /** Progress bars make sense: a person watches, and nobody parses. */
  get interactive(): boolean {
    return this.#streams.err.isTTY === true && !this.json;
  }

  get width(): number {
    return this.#streams.err.columns ?? 80;
  }

  /** The result: `document` as JSON, else `human`. */
  result(document: unknown, human: () => void): void {
    if (this.json) this.#streams.out.write(`${JSON.stringify(document)}\n`);
    else human();
  }

  /** One item of a stream: a line of NDJSON, else `human`. */
  item(document: unknown, human: () => void): void {
    this.result(document, human);
  }

  /** Written as it is: file contents, completion scripts. */
  raw(text: string): void {
    this.#streams.out.write(text);
  }

  note(text: string): void {
    this.#streams.err.write(`${text.split("\n").map(visible).join("\n")}\n`);
  }

  /** Without a newline, for progress bars. */
  transient(text: string): void {
    this.#streams.err.write(text);
  }

  /** A line of results: what would steer a terminal is shown as text, for names of files may be anything. */
  line(text = ""): void {
    this.#streams.out.write(`${visible(text)}\n`);
  }

  table<Row>(rows: readonly Row[], columns: readonly Column<Row>[]): void {
    const cells = rows.map((row) => columns.map((column) => visible(column.value(row))));
    const widths = columns.map((column, i) =>
      Math.max(column.title.length, ...cells.map((row) => displayWidth(row[i] ?? ""))),
    );
    const format = (row: readonly string[]): string =>
      row
        .map((cell, i) => {
          const padding = " ".repeat(Math.max(0, (widths[i] ?? 0) - displayWidth(cell)));
          return columns[i]?.align === "right" ? padding + cell : cell + padding;
        })
        .join("  ")
        .trimEnd();
    this.line(this.bold(format(columns.map((column) => column.title))));
    for (const row of cells) this.line(format(row));
  }

  /** `label  value` lines. */
  facts(facts: readonly (readonly [string, string])[]): void {
    const width = Math.max(...facts.map(([label]) => label.length));
    for (const [label, value] of facts) this.line(`${label.padEnd(width)}  ${value}`);
  }

  error(error: unknown): void {
    const known = toHeadpondError(error);
    if (this.json) this.#streams.out.write(`${JSON.stringify(known)}\n`);
    else this.#streams.err.write(`headpond: ${visible(known.message)} (${known.code})\n`);
  }

  bold(text: string): string {
    return this.#colour ? `\u001b[1m${text}\u001b[0m` : text;
  }

  state(state: string): string {
    if (!this.#colour) return state;
    const good = ["READY", "live", "succeeded", "leader", "ok"].includes(state);
    const bad = ["lost", "failed", "corrupt"].includes(state);
    return good ? `\u001b[32m${state}\u001b[0m` : bad ? `\u001b[31m${state}\u001b[0m` : `\u001b[33m${state}\u001b[0m`;
  }
}

/** Control characters as escapes, but for the colours of `bold` and `state`. */
function visible(text: string): string {
  return text.replace(controls, (found) =>
    colours.test(found) ? found : `\\x${(found.codePointAt(0) ?? 0).toString(16).padStart(2, "0")}${found.slice(1)}`,
  );
}

const controls = /\u001b\[[0-9;]*m|[\u0000-\u001f\u007f-\u009f]/g;
const colours = /^\u001b\[(0|1|31|32|33)m$/;

/** Columns on a terminal, without colour codes. */
function displayWidth(text: string): number {
  return [...text.replace(/\u001b\[[0-9;]*m/g, "")].length;
}
