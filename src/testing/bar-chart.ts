/** Bars in groups as an SVG picture that reads on light and on dark pages: the only kind of chart that the reports need. */

export type BarChart = {
  readonly title: string;
  readonly unit: string;
  /** Names of the bars of a group, in order: each has a colour. */
  readonly series: readonly string[];
  /** `undefined`: not measured; its place stays empty. */
  readonly groups: readonly { readonly label: string; readonly values: readonly (number | undefined)[] }[];
};

const colours = ["#3b7dd8", "#e08a1e", "#3f9d63", "#9a9a9a", "#b65fcf"];
const [width, plotHeight, left, top, groupGap] = [760, 220, 16, 64, 28];
const text = 'font-family="sans-serif" fill="#777"';

/** Heights are logarithmic: what is compared lies orders of magnitude apart. Each bar carries its value. */
export function barChart({ title, unit, series, groups }: BarChart): string {
  const values = groups.flatMap((group) =>
    group.values.filter((value) => value !== undefined && value > 0),
  ) as number[];
  const low = Math.floor(Math.log10(Math.min(...values)) - 0.3);
  const high = Math.log10(Math.max(...values));
  const heightOf = (value: number): number => ((Math.log10(value) - low) / (high - low || 1)) * plotHeight;
  const barWidth = (width - 2 * left - groupGap * (groups.length - 1)) / (groups.length * series.length);
  const parts = [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${top + plotHeight + 40}" role="img" aria-label="${escape(title)}">`,
    `<text x="${left}" y="22" ${text} font-size="16" font-weight="bold">${escape(title)}</text>`,
  ];
  let legendX = left;
  for (const [i, name] of series.entries()) {
    parts.push(`<rect x="${legendX}" y="34" width="11" height="11" fill="${colourOf(i)}"/>`);
    parts.push(`<text x="${legendX + 16}" y="44" ${text} font-size="12">${escape(name)}</text>`);
    legendX += 34 + name.length * 6.8;
  }
  const base = top + plotHeight;
  for (const [g, group] of groups.entries()) {
    const groupX = left + g * (series.length * barWidth + groupGap);
    for (const [i, value] of group.values.entries()) {
      if (value === undefined || value <= 0) continue;
      const height = Math.max(2, heightOf(value) * 0.92);
      const x = groupX + i * barWidth;
      parts.push(bar(x, base - height, barWidth, height, i));
      parts.push(
        `<text x="${point(x + barWidth / 2)}" y="${point(base - height - 5)}" ${text} font-size="11" text-anchor="middle">${shown(value)}</text>`,
      );
    }
    const middle = groupX + (series.length * barWidth) / 2;
    parts.push(
      `<text x="${point(middle)}" y="${base + 18}" ${text} font-size="12" text-anchor="middle">${escape(group.label)}</text>`,
    );
  }
  parts.push(`<line x1="${left}" y1="${base}" x2="${width - left}" y2="${base}" stroke="#999"/>`);
  parts.push(
    `<text x="${width - left}" y="${base + 34}" ${text} font-size="11" text-anchor="end">${escape(unit)}, logarithmic</text>`,
  );
  parts.push("</svg>");
  return `${parts.join("\n")}\n`;
}

function bar(x: number, y: number, barWidth: number, height: number, series: number): string {
  return `<rect x="${point(x + 1)}" y="${point(y)}" width="${point(barWidth - 2)}" height="${point(height)}" fill="${colourOf(series)}"/>`;
}

function colourOf(series: number): string {
  return colours[series % colours.length] as string;
}

/** Three digits, thousands as k. */
function shown(value: number): string {
  if (value >= 1e6) return `${Number((value / 1e6).toPrecision(3))}M`;
  if (value >= 1e4) return `${Number((value / 1e3).toPrecision(3))}k`;
  return String(Number(value.toPrecision(3)));
}

function point(value: number): string {
  return value.toFixed(1);
}

function escape(value: string): string {
  return value.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll('"', "&quot;");
}
