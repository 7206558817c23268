import assert from "node:assert/strict";
import { test } from "node:test";
import { barChart } from "./bar-chart.ts";

test("bar chart: every value that was measured has one bar with its number, and names are escaped", () => {
  const svg = barChart({
    title: "a < b & c",
    unit: "1/s",
    series: ["one", "two"],
    groups: [
      { label: "first", values: [12_345, 10] },
      { label: "second", values: [undefined, 0.5] },
    ],
  });
  assert.match(svg, /^<svg [^]*<\/svg>\n$/);
  assert.equal(svg.match(/<rect /g)?.length, 2 + 3, "two of the legend, three bars");
  for (const shown of [">12.3k<", ">10<", ">0.5<", "a &lt; b &amp; c"]) assert.ok(svg.includes(shown), shown);
});

test("bar chart: a larger value has a higher bar", () => {
  const svg = barChart({
    title: "t",
    unit: "ms",
    series: ["s"],
    groups: [
      { label: "g", values: [1] },
      { label: "h", values: [1000] },
    ],
  });
  const heights = [...svg.matchAll(/<rect [^>]*height="([0-9.]+)"/g)].map(([, height]) => Number(height)).slice(1);
  assert.ok((heights[0] as number) < (heights[1] as number), heights.join(", "));
});
