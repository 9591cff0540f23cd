// Prints what HDR's JavaScript library reads in a histogram on stdin, in microseconds.
// Usage: node histogram.mjs FOLDER_WITH_NODE_MODULES < HISTOGRAM

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const hdr = createRequire(`${process.argv[2]}/`)("hdr-histogram-js");
const histogram = hdr.decodeFromCompressedBase64(readFileSync(0, "utf8").trim());
const percentiles = [50, 90, 99, 99.9].map((percentile) => histogram.getValueAtPercentile(percentile));
console.log(JSON.stringify([histogram.totalCount, ...percentiles, histogram.maxValue]));
