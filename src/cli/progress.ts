/** A progress bar on the terminal's stderr: redrawn in place, at most ten times a second; nothing where nobody watches. */

import { formatBytes, formatDuration } from "../base/units.ts";
import type { Output } from "./output.ts";

export type Progress = {
  readonly label: string;
  readonly bytesDone: number;
  readonly bytesTotal: number;
  /** Bytes per second. */
  readonly rate: number;
  readonly etaSeconds?: number | undefined;
  /** Appended as it is. */
  readonly note?: string | undefined;
};

const redrawIntervalMs = 100;

export class ProgressBar {
  readonly #output: Output;
  readonly #nowMs: () => number;
  #drawnMs = Number.NEGATIVE_INFINITY;
  #drawn = false;

  constructor(output: Output, nowMs: () => number) {
    this.#output = output;
    this.#nowMs = nowMs;
  }

  update(progress: Progress): void {
    if (!this.#output.interactive || this.#nowMs() - this.#drawnMs < redrawIntervalMs) return;
    this.#drawnMs = this.#nowMs();
    this.#drawn = true;
    this.#output.transient(`\r\u001b[2K${formatProgress(progress, this.#output.width)}`);
  }

  /** Removes the bar, so that what is printed next begins on an empty line. */
  clear(): void {
    if (this.#drawn) this.#output.transient("\r\u001b[2K");
    this.#drawn = false;
  }
}

/** `loading /m  [#########>     ]  62 %  1.2 GiB/2.0 GiB  540 MiB/s  ETA 1.4 s`, cut to `width`. */
export function formatProgress(progress: Progress, width: number): string {
  const share = progress.bytesTotal === 0 ? 1 : Math.min(1, progress.bytesDone / progress.bytesTotal);
  const facts = [
    `${String(Math.floor(share * 100)).padStart(3)} %`,
    `${formatBytes(progress.bytesDone)}/${formatBytes(progress.bytesTotal)}`,
    `${formatBytes(progress.rate)}/s`,
    ...(progress.etaSeconds === undefined ? [] : [`ETA ${formatDuration(progress.etaSeconds * 1000)}`]),
    ...(progress.note === undefined ? [] : [progress.note]),
  ].join("  ");
  const barWidth = Math.max(8, Math.min(30, width - progress.label.length - facts.length - 8));
  const filled = Math.floor(share * barWidth);
  const bar = `${"#".repeat(filled)}${filled < barWidth ? ">" : ""}`.padEnd(barWidth).slice(0, barWidth);
  return `${progress.label}  [${bar}]  ${facts}`.slice(0, width);
}
