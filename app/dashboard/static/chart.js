// From the columns of /plot/data to what plotly.js draws.

import { formatBand, formatNumber, formatTime } from "./format.js";
import { KINDS, byKind, kindOf, markSize } from "./kinds.js";

const OPEN_SIDE = 8; // heights of the plot that a band without a bound reaches beyond it
const MARGIN = 0.06;
const BAND_REACH = 0.25; // of the height of the values, that a wide band may take on either side of them
export const LOWEST_SCORE = 0.1;

// Lowest and highest of what is drawn within the view, with a margin; null when it cannot be drawn to scale.
export function fitHeight(data, [start, end]) {
  let [low, high, lower, upper] = [Infinity, -Infinity, Infinity, -Infinity];
  for (let i = 0; i < data.timestamps.length; i += 1) {
    if (data.timestamps[i] >= start && data.timestamps[i] <= end) {
      low = Math.min(low, data.values[i], data.expected[i]);
      high = Math.max(high, data.values[i], data.expected[i]);
      lower = Math.min(lower, data.lower[i] ?? Infinity);
      upper = Math.max(upper, data.upper[i] ?? -Infinity);
    }
  }
  const reach = (high - low) * BAND_REACH || Infinity;
  low = Math.min(low, Math.max(lower, low - reach));
  high = Math.max(high, Math.min(upper, high + reach));
  const margin = (high - low) * MARGIN || Math.abs(high) * MARGIN || 1;
  const range = [low - margin, high + margin];
  return range.every(Number.isFinite) && Number.isFinite(range[1] - range[0]) ? range : null;
}

export function figure(data, view, height, hidden) {
  const colors = theme();
  const x = data.timestamps.map((seconds) => seconds * 1000);
  const traces = [
    ...bandTraces(data, x, height, colors),
    ...lineTraces(data, x, colors),
    ...kindTraces(data, x, hidden, colors),
  ];
  return { traces, layout: layout(data, view, height, colors) };
}

function bandTraces(data, x, height, colors) {
  const reach = height === null ? 0 : (height[1] - height[0]) * OPEN_SIDE;
  const [floor, ceiling] = height === null ? [null, null] : [height[0] - reach, height[1] + reach];
  const edge = { x, mode: "lines", hoverinfo: "skip", line: { width: 0.5, color: colors.edge }, type: "scatter" };
  return [
    { ...edge, uid: "lower", y: data.lower.map((bound) => bound ?? floor) },
    {
      ...edge,
      uid: "upper",
      y: data.upper.map((bound) => bound ?? ceiling),
      fill: "tonexty",
      fillcolor: colors.band,
    },
  ];
}

function lineTraces(data, x, colors) {
  const text = data.timestamps.map((_, i) => describe(data, i));
  const line = { x, mode: "lines", type: "scatter" };
  const told = { ...line, text, hovertemplate: "%{text}<extra></extra>" };
  return [
    {
      ...line,
      uid: "expected",
      y: data.expected,
      hoverinfo: "skip",
      line: { width: 1.5, color: colors.expected, dash: "5px,4px" },
    },
    { ...told, uid: "value", y: data.values, line: { width: 1.4, color: colors.value } },
    {
      ...told,
      uid: "score",
      y: data.score.map((score) => Math.max(score, LOWEST_SCORE)),
      yaxis: "y2",
      fill: "tozeroy",
      fillcolor: colors.band,
      line: { width: 0.8, color: colors.value },
    },
  ];
}

function kindTraces(data, x, hidden, colors) {
  const kinds = byKind(data);
  const size = markSize(kinds);
  return [...kinds].map(([kind, places]) => ({
    uid: kind,
    visible: !hidden.has(kind),
    type: "scatter",
    mode: "markers",
    hoverinfo: "skip",
    x: places.map((i) => x[i]),
    y: places.map((i) => data.values[i]),
    marker: {
      symbol: KINDS.get(kind).symbol,
      size,
      color: colors.kinds.get(kind),
      line: { width: 1, color: kind === "unnamed" ? colors.kinds.get(kind) : colors.surface },
    },
  }));
}

function describe(data, i) {
  return [
    `${formatTime(data.timestamps[i])} UTC`,
    `value ${formatNumber(data.values[i])}${data.anomaly[i] ? `, ${KINDS.get(kindOf(data, i)).label}` : ""}`,
    `expected ${formatNumber(data.expected[i])}`,
    `normal band ${formatBand(data.lower[i], data.upper[i])}`,
    `score ${formatNumber(data.score[i], 4)}, severity ${formatNumber(data.severity[i], 3)}, p ${formatNumber(data.p_value[i], 3)}`,
  ].join("<br>");
}

// Logarithms: from scores that are hardly worth a look to the highest, the threshold always among them.
function scoreScale(data) {
  const top = data.score.reduce((highest, score) => Math.max(highest, score), 2);
  const range = [Math.log10(LOWEST_SCORE), Math.log10(Math.min(top, 1e300)) + 0.1];
  return { range, dtick: Math.ceil((range[1] - range[0]) / 4) };
}

function layout(data, view, height, colors) {
  const small = { size: 11 };
  const axis = { gridcolor: colors.grid, zeroline: false, linecolor: colors.grid, automargin: true, tickfont: small };
  const last = data.timestamps.length - 1;
  const spare = (data.timestamps[last] - data.timestamps[0]) * 0.02;
  return {
    autosize: true,
    margin: { l: 8, r: 12, t: 6, b: 8 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: colors.font, size: 12, color: colors.muted },
    showlegend: false,
    hovermode: "x",
    hoverlabel: {
      bgcolor: colors.surface,
      bordercolor: colors.grid,
      align: "left",
      font: { family: colors.font, size: 12, color: colors.text },
    },
    dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
    xaxis: {
      ...axis,
      type: "date",
      title: { text: "Time (UTC)", font: small },
      anchor: "y2",
      range: view.map((seconds) => seconds * 1000),
      minallowed: (data.timestamps[0] - spare) * 1000,
      maxallowed: (data.timestamps[last] + spare) * 1000,
      showspikes: true,
      spikemode: "across",
      spikethickness: 1,
      spikedash: "solid",
      spikecolor: colors.expected,
    },
    yaxis: {
      ...axis,
      domain: [0.3, 1],
      title: { text: "value", font: small },
      ...(height === null ? { autorange: true } : { range: height }),
    },
    yaxis2: {
      ...axis,
      type: "log",
      domain: [0, 0.24],
      ...scoreScale(data),
      fixedrange: true,
      title: { text: "score", font: small },
    },
    shapes: [
      {
        type: "line",
        xref: "paper",
        x0: 0,
        x1: 1,
        yref: "y2",
        y0: 1,
        y1: 1,
        line: { color: colors.anomaly, width: 1, dash: "4px,3px" },
      },
    ],
  };
}

export function theme() {
  const style = getComputedStyle(document.documentElement);
  const read = (name) => style.getPropertyValue(`--${name}`).trim();
  return {
    value: read("value"),
    expected: read("expected"),
    band: read("band"),
    edge: read("band-edge"),
    anomaly: read("anomaly"),
    grid: read("line"),
    text: read("text"),
    muted: read("muted"),
    surface: read("surface"),
    kinds: new Map([...KINDS.keys()].map((kind) => [kind, read(`kind-${kind}`)])),
    font: getComputedStyle(document.body).fontFamily,
  };
}
