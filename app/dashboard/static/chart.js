// From the columns of /plot/data to what plotly.js draws.

const OPEN_SIDE = 8; // heights of the plot that a band without a bound reaches beyond it
const MARGIN = 0.06;

const dates = new Intl.DateTimeFormat("en-CA", {
  timeZone: "UTC",
  dateStyle: "short",
  timeStyle: "medium",
  hourCycle: "h23",
});
const numbers = new Map([3, 4, 6].map((digits) => [digits, numberFormat(digits)])); // making one takes its time

function numberFormat(digits) {
  return new Intl.NumberFormat("en", { maximumSignificantDigits: digits });
}

export function formatNumber(number, digits = 6) {
  const size = Math.abs(number);
  const isPlain = size === 0 || (size >= 1e-4 && size < 1e12);
  return isPlain ? numbers.get(digits).format(number) : number.toExponential(4);
}

export function formatTime(seconds) {
  const fraction = seconds % 1 ? (seconds % 1).toFixed(6).slice(1).replace(/0+$/, "") : "";
  return dates.format(seconds * 1000).replace(",", "") + (fraction.length > 1 ? fraction : "");
}

export function formatBand(lower, upper) {
  if (lower === null) {
    return upper === null ? "open" : `up to ${formatNumber(upper)}`;
  }
  return upper === null ? `from ${formatNumber(lower)}` : `${formatNumber(lower)} … ${formatNumber(upper)}`;
}

// Lowest and highest of what is drawn within the view, with a margin; null when it cannot be drawn to scale.
export function fitHeight(data, [start, end]) {
  let low = Infinity;
  let high = -Infinity;
  for (let i = 0; i < data.timestamps.length; i += 1) {
    if (data.timestamps[i] >= start && data.timestamps[i] <= end) {
      for (const level of [data.values[i], data.expected[i], data.lower[i], data.upper[i]]) {
        if (level !== null) {
          low = Math.min(low, level);
          high = Math.max(high, level);
        }
      }
    }
  }
  const margin = (high - low) * MARGIN || Math.abs(high) * MARGIN || 1;
  const range = [low - margin, high + margin];
  return range.every(Number.isFinite) && Number.isFinite(range[1] - range[0]) ? range : null;
}

export function figure(data, view, height) {
  const colors = theme();
  const x = data.timestamps.map((seconds) => seconds * 1000);
  const traces = [...bandTraces(data, x, height, colors), ...lineTraces(data, x, colors)];
  return { traces, layout: layout(data, view, height, colors) };
}

function bandTraces(data, x, height, colors) {
  const reach = height === null ? 0 : (height[1] - height[0]) * OPEN_SIDE;
  const [floor, ceiling] = height === null ? [null, null] : [height[0] - reach, height[1] + reach];
  const edge = { x, mode: "lines", hoverinfo: "skip", line: { width: 1, color: colors.edge }, type: "scatter" };
  return [
    { ...edge, name: "lower", y: data.lower.map((bound) => bound ?? floor) },
    { ...edge, name: "upper", y: data.upper.map((bound) => bound ?? ceiling), fill: "tonexty", fillcolor: colors.band },
  ];
}

function lineTraces(data, x, colors) {
  const text = data.timestamps.map((_, i) => describe(data, i));
  const hover = { text, hovertemplate: "%{text}<extra></extra>" };
  const marked = data.anomaly.flatMap((isAnomaly, i) => (isAnomaly ? [i] : []));
  const line = { x, mode: "lines", type: "scatter" };
  return [
    {
      ...line,
      name: "expected",
      y: data.expected,
      hoverinfo: "skip",
      line: { width: 1.5, color: colors.expected, dash: "5px,4px" },
    },
    { ...line, ...hover, name: "value", y: data.values, line: { width: 1.4, color: colors.value } },
    {
      name: "anomaly",
      type: "scatter",
      mode: "markers",
      hoverinfo: "skip",
      x: marked.map((i) => x[i]),
      y: marked.map((i) => data.values[i]),
      marker: { size: 9, symbol: "diamond", color: colors.anomaly, line: { width: 1, color: colors.surface } },
    },
    {
      ...line,
      ...hover,
      name: "score",
      y: data.score,
      yaxis: "y2",
      fill: "tozeroy",
      fillcolor: colors.band,
      line: { width: 1, color: colors.value },
    },
  ];
}

function describe(data, i) {
  return [
    `${formatTime(data.timestamps[i])} UTC`,
    `value ${formatNumber(data.values[i])}${data.anomaly[i] ? ", an anomaly" : ""}`,
    `expected ${formatNumber(data.expected[i])}`,
    `normal band ${formatBand(data.lower[i], data.upper[i])}`,
    `score ${formatNumber(data.score[i], 4)}, severity ${formatNumber(data.severity[i], 3)}, p ${formatNumber(data.p_value[i], 3)}`,
  ].join("<br>");
}

function layout(data, view, height, colors) {
  const small = { size: 11 };
  const axis = { gridcolor: colors.grid, zeroline: false, linecolor: colors.grid, automargin: true, tickfont: small };
  const last = data.timestamps.length - 1;
  const spare = (data.timestamps[last] - data.timestamps[0]) * 0.02;
  const topScore = data.score.reduce((top, score) => Math.max(top, score), 1);
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
    yaxis: { ...axis, domain: [0.25, 1], ...(height === null ? { autorange: true } : { range: height }) },
    yaxis2: {
      ...axis,
      domain: [0, 0.19],
      range: [0, Math.min(topScore * 1.15, Number.MAX_VALUE)],
      fixedrange: true,
      nticks: 3,
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

function theme() {
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
    font: getComputedStyle(document.body).fontFamily,
  };
}
